"""The beacon: what a source database needs so that its WAL says who made each transaction (docs/decisions/0011, 1).

`templates` holds the SQL, `planning` decides what is to be done, `install` does it; `mac` verifies what the WAL
carries, `source` reads what collectors need to know, `capabilities` says what can be captured where.
"""
