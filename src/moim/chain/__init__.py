"""Prompts, models and parsers joined into one runnable."""
