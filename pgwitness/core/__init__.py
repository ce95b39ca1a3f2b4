"""The vocabulary that every room shares: events, batches, topics, configuration, masking, errors; no I/O with
servers."""
