"""The statistics collector: reads pg_stat_statements of one instance every interval and sends the differences.

What was counted while the collector was down is in the first difference after its start, because the reading it
compares with survives in a state file. That file also holds what is about to be sent: after a crash the same events
are sent again, with the same windows, so that they can be told to be the same. Only then does reading go on.
"""

from __future__ import annotations

import threading
import time
from functools import partial

import psycopg
import structlog
from msgspec import Struct
from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from collectors.connection import connect, instance_name
from collectors.context import Context, now_us
from collectors.publisher import Channel
from collectors.statefile import StateFile
from collectors.stats import source
from collectors.stats.delta import Delta, Key, Loss, Snapshot, compare
from pgwitness.core.config import Config
from pgwitness.core.contracts.collector import Task
from pgwitness.core.errors import Retry
from pgwitness.core.events import Gap, QueryStats
from pgwitness.core.messages.refusal import words
from pgwitness.core.sql.identifiers import without_glaring
from pgwitness.core.sql.statements import StatementFacts, about_objects, facts

DELIVERY_S_MAX = 30.0
READING = Gauge("pgwitness_stats_reading_seconds", "How long the last reading took.", ["cluster", "instance"])
ENTRIES = Gauge(
    "pgwitness_stats_entries", "Entries of pg_stat_statements at the last reading.", ["cluster", "instance"]
)
LOSSES = Metric("pgwitness_stats_losses", "Gaps found in the statistics.", ["cluster", "instance", "reason"])

TEXTS_UNREADABLE = (
    "a statement of a database without an encoding (SQL_ASCII) has bytes that no text of this one may have, and beside "
    "it the server gives no text at all; statements are counted without theirs until it is thrown out. Where that "
    "lasts, let the dsn name a database in SQL_ASCII in which the extension is installed: there nothing is converted"
)

log = structlog.get_logger("stats")


class State(Struct, frozen=True):
    """What is kept over a restart: the last reading, conditions already reported, and what `number` was to send."""

    number: int
    snapshot: Snapshot | None
    conditions: dict[str, str] = {}
    pending: list[QueryStats | Gap] = []


class Sent(Struct, frozen=True):
    """The number of the last state whose pending events the broker has confirmed."""

    number: int


def check(config: Config) -> None:
    """Every cluster with a `dsn` can be collected from."""


def tasks(context: Context) -> dict[str, Task]:
    """Return one task for each instance of a cluster."""
    return {
        f"stats {context.name} {instance_name(dsn)}": partial(run, context, dsn)
        for dsn in (context.cluster.dsn, *context.cluster.replicas)
    }


def run(context: Context, dsn: str, stop: threading.Event) -> None:
    """Collect from one instance until `stop`. Raise `Retry` when the server or the broker is lost."""
    instance = instance_name(dsn)
    part = f"stats {context.name} {instance}"
    channel = context.publisher.channel(context.name, "stats", instance)
    channel.while_blocked = lambda: context.health.ready(part, "the broker does not take records; check that it runs")
    try:
        with connect(context.cluster, dsn, application_name="pgwitness stats", key=context.key) as connection:
            collector = Collector(context, instance, connection, channel)
            while not stop.is_set():
                collector.step()
                context.health.ready(part)
                stop.wait(context.cluster.stats_interval)
    except psycopg.Error as error:
        raise Retry(f"{part}: the connection was lost: {words(error)}; reconnecting") from error
    finally:
        channel.close()


class Collector:
    """One instance's statistics, from one connection; `step` reads once and returns when the broker has it all."""

    def __init__(self, context: Context, instance: str, connection: source.Connection, channel: Channel) -> None:
        self._labels = (context.name, instance)
        self._connection = connection
        self._channel = channel
        self._names = source.Names()
        self._facts: dict[Key, StatementFacts] = {}
        self._unreadable: dict[str, str] = {}
        """The condition that the texts cannot be read, as long as it holds."""
        folder, name = context.config.collectors.state_path, f"stats-{context.name}-{instance}"
        self._file = StateFile(folder, name, State)
        self._mark = StateFile(folder, f"{name}-sent", Sent)
        self._state = self._resume()

    def _resume(self) -> State:
        state = self._file.load() or State(0, None)
        sent = self._mark.load() or Sent(0)
        if self._file.problem is not None:
            log.warning("state lost", reason=self._file.problem)
            loss = Gap(captured_at_us=now_us(), reason="collector_state_lost", detail={"problem": self._file.problem})
            state = State(sent.number + 1, None, {}, [loss])
        if state.pending and sent.number != state.number:
            self._send(state)
        return state

    def step(self) -> None:
        """Read, compare, send, remember."""
        try:
            ext = source.extension(self._connection)
            began = time.monotonic()
            reading = source.read(self._connection, ext)
        except Retry as error:
            self._unavailable(str(error))
            raise
        READING.labels(*self._labels).set(time.monotonic() - began)
        ENTRIES.labels(*self._labels).set(len(reading.snapshot.entries))
        difference = compare(self._state.snapshot, reading.snapshot)
        counted = self._events(ext, reading, difference.deltas)
        conditions = reading.conditions | self._unreadable
        losses = [*difference.losses, *_begun(self._state.conditions, conditions)]
        events: list[QueryStats | Gap] = [self._gap(loss) for loss in losses]
        self._advance(State(self._state.number + 1, reading.snapshot, conditions, [*events, *counted]))

    def _unavailable(self, why: str) -> None:
        """Say once that there is nothing to read, and go on from the last reading when there is again."""
        now = {"stats_unavailable": why}
        events: list[QueryStats | Gap] = [self._gap(loss) for loss in _begun(self._state.conditions, now)]
        if events:
            self._advance(State(self._state.number + 1, self._state.snapshot, now, events))

    def _advance(self, state: State) -> None:
        self._file.store(state)
        if state.pending:
            self._send(state)
        self._state = State(state.number, state.snapshot, state.conditions)

    def _send(self, state: State) -> None:
        for event in state.pending:
            self._channel.send(event)
        self._channel.flush(DELIVERY_S_MAX)
        self._mark.store(Sent(state.number))

    def _gap(self, loss: Loss) -> Gap:
        LOSSES.labels(*self._labels, loss.reason).inc()
        return Gap(captured_at_us=now_us(), reason=loss.reason, detail=loss.detail)

    def _events(self, ext: source.Extension, reading: source.Reading, deltas: list[Delta]) -> list[QueryStats]:
        snapshot = reading.snapshot
        alive = {entry.key for entry in snapshot.entries}
        self._facts = {key: known for key, known in self._facts.items() if key in alive}
        unknown = sorted({delta.key.queryid for delta in deltas if delta.key not in self._facts})
        if unknown:
            self._unreadable = {}
            try:
                for key, text in source.texts(self._connection, ext, unknown).items():
                    self._facts[key] = _facts_of(text)
            except source.Unreadable:
                self._unreadable = {"stats_texts_unreadable": TEXTS_UNREADABLE}
        self._names.learn(self._connection, [delta.key for delta in deltas])
        at_us = now_us()
        events = []
        for delta in deltas:
            known = self._facts.get(delta.key)
            if delta.key.userid == reading.own_role and known is not None and only_catalogues(known):
                continue
            events.append(
                QueryStats(
                    captured_at_us=at_us,
                    window_start_us=delta.window_start_us,
                    window_end_us=snapshot.taken_at_us,
                    database=self._names.database(delta.key.dbid),
                    role=self._names.role(delta.key.userid),
                    query_id=delta.key.queryid,
                    statement=known.statement if known is not None else None,
                    calls=delta.calls,
                    rows=delta.rows,
                    total_ms=delta.total_ms,
                    toplevel=delta.key.toplevel,
                    approximate=delta.approximate,
                )
            )
        return events


_QUIET = {"select", "select_nothing", "set", "show", "begin", "commit", "rollback"}
_OWN = ("pg_", "information_schema.", "pgwitness.")
_STATISTICS = (".pg_stat_statements", ".pg_stat_statements_info")
_LOUD_FUNCTIONS = ("pg_read", "pg_ls", "pg_file", "pg_stat_file", "lo_", "dblink", "pg_terminate", "pg_cancel")


def only_catalogues(known: StatementFacts) -> bool:
    """Return whether a statement reads nothing but catalogues, as our own do.

    Of the collectors' own role such statements are left out; whatever else it does is reported like anybody's, so
    that stolen credentials of the witness do not make their user invisible.
    """
    relations = all(name.startswith(_OWN) or name.endswith(_STATISTICS) for name in known.relations)
    functions = not any(name.startswith(_LOUD_FUNCTIONS) for name in known.functions)
    return known.statement is not None and relations and functions and set(known.operations) <= _QUIET


def _begun(before: dict[str, str], now: dict[str, str]) -> list[Loss]:
    """List the conditions that hold now and did not before, each a loss that lasts until it is mended."""
    return [Loss(reason, {"fix": text}) for reason, text in now.items() if reason not in before]


def _facts_of(text: str) -> StatementFacts:
    """Read a statement that has run: an alias in quotes may be anything, the name of a role is what it is."""
    known = facts(text)
    return known if about_objects(known) else facts(without_glaring(text))
