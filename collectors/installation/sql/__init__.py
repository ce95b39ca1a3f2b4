"""The SQL of an installation: tables, functions, triggers and event triggers as texts; nothing is run here."""
