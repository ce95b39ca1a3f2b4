"""What the fold remembers between records, as it stands in a checkpoint."""
