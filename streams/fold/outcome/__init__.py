"""What came of the statements that the log reports: committed, rolled back, or nobody knows. Pure."""
