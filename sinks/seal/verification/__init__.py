"""Verifying a lake, or a bundle, by what was sealed."""
