"""The log of a lake: a chain of entries that decides what counts."""
