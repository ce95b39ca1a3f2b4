"""A module for each kind of raw record: what the fold learns from it, and what it emits."""
