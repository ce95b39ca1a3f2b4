"""Databases that a role has just made: what it does in them, and that it drops them again, is no loss of anybody's.

A test runner makes a database, works in it and drops it, within minutes. Marked with `detail.new_database` is what the
maker does there, by the log, for `NEW_US` after it was committed. Bounded; what is forgotten is judged as any other.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.core.events import Event
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint

NEW = "new_database"
NEW_US = 3_600_000_000
DATABASES_MAX = 500
_PREFIX = "database "


class NewDatabases:
    """Databases of one cluster by name: who made them, and when."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._made: dict[str, tuple[str, int]] = {}

    def statement(self, event: Event) -> None:
        """Take up a statement as its line reports it, and mark it if it acts on a database that its role has made."""
        operations, names = event.detail.get("operations"), event.detail.get("names")
        listed = names if isinstance(names, list) else []
        databases = [str(name)[len(_PREFIX) :] for name in listed if str(name).startswith(_PREFIX)]
        acts = databases or ([event.database] if event.database else [])
        if acts and all(self._is_new(name, event) for name in acts):
            event.detail[NEW] = True
        if event.outcome != "success" or not isinstance(operations, list):
            return
        if "create_database" in operations and event.role is not None:
            self._set(databases, (event.role, event.occurred_at_us))
        elif "drop_database" in operations or "rename_database" in operations:
            self._set(databases, None)

    def _is_new(self, name: str, event: Event) -> bool:
        role, made_us = self._made.get(name, (None, 0))
        return role is not None and role == event.role and 0 <= event.occurred_at_us - made_us <= NEW_US

    def _set(self, names: Iterable[str], made: tuple[str, int] | None) -> None:
        before = dict(self._made)
        self._undo.add(lambda: setattr(self, "_made", before))
        for name in names:
            self._made.pop(name, None)
            if made is not None:
                evict_oldest(self._made, DATABASES_MAX)
                self._made[name] = made

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.new_databases = list(self._made.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._made = dict(state.new_databases)
