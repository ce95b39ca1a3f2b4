"""Approvals: requests for statements that wait for a person, what is decided on them, and that each is used once."""
