"""Rows of the lake: their columns, how they become Parquet, and what they add up to."""
