"""Outcomes on real servers: what pgwitness says of statements beside what really came of them."""
