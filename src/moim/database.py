"""SQLite opened one way for every floor that stores something."""
