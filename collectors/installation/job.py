"""Lets a database keep its publications to what can be published; the collector calls it between messages.

What is due and how it is done stands in `publishing`. One call changes one table in one transaction, and is over within
a tenth of a second. A table whose lock is not to be had is passed over until the next round.
"""

from __future__ import annotations

from collections import deque

import psycopg
import structlog

from collectors.installation.catalogue import Connection
from collectors.installation.sql.templates import SCHEMA

ROUND_S = 2.0
"""How long nothing is asked after a round that has left nothing to do."""
SETTLED_S = 2.0
"""A table that was changed later than this ago is left alone: whoever migrates it would wait for our lock."""
SHARE = 50
"""A round is made at most every so many times as long as asking took: many tables make it rarer."""
HELD_S = 30.0
"""How long it may be somebody else's turn before that is said: a run is over within a tenth of a second."""
REFUSED_S = 60.0
"""How long nothing is asked after the database has refused the job: an older installation, or one that goes."""

log = structlog.get_logger("wal")


class Job:
    """The rounds of one database. `waiting` counts the tables that were passed over in the last one.

    `taken_out` are the tables whose updates could not be published any more; who reads it empties it.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.changed = 0
        self.taken_out: list[str] = []
        self._next = 0.0
        self._held_since: float | None = None
        self._passed: list[int] = []
        self._seen: deque[tuple[float, str]] = deque()

    def hasten(self) -> None:
        """Begin the next round at once: there was DDL."""
        self._next = 0.0

    def step(self, connection: Connection, now: float, took: float = 0.0, *, settle: bool = True) -> bool:
        """Do one thing that is due; says whether there may be more. `took` is how long the last step took, in s.

        Without `settle` only what makes updates fail now.
        """
        if now < self._next:
            return False
        try:
            behind = self._behind(connection, now) if settle else "0"
            row = connection.execute(
                f"SELECT relation::int8, name, what, problem FROM {SCHEMA}.publish(NULL, %s::oid[], %s::xid8)",
                (self._passed, behind),
            ).fetchone()
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise
            log.warning("tables are not published by themselves", error=error.diag.message_primary or str(error))
            self._next = now + REFUSED_S
            return False
        if row is None:
            self._held_since = None
            self.waiting, self._passed = len(self._passed), []
            self._next = now + max(ROUND_S, SHARE * took)
            return False
        relation, name, what, problem = row
        if relation is None:
            self._held(now, problem)
            return False
        self._held_since = None
        if problem is None:
            self.changed += 1
            if what == _UNPUBLISHABLE:
                self.taken_out.append(name)
            log.info("publication changed", table=name, what=_SAID[what])
        else:
            self._passed.append(relation)
            log.debug("table passed over", table=name, what=_SAID[what], problem=problem)
        return True

    def _held(self, now: float, problem: str) -> None:
        """Note that it was not our turn: another collector's for a moment, or somebody locks the registry."""
        self._next = now + ROUND_S
        if self._held_since is None:
            self._held_since = now
        elif now - self._held_since >= HELD_S:
            self.waiting = max(1, self.waiting)
            log.warning("tables are not published by themselves", error=problem)

    def _behind(self, connection: Connection, now: float) -> str:
        """Give the transaction id that was next `SETTLED_S` ago; none is before it while that is not known."""
        row = connection.execute(
            "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text"
        ).fetchone()
        assert row is not None
        self._seen.append((now, row[0]))
        while len(self._seen) > 1 and self._seen[1][0] <= now - SETTLED_S:
            self._seen.popleft()
        at, xid = self._seen[0]
        return str(xid) if at <= now - SETTLED_S else "0"


_UNPUBLISHABLE = 1
_SAID = {
    _UNPUBLISHABLE: "its updates could not be published any more",
    2: "its inserts are published",
    3: "its updates are published",
    4: "its updates are published by another table of its tree",
    5: "it got its identity back",
    6: "its beacon has the form that goes with it",
}
