"""Statements that wait for approval at the gateway."""
