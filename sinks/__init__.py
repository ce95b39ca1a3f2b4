"""Sinks: the evidence lake with its log, and the DuckDB catalogue that reads it."""
