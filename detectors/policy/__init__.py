"""Policies as code: written in YAML, checked when loaded, asked of each action that they can match."""
