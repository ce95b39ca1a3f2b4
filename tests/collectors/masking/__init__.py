"""Masks on real servers."""
