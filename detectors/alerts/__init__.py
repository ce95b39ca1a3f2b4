"""Alerts: from what was found to what is reported to a person, how often, and what is suppressed."""
