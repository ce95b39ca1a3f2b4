"""The evidence lake as files: columns, Parquet, manifest, and the SQL of its views."""
