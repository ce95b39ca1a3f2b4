"""What DDL has told already, so that others who saw the same deed are marked and not alerted again.

A DROP TABLE is seen four times: by the event trigger, exactly; in the server's log, by its session; in
pg_stat_statements, by role; and by comparing snapshots, by nobody. All stay evidence; the others get
`detail.seen_as` = `ddl` when nothing is left of them that DDL has not told: a statement, as often as its role was told
to have run it in that database; an object, once. So a DROP that ran more often than DDL was told (an event trigger was
off, or it was rolled back) keeps its own alert, and so does a line of the log that came before the WAL.

Bounded: the oldest are forgotten first, which costs a second alert and no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.events import Ddl, Event, Posture
from pgwitness.statements import facts
from streams.fold import shape

TOLD_MAX = 10_000
SEEN_AS = "seen_as"


class Told:
    """Counts of one cluster by what was told, in the order of what is forgotten first."""

    def __init__(self, items: Iterable[tuple[str, int]] = ()) -> None:
        self._counts = dict(items)

    def items(self) -> list[tuple[str, int]]:
        """Give the state for a checkpoint."""
        return list(self._counts.items())

    def ddl(self, database: str, commands: list[Ddl]) -> None:
        """Remember the commands of one transaction; one statement may have run several of them."""
        statements = {(item.beacon.role, item.statement) for item in commands if item.statement is not None}
        for role, statement in sorted(statements):
            fingerprint = facts(statement, freed=True).fingerprint
            if fingerprint is not None:
                self._add("statement", database, role, fingerprint)
                self._add("line", database, role, fingerprint)
        for item in commands:
            for dropped in item.dropped:
                if dropped.type == "table":
                    self._add("dropped", database, dropped.identity)
            for relation in shape.beacon_off(item):
                self._add("beacon", database, relation)

    def query_stats(self, event: Event) -> None:
        """Mark what statistics say of statements when DDL has told all of it."""
        if event.fingerprint is not None and event.database is not None and event.role is not None:
            self._take(event, event.calls or 0, "statement", event.database, event.role, event.fingerprint)

    def statement(self, event: Event) -> None:
        """Mark what the log says of a command that DDL has told."""
        if event.detail.get("utility") is True and event.outcome == "success" and event.fingerprint is not None:
            self._take(event, 1, "line", event.database or "", event.role or "", event.fingerprint)

    def posture(self, event: Event, raw: Posture) -> None:
        """Mark what snapshots say of a dropped table, or of a beacon that was switched off, when DDL has told it."""
        if raw.database is None:
            return
        if raw.object_type == "table" and raw.change == "removed":
            self._take(event, 1, "dropped", raw.database, raw.name)
        elif raw.object_type == "trigger" and raw.change in ("removed", "changed"):
            for relation in event.relations:
                self._take(event, 1, "beacon", raw.database, relation)

    def _add(self, *what: str) -> None:
        key = "\0".join(what)
        count = self._counts.pop(key, 0)
        while len(self._counts) >= TOLD_MAX:
            del self._counts[next(iter(self._counts))]
        self._counts[key] = count + 1

    def _take(self, event: Event, times: int, *what: str) -> None:
        key = "\0".join(what)
        left = self._counts.get(key, 0)
        if not 0 < times <= left:
            return
        if left == times:
            del self._counts[key]
        else:
            self._counts[key] = left - times
        event.detail[SEEN_AS] = "ddl"
