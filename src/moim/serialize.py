"""Values as text and back, by registered tag and never by class path."""
