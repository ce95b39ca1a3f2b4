"""A page on a principal, a relation or a period, for a person who writes no SQL."""
