"""What came of the statements that the log tells: committed, rolled back, or nobody knows. Pure."""
