"""The two stages of the worker, attribute and land, and what decides when they write: over records, without Faust."""
