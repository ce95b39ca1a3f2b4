"""Honest programs, really run beside the whole system: what they raise must be little and true.

`make honest` installs them into `.honest/` (nothing of it is committed) and runs `python -m tests.honest`.
"""
