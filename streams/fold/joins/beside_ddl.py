"""Commands that the log reported and whose DDL message is on its way: they wait for it, so that one action has one
alert.

The event trigger's message is in the WAL, which is read beside the log; which comes first is chance. A command that was
committed waits for `WAIT_US` of record time, where its database is known to send such messages (one has come, or a
snapshot has shown the event trigger), and goes on marked with `seen_as` when the message has come
(`streams.fold.ddl_seen`), else as it is. So does one that changes all rows of a
table, or rows of one whose name nobody knows, and is not judged by its effect: it may have been made a moment before.
Bounded; what finds no room goes on at once.

A block (DO) need not run all that stands in it: what event triggers always report and did not report, it did not
do, or took back. Those operations are left out, and `detail.not_done` names them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.core.events import Event, Posture
from pgwitness.core.undo import Undo
from streams.fold.ddl_seen import SEEN_AS, DdlSeen
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.schema.relations import UNRESOLVED

WAIT_US = 2_000_000
WAITING_MAX = 500
DATABASES_MAX = 1_000
_TELLS = "pgwitness_ddl"
"""The event trigger that sends the messages; of `pgwitness_drop`, which stands beside it, the same holds."""
SEEN = frozenset(
    {
        "drop_table", "drop_schema", "drop_owned", "drop_policy", "alter_policy", "alter_table", "rename_table",
        "create_function", "create_procedure", "alter_function", "grant", "alter_default_privileges",
        "create_foreign_server", "create_user_mapping", "create_subscription",
    }
)  # fmt: skip
"""Operations that event triggers show and policies look at."""
CHANGES = frozenset({"delete", "update", "merge", "truncate"})
"""Operations of which the WAL shows the effect, once it is known what the names in them mean."""

ALWAYS_SEEN = frozenset({"drop_table", "drop_schema", "drop_policy", "alter_policy"})
"""Operations that never succeed without a message, but where there was nothing to drop, or it was temporary."""


class BesideDdl:
    """Commands of one cluster that wait for their message."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._waiting: list[tuple[int, Event]] = []
        self._databases: dict[str, None] = {}

    def wait(self, event: Event, now_us: int) -> bool:
        """Let a command wait; false where nothing more is to come of it."""
        if event.outcome != "success" or SEEN_AS in event.detail or event.database not in self._databases:
            return False
        operations = event.detail.get("operations")
        if not isinstance(operations, list) or len(self._waiting) >= WAITING_MAX:
            return False
        if SEEN.isdisjoint(operations) and not _changes_what_nobody_knows(event, operations):
            return False
        self._set([*self._waiting, (now_us + WAIT_US, event)])
        return True

    def posture(self, raw: Posture) -> None:
        """Learn from a snapshot whether a database sends messages: the first is to find its command waiting, too."""
        if raw.object_type != "event_trigger" or raw.name != _TELLS or raw.database is None:
            return
        if (raw.after or {}).get("enabled") == "always":
            self._sends(raw.database)
        elif raw.database in self._databases:
            self._know({name: None for name in self._databases if name != raw.database})

    def message(self, database: str, seen: DdlSeen) -> list[Event]:
        """A database has sent a message about DDL; return the commands that it reports."""
        self._sends(database)
        return self._take(event for _, event in self._waiting if event.database == database and _was_seen(seen, event))

    def due(self, now_us: int) -> list[Event]:
        """Return the commands of which no message has come in time."""
        if not self._waiting or self._waiting[0][0] > now_us:
            return []
        gone = self._take(event for due_us, event in self._waiting if due_us <= now_us)
        for event in gone:
            _leave_out(event)
        return gone

    def _sends(self, database: str) -> None:
        if database not in self._databases and len(self._databases) < DATABASES_MAX:
            self._know({**self._databases, database: None})

    def _know(self, databases: dict[str, None]) -> None:
        before, self._databases = self._databases, databases
        self._undo.add(lambda: setattr(self, "_databases", before))

    def _take(self, events: Iterable[Event]) -> list[Event]:
        taken = list(events)
        gone = {id(event) for event in taken}
        self._set([item for item in self._waiting if id(item[1]) not in gone])
        return taken

    def _set(self, waiting: list[tuple[int, Event]]) -> None:
        before, self._waiting = self._waiting, waiting
        self._undo.add(lambda: setattr(self, "_waiting", before))

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.beside_ddl = self._waiting
        state.ddl_databases = list(self._databases)

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._waiting = list(state.beside_ddl)
        self._databases = dict.fromkeys(state.ddl_databases)


def _changes_what_nobody_knows(event: Event, operations: list[object]) -> bool:
    """Return whether a statement may change a table that was made just before, as the WAL has yet to show."""
    if CHANGES.isdisjoint(str(word) for word in operations) or "by_effect" in event.detail:
        return False
    all_rows = "truncate" in operations or event.detail.get("where") in ("none", "useless")
    return all_rows or UNRESOLVED in event.detail


def _was_seen(seen: DdlSeen, event: Event) -> bool:
    seen.statement(event)
    return SEEN_AS in event.detail


def _leave_out(event: Event) -> None:
    """Take out of a block what triggers would have reported, had it been done."""
    operations = event.detail.get("operations")
    if not isinstance(operations, list) or "do" not in operations:
        return
    left_out = [word for word in operations if word in ALWAYS_SEEN]
    if left_out:
        event.detail["operations"] = [word for word in operations if word not in ALWAYS_SEEN]
        event.detail["not_done"] = left_out
        if event.operation in ALWAYS_SEEN:
            event.operation = "do"
