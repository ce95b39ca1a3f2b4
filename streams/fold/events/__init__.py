"""The events that the fold emits, each made from a raw event and its attribution; a module a kind. Pure."""
