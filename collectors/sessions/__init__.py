"""Collector of sessions and posture: who is connected, and what decides what can happen or be seen."""
