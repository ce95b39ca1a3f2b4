"""Sinks: the evidence lake with its manifest, and the DuckDB catalogue that reads it."""
