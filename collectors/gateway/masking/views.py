"""What is known of the views that an audience reads in place of tables; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from msgspec import Struct

Write = Literal["insert", "update", "delete"]
Name = tuple[str, str]
"""A schema and a relation in it."""
How = Literal["token", "null", "other"]
"""How a view shows what it does not show as it is: as a token, not at all, or as anything else."""


class Relation(Struct, frozen=True, kw_only=True):
    """A table that is read through a view of its name.

    `columns` are those that the view shows, in its order; `masked` those of them that it does not show as they are,
    each with how. `key` are the columns of the primary key; `unequal` those of a type without equality, by which
    nothing is grouped. `parent`: rows of other tables are read through it. `table` is what the audience may do with the
    table itself, `view` what it may do with it through the view.
    """

    columns: tuple[str, ...]
    masked: Mapping[str, How] = {}
    key: tuple[str, ...] = ()
    unequal: frozenset[str] = frozenset()
    parent: bool = False
    table: frozenset[str] = frozenset()
    view: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of one audience in one database: by schema that of its views, by schema and name the tables."""

    role: str
    schemas: Mapping[str, str]
    relations: Mapping[Name, Relation]

    @cached_property
    def masked(self) -> re.Pattern[str]:
        """What finds the names of masked columns in a text."""
        names = {name for relation in self.relations.values() for name in relation.masked}
        return re.compile("|".join(map(re.escape, sorted(names))) or r"(?!)", re.IGNORECASE)

    def of(self, schema: str, name: str) -> Relation | None:
        """Return the table that a name of a table, or of its view, stands for."""
        found = self.relations.get((schema, name))
        if found is None:
            behind = next((table for table, views in self.schemas.items() if views == schema), None)
            found = self.relations.get((behind, name)) if behind is not None else None
        return found

    def alone(self, name: str) -> tuple[str, Relation] | None:
        """Return the table that a name without a schema stands for, with its schema, as the search path is at first."""
        for schema in self.schemas:
            found = self.relations.get((schema, name))
            if found is not None:
                return schema, found
        return None
