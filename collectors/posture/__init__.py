"""Collector of posture: roles, grants, settings, triggers and the like, what functions run, how many rows tables
hold."""
