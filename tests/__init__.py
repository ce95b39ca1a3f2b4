"""Tests mirror the rooms; servers are real, time is waited for with a deadline."""
