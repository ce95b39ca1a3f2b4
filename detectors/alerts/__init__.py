"""Alerts: from what was found to what a person is told, how often, and what stays quiet."""
