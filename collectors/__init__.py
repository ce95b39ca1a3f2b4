"""Collectors: one per source of truth, each a pure decoder beside the shell that owns the connection."""
