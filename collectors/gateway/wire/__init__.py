"""PostgreSQL's frontend/backend protocol, version 3: pure, and total on any bytes (manual, chapter 55)."""
