"""What is known of a column before it is judged, and what is found of it. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Confidence = Literal["high", "medium", "low"]
CONFIDENCES: tuple[Confidence, ...] = ("high", "medium", "low")

_KINDS = {
    "bool": "bool",
    "date": "date",
    "timestamp": "time",
    "timestamptz": "time",
    "json": "json",
    "jsonb": "json",
    "hstore": "json",
    "xml": "json",
    "bytea": "bytes",
    "uuid": "uuid",
    "inet": "inet",
    "macaddr": "inet",
    "macaddr8": "inet",
    "point": "place",
    "geometry": "place",
    "geography": "place",
}


class Shares(Struct, frozen=True):
    """Of `seen` values, how many have the form of a category; `by` says where they come from."""

    seen: int
    hits: dict[str, int]
    by: Literal["statistics", "sample"]

    def of(self, category: str) -> float:
        """Return the share of the values that have the form of a category; 0 where none was seen."""
        return self.hits.get(category, 0) / self.seen if self.seen else 0.0


class Column(Struct, frozen=True, kw_only=True):
    """A column of a table, of the root of partitions, or of a view.

    `type` is the type's name, of a domain the base's and of an array the element's; `category` its `typcategory`.
    `few` says that the table has many rows and the column at most three values. `labelled` says that its comment, or a
    security label, calls it personal; `key` that it is of the primary key. `readable` is whether who asks may read it.
    """

    schema: str
    table: str
    name: str
    type: str
    category: str = "S"
    view: bool = False
    key: bool = False
    few: bool = False
    labelled: bool = False
    readable: bool = True
    shares: Shares | None = None

    @property
    def kind(self) -> str:
        """Return what sort of value it holds, as the rules have it."""
        return _KINDS.get(self.type) or {"S": "text", "N": "number"}.get(self.category, "other")


class Finding(Struct, frozen=True, kw_only=True):
    """That a column looks sensitive: as what, how sure, and why."""

    column: Column
    category: str
    confidence: Confidence
    why: tuple[str, ...]
