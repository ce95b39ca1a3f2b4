"""Looks at posture every interval and sends what changed; the last snapshot survives a restart in a state file.

As with the statistics, the file also holds what is about to be sent, so that after a crash the same events are sent
again. While the file cannot be read or written nothing is sent: what changed is found again by the next look, and only
the WAL and the sessions are witnessed until then. A change that is made and undone between two looks is not seen here;
the WAL or the statistics may show it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import psycopg
import structlog
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Gauge

from collectors.connection import connect
from collectors.context import Context, now_us
from collectors.posture import source as posture_source
from collectors.posture.clear import ClearTables
from collectors.posture.comparison import Object, catalogues, compare, lost_beacons, within
from collectors.posture.functions import Functions
from collectors.posture.sizes import EVERY_S, Sizes
from collectors.posture.views import Views
from collectors.publisher import Channel
from collectors.statefile import StateFile
from detectors.sensitive import Sensitive
from pgwitness.core.errors import Retry, Unreachable
from pgwitness.core.events import Gap, Posture
from pgwitness.core.messages.refusal import words
from pgwitness.core.privacy import tokenizer

DELIVERY_S_MAX = 30.0
LIST_S = 6 * 3600.0
"""How often the relations of each database are listed, though nothing has changed: the worker may be a new one."""
REGISTRY_S = 60.0
"""How long a registry of beacons may be empty under their triggers before they are told to have gone."""
CLOCK_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
LOOKING = Gauge("pgwitness_posture_reading_seconds", "How long the last look at posture took.", ["cluster"])
OBJECTS = Gauge("pgwitness_posture_objects", "Objects in the last snapshot of posture.", ["cluster"])

log = structlog.get_logger("posture")


class State(Struct, frozen=True):
    """What is kept over a restart: the snapshot, databases that could not be read, and what `number` was to send."""

    number: int = 0
    objects: list[Object] | None = None
    unread: list[str] = []
    pending: list[Posture | Gap] = []
    seen_us: dict[str, int] = {}
    """When the look began that last read a database, by the server's clock; `""` is what the cluster shares."""


class Sent(Struct, frozen=True):
    """The number of the last state whose pending events the broker has confirmed."""

    number: int = 0


def run(context: Context, dsn: str, instance: str, stop: threading.Event, report: Callable[[str | None], None]) -> None:
    """Watch a cluster's posture through its primary until `stop`; on a standby it waits to become the primary.

    `report` is told after each look why what changed cannot be remembered, None when it can.
    """
    channel = context.publisher.channel(context.name, "posture", instance)
    try:
        with connect(context.cluster, dsn, application_name="pgwitness posture", key=context.key) as connection:
            watcher = Watcher(context, dsn, connection, channel)
            try:
                while not stop.is_set():
                    watcher.step()
                    report(watcher.unstored)
                    stop.wait(context.cluster.posture_interval)
            finally:
                watcher.close()
    finally:
        channel.close()


class Watcher:
    """A cluster's posture; `step` looks once and returns when the broker has what changed."""

    def __init__(self, context: Context, dsn: str, connection: posture_source.Connection, channel: Channel) -> None:
        self._context = context
        self._dsn = dsn
        self._connection = connection
        self._channel = channel
        self._token = tokenizer(context.key)
        self._databases: dict[str, posture_source.Connection] = {}
        folder = context.config.collectors.state_path
        self._file = StateFile(folder, f"posture-{context.name}", State)
        self._mark = StateFile(folder, f"posture-{context.name}-sent", Sent)
        self._listed_at = self._sized_at = -LIST_S
        self._sizes = Sizes()
        self._functions = Functions()
        self._views = Views()
        self._clear = ClearTables(Sensitive.of(context.config.privacy))
        self._registry_lost_at: float | None = None
        self._resumed = False
        self._state = State()
        self._sent = Sent()
        self._unmarked = False
        self.unstored: str | None = None
        """Why the state file cannot be read or written: until it can, no change of posture is sent."""

    def close(self) -> None:
        """Close the connections to the databases."""
        for connection in self._databases.values():
            connection.close()

    def _resume(self) -> bool:
        """Take up the stored state and send what it was about to send; says whether that was possible."""
        try:
            state, sent = self._file.load() or State(), self._mark.load() or Sent()
        except Retry as error:
            self._refused(error)
            return False
        self.unstored = None
        if self._file.problem is not None:
            log.warning("state lost", reason=self._file.problem)
            detail: dict[str, object] = {"problem": self._file.problem}
            lost = Gap(captured_at_us=now_us(), reason="collector_state_lost", detail=detail)
            state = State(sent.number + 1, None, [], [lost])
        if state.pending and state.number != sent.number:
            self._send(state)
        self._state, self._resumed = state, True
        return True

    def _refused(self, error: Retry) -> None:
        if self.unstored is None:
            log.error("posture waits until its state can be read and written", error=str(error))
        self.unstored = str(error)

    def step(self) -> None:
        """Look, compare, remember, send."""
        if not self._resumed and not self._resume():
            return
        if self._unmarked:
            self._store_mark()
        row = self._connection.execute(f"SELECT pg_is_in_recovery(), {CLOCK_US}").fetchone()
        if row is None or row[0]:
            return
        begun_us = int(row[1])
        began = time.monotonic()
        objects = posture_source.cluster(self._connection, self._token)
        unread: dict[str, str] = {}
        for name in self._names():
            try:
                objects += posture_source.database(self._database(name), name)
            except (Unreachable, psycopg.Error) as error:
                self._forget(name)
                unread[name] = words(error)
                # What is not seen has not gone: it stays as it was.
                objects += [item for item in self._state.objects or [] if item.database == name]
        objects += self._lost_beacons(objects, began)
        LOOKING.labels(self._context.name).set(time.monotonic() - began)
        OBJECTS.labels(self._context.name).set(len(objects))
        at_us = now_us()
        if began - self._listed_at >= LIST_S:
            for listed in catalogues(objects, unread, at_us):
                self._channel.send(listed)
            self._listed_at = began
            self._sizes.again()
            self._functions.again()
            self._views.again()
            self._clear.again()
        if began - self._sized_at >= EVERY_S:
            self._sized_at = began
            names = [name for name in self._names() if name not in unread]
            self._send_sizes(names)
            self._send_functions(names, objects)
            self._send_views(names)
        events: list[Posture | Gap] = [
            Gap(captured_at_us=at_us, reason="posture_unread", database=name, detail={"error": why})
            for name, why in unread.items()
            if name not in self._state.unread
        ]
        events += within(compare(self._state.objects, objects, at_us), self._state.seen_us, self._clock_us())
        seen_us = {name: self._state.seen_us[name] for name in unread if name in self._state.seen_us}
        seen_us |= {name: begun_us for name in ("", *self._names()) if name not in unread}
        if events or list(unread) != self._state.unread:
            self._advance(State(self._state.number + 1, objects, list(unread), events, seen_us))
        else:
            self._state = replace(self._state, seen_us=seen_us)
            if not self._unmarked:
                self.unstored = None

    def _lost_beacons(self, objects: list[Object], now: float) -> list[Object]:
        """Return the beacons that only the registry has lost, and may have again before long."""
        lost = lost_beacons(self._state.objects or [], objects)
        if not lost:
            self._registry_lost_at = None
        elif self._registry_lost_at is None:
            self._registry_lost_at = now
        return lost if self._registry_lost_at is None or now - self._registry_lost_at < REGISTRY_S else []

    def _send_sizes(self, names: list[str]) -> None:
        """Say how many rows tables hold; who may not look at the statistics goes without."""
        for name in names:
            try:
                at_us = self._clock_us()
                rows = posture_source.sizes(self._database(name))
            except (Unreachable, psycopg.Error) as error:
                self._forget(name)
                log.warning("sizes unread", database=name, reason=words(error))
                continue
            for event in self._sizes.changed(name, rows, at_us, now_us()):
                self._channel.send(event)

    def _send_functions(self, names: list[str], objects: list[Object]) -> None:
        """Say what functions run, as far as their bodies tell."""
        for name in names:
            tables = {item.name for item in objects if item.object_type == "table" and item.database == name}
            try:
                connection = self._database(name)
                found = posture_source.functions(connection)
                define = partial(posture_source.definitions, connection)
                for event in self._functions.changed(name, found, define, tables, self._clock_us, now_us()):
                    self._channel.send(event)
            except (Unreachable, psycopg.Error) as error:
                self._forget(name)
                log.warning("functions unread", database=name, reason=words(error))

    def _send_views(self, names: list[str]) -> None:
        """Say what views read, and which tables have no sensitive column."""
        for name in names:
            try:
                found = posture_source.views(self._database(name))
                for event in self._views.changed(name, found, self._clock_us, now_us()):
                    self._channel.send(event)
                at_us = self._clock_us()
                tables = posture_source.columns(self._database(name)) if self._clear.asked else []
                for event in self._clear.changed(name, tables, at_us, now_us()):
                    self._channel.send(event)
            except (Unreachable, psycopg.Error) as error:
                self._forget(name)
                log.warning("views unread", database=name, reason=words(error))

    def _clock_us(self) -> int:
        row = self._connection.execute(f"SELECT {CLOCK_US}").fetchone()
        assert row is not None
        return int(row[0])

    def _names(self) -> list[str]:
        return sorted({*self._context.cluster.databases, self._connection.info.dbname})

    def _database(self, name: str) -> posture_source.Connection:
        if name == self._connection.info.dbname:
            return self._connection
        if name not in self._databases:
            self._databases[name] = connect(
                self._context.cluster, self._dsn, name, application_name="pgwitness posture", key=self._context.key
            )
        return self._databases[name]

    def _forget(self, name: str) -> None:
        """Drop a connection that failed; losing the cluster's own ends the look."""
        connection = self._databases.pop(name, None)
        if connection is not None:
            connection.close()
        elif self._connection.closed:
            self._connection.execute("SELECT 1")

    def _advance(self, state: State) -> None:
        try:
            self._file.store(state)
        except Retry as error:
            self._refused(error)
            return
        self.unstored = None
        if state.pending:
            self._send(state)
        self._state = replace(state, pending=[])

    def _send(self, state: State) -> None:
        for event in state.pending:
            self._channel.send(event)
        self._channel.flush(DELIVERY_S_MAX)
        self._sent = Sent(state.number)
        self._store_mark()

    def _store_mark(self) -> None:
        """Write down what the broker has; until that is possible, a restart sends it again."""
        try:
            self._mark.store(self._sent)
        except Retry as error:
            self._refused(error)
            self._unmarked = True
        else:
            self._unmarked, self.unstored = False, None
