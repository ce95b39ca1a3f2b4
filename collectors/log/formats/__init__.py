"""From bytes to records: the formats that a server's log comes in, and what others wrap around them. Pure."""
