"""The names of what the guard has in a database, and how texts stand in its SQL."""

from __future__ import annotations

from collections.abc import Iterable

from collectors.installation.sql.templates import SCHEMA_OF_GUARD

SCHEMA = SCHEMA_OF_GUARD
OWNER = "pgwitness_guard"
"""Owns the schema and what judges, and cannot log in."""
MARK = "pgwitness.mark"
"""The parameter in which a session of the gateway shows that its statement was approved (`mark`)."""
TRIGGER = "pgwitness_guard_"
"""What the names of triggers on tables begin with; the operation follows."""
OPERATIONS = ("insert", "update", "delete", "truncate")
"""What triggers on tables see."""


def text(value: str) -> str:
    """Write a text as SQL that reads alike whatever `standard_conforming_strings` says."""
    quoted = value.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in value else f"'{quoted}'"


def array(values: Iterable[str | None]) -> str:
    """Write texts as an SQL array."""
    listed = ", ".join("NULL" if value is None else text(value) for value in values)
    return f"ARRAY[{listed}]::text[]"
