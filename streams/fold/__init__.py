"""The fold: raw events in, attributed events out; pure, and the same events for the same records."""
