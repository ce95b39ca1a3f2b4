"""The responder: ends the backend that an alert is about, where the alert's policy says `respond`.

A backend is ended only when everything that was asked for is certain: the alert is recent, tied to its session, names
pid and session start, its cluster is configured, and on the server that pid still has that start: a pid that was given
to somebody else since is never touched. Superusers, and roles that `respond.never` names, are left alone. Each act is
evidence before (`backend_ending`) and after it (`backend_ended`), and an update of the alert. `decide` is pure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, LiteralString

import msgspec
import psycopg
import structlog
from msgspec import Struct

from pgwitness.core.codec import BatchBuilder
from pgwitness.core.config import Config, Respond, RespondCluster
from pgwitness.core.contracts.alert_target import NotTaken
from pgwitness.core.events import Control, RawHeader, encode_event
from pgwitness.core.messages.refusal import words
from pgwitness.core.secretfile import secret
from pgwitness.core.topics import partition_of
from sinks.deliveries import metrics
from sinks.deliveries.routing import CLOSE, Item, Limit, part

log = structlog.get_logger("respond")

CONNECT_S = 5
STATEMENT_MS = 5_000
OWN = "pgwitness*"
"""The roles of pgwitness itself, as `pgwitness db install` makes them; the responder's own is asked for."""
HOW = ("cancel", "terminate")

Write = Callable[[str, bytes | None, bytes | None, int], None]
"""Writes a record: topic, value, key, partition; durable when it returns."""


class Act(Struct, frozen=True):
    """A backend to be ended."""

    how: str
    cluster: str
    pid: int
    session_start: int
    role: str


_FIND: LiteralString = """
SELECT usename, coalesce((SELECT rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = a.usesysid), true) AS super,
    usename = current_user AS own
FROM pg_catalog.pg_stat_activity AS a
WHERE pid = %(pid)s AND backend_type = 'client backend' AND floor(extract(epoch FROM backend_start)) = %(start)s
"""
_END: dict[str, LiteralString] = {
    how: f"SELECT pg_catalog.{function}(pid) FROM ({_FIND.replace('SELECT usename', 'SELECT pid, usename')}) AS found"
    for how, function in (("cancel", "pg_cancel_backend"), ("terminate", "pg_terminate_backend"))
}


def decide(item: Item, settings: Respond, now_ms: int) -> Act | str | None:
    """Return what is to be done about an alert: an act, why an act that was asked for is not done, or nothing."""
    ours = part(item.data, "unmapped")
    how = ours.get("respond")
    if how is None or item.data.get("activity_id") == CLOSE or ours.get("response") is not None:
        return None
    pid, start = ours.get("pid"), ours.get("session_start")
    cluster, role = ours.get("cluster"), ours.get("role")
    if how not in HOW:
        return "unknown_response"
    if item.data.get("is_alert") is not True:
        return "no_alarm"
    if ours.get("certainty") not in ("exact", "strong"):
        return "not_certain"
    if not isinstance(pid, int) or not isinstance(start, int) or pid <= 0:
        return "no_backend"
    if not isinstance(cluster, str) or cluster not in settings.clusters:
        return "cluster_not_configured"
    if not -1_000 <= now_ms - item.time_ms <= settings.max_age * 1000:
        return "too_old"
    return Act(how=str(how), cluster=cluster, pid=pid, session_start=start, role=str(role or ""))


class Responder:
    """A target like the others; what it takes is acts."""

    def __init__(
        self,
        config: Config,
        write: Write,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._config = config
        self._settings = config.respond
        self._write = write
        self._clock = clock
        self._wall_ms = wall_ms
        self._limit = Limit(config.respond.rate, clock())

    async def send(self, item: Item) -> None:
        """Do what an alert asks for. Raise `NotTaken` when the server cannot be reached."""
        act = decide(item, self._settings, self._wall_ms())
        if act is None:
            return
        if isinstance(act, str):
            await self._report(item, None, act)
            return
        if not self._limit.take(self._clock()):
            await self._report(item, act, "rate")
            return
        await asyncio.to_thread(self._evidence, item, act, "backend_ending", "")
        outcome = await asyncio.to_thread(self._end, act)
        await self._report(item, act, outcome)

    def _end(self, act: Act) -> str:
        """End the backend if it is still the one; return what came of it."""
        place = self._settings.clusters[act.cluster]
        asked = {"pid": act.pid, "start": act.session_start}
        try:
            with _connect(place) as connection:
                found = connection.execute(_FIND, asked).fetchone()
                if found is None:
                    return "gone"
                role, is_super, own = found
                if own or any(fnmatchcase(str(role), glob) for glob in (OWN, *self._settings.never)):
                    return "never"
                if is_super and not self._settings.superusers:
                    return "superuser"
                ended = connection.execute(_END[act.how], asked).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            log.error("respond_not_allowed", cluster=act.cluster, error=words(error))
            return "not_allowed"
        except psycopg.OperationalError as error:
            raise NotTaken(f"cluster {act.cluster}: {type(error).__name__}: {words(error)}") from error
        return "done" if ended is not None and ended[0] is True else "gone"

    async def _report(self, item: Item, act: Act | None, outcome: str) -> None:
        metrics.RESPONSES.labels(outcome).inc()
        log.info("responded", uid=item.uid, outcome=outcome, how=act.how if act else None)
        await asyncio.to_thread(self._evidence, item, act, "backend_ended", outcome)
        if act is not None:
            await asyncio.to_thread(self._update, item, act, outcome)

    def _evidence(self, item: Item, act: Act | None, operation: str, outcome: str) -> None:
        """Write what is done into raw, as collectors do: it becomes an event of kind control."""
        ours = part(item.data, "unmapped")
        cluster = act.cluster if act is not None else str(ours.get("cluster") or "")
        detail: dict[str, object] = {"alert": item.uid, "policy": ours.get("policy"), "outcome": outcome}
        if act is not None:
            detail |= {"how": act.how, "pid": act.pid, "session_start": act.session_start, "role": act.role}
        event = Control(captured_at_us=self._wall_ms() * 1000, operation=operation, detail=detail)
        builder = BatchBuilder("responder", msgspec.json.encode(RawHeader(cluster=cluster, source="responder")))
        builder.add(encode_event(event))
        partition = partition_of(cluster, self._config.topics.raw_partitions)
        self._write(self._config.kafka.topic("raw"), builder.cut(), cluster.encode(), partition)

    def _update(self, item: Item, act: Act, outcome: str) -> None:
        """Report to the alert's readers what was done."""
        uid = str(part(item.data, "finding_info").get("uid") or "")
        value = msgspec.json.encode(answered(item.data, act, outcome, self._wall_ms()))
        self._write(self._config.kafka.topic("alerts"), value, uid.encode(), 0)

    async def close(self) -> None:
        """Nothing stays open between acts."""


def answered(alert: Mapping[str, Any], act: Act, outcome: str, now_ms: int) -> dict[str, Any]:
    """Return the alert as it is emitted again once something was done: an Update, in progress."""
    metadata, ours = part(alert, "metadata"), part(alert, "unmapped")
    done = {"done": "was ended" if act.how == "terminate" else "had its statement cancelled"}.get(
        outcome, f"was not ended ({outcome})"
    )
    return {
        **alert,
        "activity_id": 2,
        "activity_name": "Update",
        "type_uid": 200_402,
        "type_name": "Detection Finding: Update",
        "time": now_ms,
        "status_id": 2,
        "status": "In Progress",
        "is_alert": False,
        "comment": f"Backend {act.pid} {done}.",
        "metadata": {**metadata, "uid": f"{metadata.get('uid')}-response"},
        "unmapped": {**ours, "response": {"how": act.how, "outcome": outcome, "pid": act.pid, "time": now_ms}},
    }


def _connect(place: RespondCluster) -> psycopg.Connection[tuple[Any, ...]]:
    password = None
    if place.password_file is not None:
        password = secret(place.password_file, "respond.clusters.password_file").decode()
    return psycopg.connect(
        place.dsn,
        password=password,
        connect_timeout=CONNECT_S,
        application_name="pgwitness respond",
        autocommit=True,
        options=f"-c statement_timeout={STATEMENT_MS}",
    )
