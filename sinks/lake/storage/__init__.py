"""Where a lake's files are: a folder, or object storage."""
