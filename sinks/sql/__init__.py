"""Asking the lake: a DuckDB that reads its views and nothing else."""
