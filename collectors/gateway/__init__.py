"""The gateway: an identity-aware proxy that native PostgreSQL clients connect through; every statement is evidence."""
