"""The views and macros that readers of a lake ask."""
