"""How an audience sees a column: by its own rules, those of `[privacy]`, and what the column is made of; pure.

A row of a partition is read through its root, too, and a child table's through its parent. So the column of that name
is one column in the whole tree: what masks it in one of its tables masks it in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Literal

from collectors.masking.catalogue import Column, Table
from pgwitness.core.config import Audience, Privacy
from pgwitness.core.events import quote_identifier
from pgwitness.core.privacy import CLEAR_TYPES

Kind = Literal["token", "last4", "generalise", "null", "clear"]
OF_PRIVACY: Mapping[str, Kind] = {
    "token": "token", "hash": "token", "last4": "last4", "drop": "null", "clear": "clear",
}  # fmt: skip
"""What a treatment of the lake is for an audience: a plain hash would be found by guessing, and becomes a token."""
Rule = Callable[[str], Kind | None]


def rule(audience: Audience, privacy: Privacy) -> Rule:
    """Make the function that says how a column named `schema.table.column` is to be seen; None where nothing does."""

    def named(column: str) -> Kind | None:
        for own in audience.columns:
            if fnmatchcase(column, own.column):
                return own.as_
        for mask in privacy.mask:
            if fnmatchcase(column, mask.column):
                return OF_PRIVACY[mask.with_]
        return "clear" if any(fnmatchcase(column, pattern) for pattern in privacy.clear) else None

    return named


def column_name(table: Table, column: Column) -> str:
    """Name a column as rules do."""
    return f"{table.qualified}.{quote_identifier(column.name)}"


def treatments(table: Table, relatives: Mapping[str, bool], audience: Audience, privacy: Privacy) -> dict[str, Kind]:
    """Say how each column of a table is seen. `relatives` are the other tables of its tree: name, whether above it."""
    named = rule(audience, privacy)
    found = {column.name: _own(table, column, relatives, named, audience, privacy) for column in table.columns}
    by_number = {column.number: column for column in table.columns}
    for column in table.columns:
        made_of = [found[by_number[number].name] for number in column.made_of if number in by_number]
        if any(kind != "clear" for kind in made_of) and found[column.name] != "token":
            found[column.name] = "null"
    return found


def _own(
    table: Table,
    column: Column,
    relatives: Mapping[str, bool],
    named: Rule,
    audience: Audience,
    privacy: Privacy,
) -> Kind:
    quoted = quote_identifier(column.name)
    here = named(column_name(table, column))
    others = [(above, named(f"{name}.{quoted}")) for name, above in relatives.items()]
    masked = [kind for _, kind in others if kind not in (None, "clear")]
    if here is None:
        here = next((kind for above, kind in others if above and kind is not None), None)
    if here not in (None, "clear"):
        return here
    if masked:
        return "null" if "null" in masked else masked[0]
    return here or unnamed(column, audience, privacy)


def unnamed(column: Column, audience: Audience, privacy: Privacy) -> Kind:
    """Say how a column is seen that nothing names: masked, unless its type alone is enough."""
    if audience.unnamed == "typed" and (column.base in CLEAR_TYPES or privacy.default == "clear"):
        return "clear"
    return "token"
