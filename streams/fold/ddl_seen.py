"""What DDL has reported already, so that others that saw the same action are marked and not alerted again.

A DROP TABLE is seen four times: by the event trigger, exactly; in the server's log, by its session; in
pg_stat_statements, by role; and by comparing snapshots, by nobody. All stay evidence; the others get
`detail.seen_as` = `ddl` when nothing is left of them that DDL has not reported: a statement, as often as its role
was reported to have run it in that database; an object, once. So a DROP that ran more often than DDL has reported (an
event trigger was off, or it was rolled back) keeps its own alert, and so does a line of the log that came before the
WAL.

`pgwitness db uninstall` takes the event triggers away first. What snapshots and statistics say of pgwitness's own
things after it has announced itself, and after a session has proven by its code to be that command's, is marked as its
own (`detail.own`): nobody's doing beyond what was announced.

Bounded: the oldest are forgotten first, which costs a second alert and no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgwitness.core.events import Control, Ddl, Event, Gap, Posture
from pgwitness.core.sql.statements import facts
from streams.fold.events.ddl import beacon_off

DDL_SEEN_MAX = 10_000
SEEN_AS = "seen_as"
OWN = "own"
"""In `detail`, true: what a `pgwitness db` command did, proven by its session's code. Nothing is alerted of it."""
_OURS = ("pgwitness", "pgwitness_inserts", "pgwitness_owner", "pgwitness_beacon", "pgwitness_ddl", "pgwitness_drop",
         "pgwitness_keep", "pgwitness_keep_drop", "pgwitness_logged", "pg_stat_statements",
         "pg_stat_statements_info")  # fmt: skip
"""Roles, schema, publications, triggers, event triggers and the extension that an installation makes."""


_BEACON = "pgwitness.beacon"
_BEACONS = (_BEACON, f"{_BEACON}_each", f"{_BEACON}_tree")
_COMMAND = "pgwitness db "
"""What a command calls itself; others of pgwitness's own are the collectors."""
_CALLED = ("pgwitness.introduce", "pgwitness.claimed", "pgwitness.beacon_each", "pgwitness.below")
"""What snapshots hash together with the beacon's own body."""


class DdlSeen:
    """Counts of one cluster of what was reported, in the order of what is forgotten first."""

    def __init__(self, items: Iterable[tuple[str, int]] = ()) -> None:
        self._counts = dict(items)

    def items(self) -> list[tuple[str, int]]:
        """Return the state for a checkpoint."""
        return list(self._counts.items())

    def ddl(self, database: str, commands: list[Ddl]) -> None:
        """Remember the commands of one transaction; one statement may have run several of them."""
        statements = {(item.beacon.role, item.statement) for item in commands if item.statement is not None}
        for role, statement in sorted(statements):
            fingerprint = facts(statement, freed=True).fingerprint
            if fingerprint is not None:
                self._add("statement", database, role, fingerprint)
                self._add("line", database, role, fingerprint)
        if any(item.own and item.beacon.application.startswith(_COMMAND) for item in commands):
            self.proven(database)
        for item in commands:
            for dropped in item.dropped:
                if dropped.type == "table":
                    self._add("dropped", database, dropped.identity)
            for relation in beacon_off(item):
                self._add("beacon", database, relation)
            for made in item.objects if item.own else ():
                if made.type == "trigger" and made.relation is not None:
                    self._add("put", database, made.relation)
            for name in (made.identity.partition("(")[0] for made in item.objects if made.type == "function"):
                name = _BEACON if name in _CALLED else name
                self._counts.pop("\0".join(("replaced", database, name)), None)
                if item.own:
                    self._add("replaced", database, name)

    def query_stats(self, event: Event) -> None:
        """Mark what statistics say of statements when DDL has reported all of it."""
        if event.fingerprint is not None and event.database is not None and event.role is not None:
            self._take(event, event.calls or 0, "statement", event.database, event.role, event.fingerprint)
        names = event.detail.get("names")
        if isinstance(names, list) and names and all(_is_ours(name.rpartition(" ")[2]) for name in names):
            self._mark(event, event.database)

    def statement(self, event: Event) -> None:
        """Mark what the log says of a command that DDL has reported."""
        if event.detail.get("utility") is True and event.outcome == "success" and event.fingerprint is not None:
            self._take(event, 1, "line", event.database or "", event.role or "", event.fingerprint)

    def posture(self, event: Event, raw: Posture) -> None:
        """Mark what snapshots say of a table that was dropped, or a beacon switched off, when DDL has reported it."""
        if raw.database is None:
            return
        if raw.object_type == "table" and raw.change == "removed":
            self._take(event, 1, "dropped", raw.database, raw.name)
        elif raw.object_type == "trigger" and raw.change in ("removed", "changed"):
            for relation in event.relations:
                self._take(event, 1, "beacon", raw.database, relation)
        if raw.change == "removed" and (raw.object_type == "beacon" or _is_ours(raw.name)):
            self._mark(event, raw.database)
        elif raw.change == "changed" and (
            self._is_upgrade(raw.database, raw.before or {}, raw.after or {}) or self._is_put(raw.database, raw)
        ):
            event.detail[OWN] = True

    def _is_put(self, database: str, raw: Posture) -> bool:
        """Return whether a working beacon is another one now, which a command or the collectors' job has put there."""
        after = raw.after or {}
        works = after.get("enabled") == "always" and after.get("active") is True and after.get("condition") is False
        if raw.object_type != "trigger" or not works or after.get("function") not in _BEACONS:
            return False
        return bool(self._counts.pop("\0".join(("put", database, str(after.get("relation")))), 0))

    def _is_upgrade(self, database: str, before: Mapping[str, object], after: Mapping[str, object]) -> bool:
        """Return whether of a trigger only its function's body is another one, which a command has put there.

        Several triggers may run it, so its hash is remembered: what somebody else puts there next has another one.
        """
        name, body = after.get("function"), after.get("function_md5")
        if body is None or {**before, "function_md5": body} != after:
            return False
        if self._counts.pop("\0".join(("replaced", database, str(name))), 0):
            self._add("body", database, str(name), str(body))
        return "\0".join(("body", database, str(name), str(body))) in self._counts

    def announced(self, event: Gap | Control) -> None:
        """Learn what pgwitness says, verified, that it does to itself in a database."""
        operation = event.operation if isinstance(event, Control) else ""
        if event.database is None or operation not in ("beacon_install", "beacon_uninstall"):
            return
        for what in ("removing", "removed"):
            self._counts.pop("\0".join((what, event.database)), None)
        if operation == "beacon_uninstall":
            self._add("removing", event.database)

    def proven(self, database: str) -> None:
        """Learn that a session in a database is a command's: what was announced there is what it does."""
        if self._counts.pop("\0".join(("removing", database)), 0):
            self._add("removed", database)

    def _mark(self, event: Event, database: str | None) -> None:
        if "\0".join(("removed", database or "")) in self._counts:
            event.detail[OWN] = True

    def _add(self, *what: str) -> None:
        key = "\0".join(what)
        count = self._counts.pop(key, 0)
        while len(self._counts) >= DDL_SEEN_MAX:
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


def _is_ours(name: str) -> bool:
    """Return whether a name, of which a trigger's stands last, is of something that an installation makes."""
    first, _, last = name.replace('"', "").partition(".")
    return first in _OURS or last.rpartition(".")[2] in _OURS
