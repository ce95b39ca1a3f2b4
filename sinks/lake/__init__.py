"""The evidence lake as files: columns, Parquet, the log of what belongs to it, and the SQL of its views."""
