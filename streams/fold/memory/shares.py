"""How many rows relations hold, and how much of them went."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Size(Struct, array_like=True):
    """A reading: when, how many rows, and what the WAL has added since, less what it took."""

    at_us: int
    rows: int
    net: int = 0


class Turnover(Struct, array_like=True):
    """Insertions and deletions of a relation, in the present day and the one before."""

    day: int = 0
    inserted: int = 0
    deleted: int = 0
    inserted_before: int = 0
    deleted_before: int = 0


class Window(Struct, array_like=True):
    """What one principal, or everybody, did to a relation: deletions by hour and day, keys of rows written over."""

    gone: list[list[int]] = []
    """Pairs of the end of an hour or day, and how many rows."""
    total: int = 0
    """Rows in `gone`, those included whose time is over."""
    keys: list[int] = []
    keys_since_us: int = 0
    large: list[int] = []
    """Hours, since the epoch, in which most of the relation went; the first of each day."""


class KnownRelation(Struct, array_like=True):
    """What is known of one relation. `streamed`: it is published, its rows have been in the stream, or DDL made it."""

    sizes: list[Size] = []
    turnover: Turnover = msgspec.field(default_factory=Turnover)
    streamed: bool = False


class Shares(Struct):
    """What is known of one cluster, as in its checkpoint."""

    relations: dict[str, KnownRelation] = {}
    windows: dict[str, Window] = {}
    parts: dict[str, tuple[int, list[dict[str, object]]]] = {}
    """By database the commit LSN of the transaction that is not whole yet, and what is reported with its last part."""
