"""Joins of two sources: which line of the log, statistics, posture and DDL speak of the same action. Pure."""
