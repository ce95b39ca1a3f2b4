"""What became of the transactions that the log names: the server is asked, which any role may (`pg_xact_status`).

The log shows most ends by its lines, but not that of a statement of the extended protocol whose session ends behind it,
and none where lines are missing. A thread of its own asks once in `ASK_S`, for the ids that lines brought since, and
again for those still in progress; the answers go into the log's own stream, behind the lines. No event comes of them.
Bounded; an id that finds no room is not asked for, and its outcome stays what the log shows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import psycopg
import structlog

from collectors.connection import connect
from collectors.context import now_us
from collectors.log.interpretation.interpret import Seen
from collectors.xids import widen
from pgwitness.core.config import Cluster
from pgwitness.core.errors import ConfigurationError, Unreachable
from pgwitness.core.events import Posture, Statement

APPLICATION = "pgwitness log"
ASK_S = 1.0
AGAIN_S = 10.0
"""How long nothing is asked after the server could not be reached."""
PENDING_MAX = 5_000
ASKED_MAX = 1_000
"""Ids of one question."""

_NEXT = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_STATUS = "SELECT x, pg_xact_status(x::text::xid8) FROM unnest(%s::bigint[]) AS x"

log = structlog.get_logger("log")


def ask(connection: psycopg.Connection[tuple[object, ...]], xids: list[int]) -> dict[int, str | None]:
    """Ask what became of transactions, by their ids modulo 2^32; None of what the server does not remember."""
    row = connection.execute(_NEXT).fetchone()
    assert row is not None
    newest = int(str(row[0]))
    wide = {widen(xid, newest): xid for xid in xids}
    known = [full for full in wide if 0 < full < newest]
    answers = connection.execute(_STATUS, [known]).fetchall()
    return {wide[int(str(full))]: None if status is None else str(status) for full, status in answers}


def record(answers: Mapping[int, str | None]) -> Posture:
    """Make the record of what became of transactions."""
    ended: dict[str, object] = {
        outcome: sorted(xid for xid, status in answers.items() if status == outcome)
        for outcome in ("committed", "aborted")
    }
    at_us = now_us()
    return Posture(captured_at_us=at_us, object_type="transactions", name="ended", change="found", after=ended)


class Statuses:
    """Ids that wait for an answer, and answers that wait to be sent."""

    def __init__(self, cluster: Cluster, dsn: str, key: bytes | None = None) -> None:
        self._cluster, self._dsn, self._key = cluster, dsn, key
        self._lock = threading.Lock()
        self._pending: dict[int, None] = {}
        self._answers: list[Posture] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pgwitness-log-statuses", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def end(self) -> None:
        """Ask no more; a question that is under way is left to itself."""
        self._end.set()

    def see(self, events: Iterable[Seen]) -> None:
        """Take up the ids that lines brought."""
        xids = [event.xid for event in events if isinstance(event, Statement) and event.xid]
        if xids:
            with self._lock:
                for xid in xids:
                    if len(self._pending) < PENDING_MAX:
                        self._pending[xid % (1 << 32)] = None

    def take(self) -> list[Posture]:
        """Return the answers that came since, to be sent behind the lines."""
        if not self._answers:
            return []
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def _run(self) -> None:
        while not self._end.wait(ASK_S):
            try:
                with connect(self._cluster, self._dsn, application_name=APPLICATION, key=self._key) as connection:
                    self._ask(connection)
            except (Unreachable, ConfigurationError, psycopg.Error) as error:
                log.info("the server cannot be asked what became of transactions", error=str(error))
                self._end.wait(AGAIN_S)

    def _ask(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._answers.append(record({}))  # so that whoever waits for answers knows that they come
        while not self._end.wait(ASK_S):
            with self._lock:
                xids = list(self._pending)[:ASKED_MAX]
            if not xids:
                continue
            answers = ask(connection, xids)
            ended = {xid: status for xid, status in answers.items() if status in ("committed", "aborted")}
            with self._lock:
                for xid in xids:  # what is in progress is asked for again, behind the others
                    del self._pending[xid]
                    if answers.get(xid) == "in progress":
                        self._pending[xid] = None
                if ended:
                    self._answers.append(record(ended))
