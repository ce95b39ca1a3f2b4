"""Tables without a sensitive column: of a statement that asks for `*` of one, `detail.clear` says that it read none.

The collector compares the columns in the catalogue with the patterns of `privacy`, and says of which tables none is
meant; `detail.clear_of` names the patterns. It counts from the look on that found it, and no more after a command that
touched the table, whether the WAL or the log had it first, until the collector says so again. What is not known stays
as it is: it may have read anything. Bounded, and in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.core.events import Ddl, Event, Posture
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.schema.bodies import NAME_CHARS_MAX

CLEAR = "clear"
CLEAR_OF = "clear_of"
CLEAR_MAX = 20_000
HEARD_US = 13 * 3_600_000_000
"""The collector sends everything every six hours; of whom nothing was heard for two such times nothing is known."""
_CHANGES = ("alter", "drop", "create", "rename", "add_", "change_", "attach", "detach", "do", "call", "set_schema")
"""How operations begin that may change the columns of a table, or run what does."""


class ClearTables:
    """The tables of one cluster that have no sensitive column, by database and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int, str]] = {}
        """Since when (the server's clock) that is known, when it was heard last, and of which patterns."""

    def posture(self, event: Posture) -> None:
        """Take up what a look at the catalogue found."""
        after, database = event.after or {}, event.database or ""
        at_us, clear, unclear, of = (after.get(name) for name in ("at_us", CLEAR, "unclear", CLEAR_OF))
        if not (isinstance(at_us, int) and isinstance(clear, list) and isinstance(unclear, list)):
            return
        for name in unclear:
            self._known.pop((database, str(name)), None)
        if not isinstance(of, str) or len(of) > NAME_CHARS_MAX:
            return
        for name in map(str, clear):
            if len(name) + len(database) > 2 * NAME_CHARS_MAX:
                continue
            since_us, _, before = self._known.pop((database, name), (at_us, at_us, of))
            evict_oldest(self._known, CLEAR_MAX)
            self._known[database, name] = (since_us if before == of else at_us, at_us, of)

    def ddl(self, database: str, commands: Iterable[Ddl], committed_at_us: int) -> None:
        """Forget what commands changed, unless it was looked at since; after a rename nothing is known."""
        for command in commands if self._known else ():
            changed = {item.relation for item in (*command.objects, *command.dropped) if item.relation is not None}
            moved = command.tag == "ALTER SCHEMA" or any(word.startswith("rename_") for word in command.operations)
            for key in list(self._known) if moved else [(database, name) for name in changed]:
                known = self._known.get(key)
                if known is not None and key[0] == database and known[1] <= committed_at_us:
                    del self._known[key]

    def ran(self, event: Event) -> None:
        """Say of which tables a statement asked for `*` and read nothing sensitive by that."""
        if not self._known:
            return
        database = event.database or ""
        operations = event.detail.get("operations")
        words = [str(word) for word in operations] if isinstance(operations, list) else []
        if any(word.startswith(_CHANGES) for word in words):
            for name in event.relations:
                self._known.pop((database, name), None)
            return
        begun_us = event.detail.get("window_start_us", event.occurred_at_us)
        clear: list[str] = []
        of = ""
        for column in event.columns:
            table, _, name = column.rpartition(".")
            known = self._known.get((database, table)) if name == "*" else None
            if known is None or not isinstance(begun_us, int):
                continue
            since_us, heard_us, patterns = known
            if since_us <= begun_us and event.occurred_at_us - heard_us <= HEARD_US and of in ("", patterns):
                clear.append(table)
                of = patterns
        if clear:
            event.detail |= {CLEAR: clear, CLEAR_OF: of}

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.clear = list(self._known.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._known = dict(state.clear)
