"""One behaviour suite for pgwitness as its users run it, on every broker and every PostgreSQL."""
