"""From a record of the log to what it witnesses, and how sure that is."""
