"""The console: pages on what the lake holds, for people; it owns no data, and says as evidence who looked at what."""
