"""Runs the WAL collector of one database: owns its connections, its slot and its channel to the broker.

Promises: the slot's position moves only after the broker's delivery report of everything before it, so nothing is
lost; what was not confirmed is sent again, the same parts, after any restart. A slot lost or made anew, a new
timeline or system is written down as a gap and the collector goes on. Everything is bounded: memory by
`collectors.memory_limit`, disk by `collectors.spool_limit`, the source's WAL by `slot.max_lag`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg
import structlog
from msgspec.structs import replace

from collectors.beacon.encodings import codec_of
from collectors.beacon.keyring import Key
from collectors.beacon.mac import ControlPayload
from collectors.connection import connect, instance_name, replication_connect
from collectors.context import Context, now_us
from collectors.installation import source
from collectors.installation.job import Job
from collectors.installation.sql.templates import PUBLICATION, PUBLICATION_INSERTS
from collectors.own import OwnSessions
from collectors.publisher import Channel
from collectors.tokens import Verifier, watched
from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.assembly.unpublished import Accounts
from collectors.wal.beacons import keys
from collectors.wal.beacons.keyreads import KeyReads, Stand, stand_of
from collectors.wal.beacons.limit import Limit
from collectors.wal.beacons.messages import HEARTBEAT_PREFIX, Messages
from collectors.wal.database import publication_watch, published, registry, slot
from collectors.wal.database.catalogue import Horizon
from collectors.wal.database.publication_watch import Watch
from collectors.wal.database.slot import Connection, Memory, SlotState
from collectors.wal.database.tables import Tables
from collectors.wal.decoding.pgoutput import ProtocolError
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking
from collectors.wal.measures import Measures
from collectors.wal.stream import HEADER, Ended, Stream
from collectors.wal.stuck import OUT_OF_MEMORY, failed, of_the_data, start_after
from pgwitness.core import subjects
from pgwitness.core.config import Cluster, Config, Privacy
from pgwitness.core.contracts.collector import Task
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Retry, Unreachable
from pgwitness.core.events import Control, Gap, RawEvent, format_lsn
from pgwitness.core.messages.refusal import words
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile

PUBLICATIONS = (PUBLICATION, PUBLICATION_INSERTS)
READ_S = 0.2
TURN_S = 0.5
"""How often the collector looks up from the stream: positions, health, heartbeat."""
MESSAGES_A_LOOK = 512
ASIDES_A_SECOND = 20
"""Gaps of messages that cannot be read which are told one by one."""
JOB_S = 0.2
"""How long one look may spend on publishing tables."""
SEEN_S = 5.0
"""How long what a transaction did may take to be seen after the stream has passed it."""
QUIET_BYTES = 2048
"""WAL below this since our last heartbeat is the heartbeat's own and the server's housekeeping."""

UNPROVEN_S = 30.0
"""How often at most it is told that there were beacons without a proof."""

log = structlog.get_logger("wal")


def check(config: Config) -> None:
    """Raise `ConfigurationError` where a file of keys cannot be used, or no database is named."""
    _subjects(config.privacy)
    if config.identities.claims_keys is not None:
        watched(config.identities.claims_keys)()
    for name, cluster in sorted(config.clusters.items()):
        _named(name, cluster)


def tasks(context: Context) -> dict[str, Task]:
    """Return one task for each database of a cluster."""
    _named(context.name, context.cluster)
    return {f"wal {context.name}/{database}": partial(run, context, database) for database in context.cluster.databases}


def _named(name: str, cluster: Cluster) -> None:
    if not cluster.databases:
        raise ConfigurationError(f"clusters.{name}.databases is empty: name the databases to witness")


def _subjects(privacy: Privacy) -> Callable[[], subjects.Subjects] | None:
    """Give the keys of data subjects, as their file has them now. Raise `ConfigurationError` when it cannot be used."""
    if not privacy.subjects:
        return None

    def refused(refusal: Refusal) -> None:
        log.error("subject_keys_refused", error=refusal.error, then="those that were read last hold")

    path = privacy.subject_key_file
    file = WatchedFile(path, partial(subjects.load, path), initial=subjects.Subjects(b"", {}), refused=refused)
    file.load()
    return file.current


def run(context: Context, database: str, stop: threading.Event) -> None:
    """Collect until `stop`. Raise `Retry` when the database or the broker is lost, and may then be run again."""
    sql = connect(context.cluster, database=database, application_name="pgwitness wal", key=context.key)
    with sql:
        sql.execute("SET statement_timeout = '30s'")
        channel = context.publisher.channel(context.name, "wal", instance_name(context.cluster.dsn))
        try:
            stream = Stream(replication_connect(context.cluster, database=database))
            try:
                _Collector(context, database, stop, sql, stream, channel).run()
            finally:
                stream.close()
        except psycopg.Error as error:
            raise Unreachable(f"database {database} of {context.name}: {words(error)}") from error
        finally:
            channel.while_blocked = None
            channel.close()


class _Stopped(Exception):
    """Unwinds a sender that waits for the broker when the daemon is to end."""


class _Collector:
    """One run over one connection; its state ends with it, except for what `slot.Memory` keeps on disk."""

    def __init__(
        self,
        context: Context,
        database: str,
        stop: threading.Event,
        sql: Connection,
        stream: Stream,
        channel: Channel,
    ) -> None:
        self.context = context
        self.database = database
        self.stop = stop
        self.sql = sql
        self.stream = stream
        self.channel = channel
        self.part_name = f"wal {context.name}/{database}"
        self.slot = slot.slot_name(context.cluster.slot.name, database)
        collectors = context.config.collectors
        folder = collectors.state_path / "wal"
        self.memory_path = folder / f"{context.name}.{self.slot}.json"
        self.memory: Memory = slot.recover(self.memory_path, database, now_us())
        self.keys_path = folder / f"{context.name}.{self.slot}.keys"
        self.next_unproven = 0.0
        system_id, timeline = stream.identify()
        self.place = Place(system_id, timeline, database, stream.history(timeline))
        self.sent = self.delivered = 0
        self.measures = Measures(context.name, database)
        self.delivered_lsn = self.after_lsn = 0
        self.next_look = self.next_heartbeat = 0.0
        self.heartbeat_lsn = 0
        self.own_work: list[str] = []
        self.watch = Watch(self.memory.publications)
        self.job, self.job_took, self.ddl_seen = Job(), 0.0, 0
        self.asides = Limit(ASIDES_A_SECOND)
        self.tables = Tables(sql, Horizon(self.memory.horizon_lsn, self.memory.horizon_xid))
        self.assembler = self._assembler(folder / "spool", collectors.memory_limit, collectors.spool_limit)
        self.tables.attach(self.assembler)

    def _assembler(self, spool: Path, memory_limit: int, spool_limit: int) -> Assembler:
        row = self.sql.execute(
            "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text,"
            " pg_catalog.current_setting('server_encoding')"
        ).fetchone()
        assert row is not None
        encoding = str(row[1])
        context = self.context
        self.accounts = Accounts(lambda oid: published.listed(self.sql, oid))
        ring = keys.recall(self.keys_path, self.place.system_id)
        remember = partial(keys.remember, self.keys_path, self.place.system_id, ring)
        self.judge = Messages(
            self.place.system_id,
            self.database,
            KeyReads(self._keys, ring, stand=self._stand, changed=remember),
            self._announced,
            self._heartbeat_came,
            tokens=Verifier.of(context.config.identities, context.name, self.database, tokenizer(context.key)),
            codec=codec_of(encoding),
            own=OwnSessions(context.key),
        )
        return Assembler(
            self.place,
            Masking(context.config.privacy, tokenizer(context.key), _subjects(context.config.privacy)),
            self.judge,
            self.tables.facts,
            self,
            Held(spool, memory_limit, spool_limit),
            Xids(int(row[0])),
            now_us,
            self.accounts,
            self._own_work,
        )

    def run(self) -> None:
        """Make sure of the slot, stream, and end in order when told to."""
        names = slot.publications(self.sql, PUBLICATIONS)
        self.streamed = frozenset(names)
        self._settle()
        self.tables.begin(self.memory.asked)
        self._look_at_registry()
        slot.remember(self.memory_path, self.memory)
        self.accounts.partitions(published.partitions(self.sql))
        self.stream.start(self.slot, names, start_after(self.memory.stuck, self.memory.confirmed))
        self.channel.while_blocked = self._while_blocked
        log.info("streaming", cluster=self.context.name, database=self.database, slot=self.slot, publications=names)
        try:
            self._stream()
        except _Stopped:
            return
        except (psycopg.Error, Retry) as error:
            if isinstance(error, Ended) and of_the_data(error.sqlstate):
                self._failed_at(
                    f"the server cannot send it: SQLSTATE {error.sqlstate}", error.sqlstate == OUT_OF_MEMORY
                )
            raise
        except OSError:  # of the moment, whatever the transaction holds
            raise
        except Exception as error:
            why = str(error) if isinstance(error, ProtocolError) else type(error).__name__
            self._failed_at(why, isinstance(error, MemoryError))
            raise
        self.channel.while_blocked = None
        try:
            self.channel.flush(5.0)
        finally:
            self._confirm()
            self.stream.tell(now=True)

    def _failed_at(self, why: str, short_of_memory: bool) -> None:
        """Remember at which transaction the stream ended; one that ends it again and again is passed over as a gap."""
        lsn = self.assembler.commit_lsn
        if not lsn:
            return
        stuck = failed(self.memory.stuck, lsn, short_of_memory=short_of_memory)
        log.error("the stream ends in a transaction", database=self.database, commit_lsn=format_lsn(lsn), why=why,
                  tries=stuck.tries)  # fmt: skip
        if start_after(stuck, self.memory.confirmed) and not stuck.told:
            stuck = replace(stuck, told=True)
            detail: dict[str, object] = {"commit_lsn": format_lsn(lsn), "xid": self.assembler.xid, "why": why}
            self.memory.gaps.append(
                Gap(captured_at_us=now_us(), reason="transaction_unreadable", database=self.database, detail=detail)
            )
        self.memory.stuck = stuck
        slot.remember(self.memory_path, self.memory)

    # Output: what the assembler gives.

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        """Send one part; the last one of a transaction moves the position when the broker has it."""
        if done_lsn is None:
            self.channel.send(event, max(1, rows))
            self._look(time.monotonic(), idle=False)  # a long transaction let go takes a while
            return
        self.sent += 1
        self.channel.send(event, max(1, rows), self._reporter(done_lsn))

    def nothing(self, done_lsn: int) -> None:
        """Move on over what is not sent, once everything before it is delivered."""
        self.after_lsn = done_lsn

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        """Write down what could not be read; the position does not move beyond it before the broker has it."""
        word = f"{reason} {detail.get('why', '')}"
        if not self.asides.allows(time.monotonic(), word):
            return
        log.error("evidence cannot be read", cluster=self.context.name, database=self.database, reason=reason, **detail)
        self.measures.gap(reason)
        self._send(Gap(captured_at_us=now_us(), reason=reason, database=self.database, detail=detail))

    def _reporter(self, lsn: int) -> Callable[[], None]:
        def report() -> None:
            self.delivered_lsn = lsn
            self.delivered += 1

        return report

    def _send(self, event: RawEvent, delivered: Callable[[], None] | None = None) -> None:
        self.sent += 1

        def report() -> None:
            self.delivered += 1
            if delivered is not None:
                delivered()

        self.channel.send(event, delivered=report)

    # The loop.

    def _stream(self) -> None:
        read, feed, stopping = self.stream.read, self.assembler.feed, self.stop.is_set
        left = 0
        while not stopping():
            data = read(READ_S)
            if data is not None:
                feed(data, HEADER)
                left -= 1
                if left > 0 and not self.stream.waited:
                    continue
                left = MESSAGES_A_LOOK
            elif not self.assembler.inside:
                self.after_lsn = max(self.after_lsn, self.stream.server_end)
            self._look(time.monotonic(), idle=data is None)

    def _look(self, now: float, *, idle: bool) -> None:
        """Do what is due besides reading."""
        if now < self.next_look and not idle:
            return
        self.next_look = now + TURN_S
        self._confirm()
        self.stream.tell()
        self._rest(now)
        self.assembler.settle(self.after_lsn)
        self.context.health.ready(self.part_name, self.unstored)
        self._unproven(now)
        self._keep(caught_up=idle or self.stream.waited)
        if now >= self.next_heartbeat:
            self._measure()
            self.judge.keys.refresh()
            self._heartbeat()
            self.tables.catalogue.look()
            self._look_at_registry()
            if not self.assembler.inside:
                self.tables.forget(max(self.delivered_lsn, self.after_lsn))
            self.next_heartbeat = now + self.context.config.collectors.heartbeat_interval

    def _rest(self, now: float) -> None:
        """Tell by their number what was too much to be told one by one."""
        forgeries = self.judge.forgeries.rest(now)
        if forgeries is not None:
            reasons, first, last = forgeries
            detail: dict[str, object] = {"finding": "beacon_forged", "reason": "flood", "reasons": reasons}
            detail |= {"count": sum(reasons.values()), "first_lsn": format_lsn(first), "last_lsn": format_lsn(last)}
            self._send(
                Control(captured_at_us=now_us(), operation="beacon_forged", database=self.database, detail=detail)
            )
        asides = self.asides.rest(now)
        if asides is not None:
            detail = {"count": sum(asides[0].values()), "reasons": asides[0], "why": "more than are told one by one"}
            self._send(Gap(captured_at_us=now_us(), reason="message_unreadable", database=self.database, detail=detail))

    def _keep(self, *, caught_up: bool) -> None:
        """Let the database publish what can be published, in bounded time: soon after DDL, and every few seconds.

        Behind the WAL's end only what makes updates fail is mended: how a table was published when a beacon spoke is
        asked of the catalogue as it is now.
        """
        if self.assembler.ddl != self.ddl_seen:
            self.ddl_seen = self.assembler.ddl
            self.job.hasten()
        began = now = time.monotonic()
        while now - began < JOB_S and self.job.step(self.sql, now, self.job_took, settle=caught_up):
            self.job_took, now = time.monotonic() - now, time.monotonic()
        self.measures.waiting(self.job.waiting)
        if self.job.taken_out:
            # Where event triggers could be made, the DDL itself tells it, with its session.
            detail: dict[str, object] = {"tables": self.job.taken_out, "found_by": "collector"}
            self.measures.gap("table_unread")
            self._send(Gap(captured_at_us=now_us(), reason="table_unread", database=self.database, detail=detail))
            self.job.taken_out = []

    def _while_blocked(self) -> None:
        """Keep the connection while the broker takes nothing, and the source's disk in bounds."""
        if self.stop.is_set():
            raise _Stopped
        self._confirm()
        self.stream.service()
        self.context.health.ready(self.part_name, "the broker does not take records; check that it runs")
        now = time.monotonic()
        if now >= self.next_heartbeat:
            self._measure()
            self.next_heartbeat = now + self.context.config.collectors.heartbeat_interval

    def _confirm(self) -> None:
        """Move the position to what is delivered: first in our own memory, then for the server.

        While the memory cannot be written the position stays: the stream goes on, the server keeps its WAL, and a
        restart sends again from there.
        """
        lsn = self.delivered_lsn
        if self.sent == self.delivered and not self.assembler.inside:
            lsn = max(lsn, self.after_lsn)
        gaps_gone = self.sent == self.delivered and self.memory.gaps
        if lsn <= self.memory.confirmed and not gaps_gone:
            return
        now = time.monotonic()
        if now - self.remembered < 1.0 and not self.stop.is_set():
            return
        self.remembered = now
        confirmed = max(lsn, self.memory.confirmed)
        horizon = self.tables.catalogue.horizons.at(confirmed)
        memory = replace(self.memory, confirmed=confirmed, horizon_lsn=horizon.lsn, horizon_xid=horizon.xid)
        if gaps_gone:
            memory.gaps = []
        try:
            slot.remember(self.memory_path, memory)
        except Retry as error:
            if self.unstored is None:
                log.error("position not written; the stream goes on, the slot stays where it is", error=str(error))
            self.unstored = str(error)
            return
        self.memory, self.unstored = memory, None
        self.stream.received = max(self.stream.received, self.memory.confirmed)
        if lsn:
            self.stream.confirm(lsn)

    remembered = 0.0
    unstored: str | None = None
    """Why the position cannot be written at the moment."""

    # The slot.

    def _settle(self) -> None:
        """Find or make the slot, and write down what is missing before anything is streamed."""
        found = slot.read(self.sql, self.slot)
        slot.check(found, self.slot, self.database)
        if found is None or self.memory.horizon_lsn > found.confirmed or self.memory.system_id != self.place.system_id:
            self.tables.forget_before()
            self.memory.asked = []
        self.tables.catalogue.look()
        gaps, must_make = slot.examine(self.memory, self.place, self.slot, found, now_us())
        gaps += self._went_back(slot.wal_end(self.sql))
        if gaps or must_make or self.memory.slot != self.slot:
            # Written down before the slot is touched: a crash in between must not lose the gap.
            self.memory.gaps += gaps
            slot.remember(self.memory_path, self.memory)
        confirmed = found.confirmed if found is not None else 0
        if must_make:
            if found is not None:
                slot.drop(self.sql, self.slot)
            confirmed = slot.make(self.sql, self.slot, self.context.cluster.slot)
            if not any(gap.reason == "position_went_back" for gap in gaps):
                self.memory.gaps += self._went_back(confirmed)
        self.assembler.incarnation = self.memory.incarnation
        self._gaps_open(confirmed)
        self.memory.system_id, self.memory.timeline = self.place.system_id, self.place.timeline
        self.memory.slot, self.memory.confirmed = self.slot, confirmed
        self._tell_start()
        slot.remember(self.memory_path, self.memory)
        if must_make:
            detail: dict[str, object] = {"slot": self.slot, "lsn": format_lsn(confirmed)}
            self._send(Control(captured_at_us=now_us(), operation="slot_made", database=self.database, detail=detail))

    def _tell_start(self) -> None:
        """Tell that the server began anew, before anything that was committed since.

        A crash gives transaction ids again: who was seen with one before it must not be named for what comes after it.
        Written down once it is sent, so it may be told twice, as everything before the broker's answer.
        """
        began_us = slot.started_us(self.sql)
        if self.memory.started_us and began_us != self.memory.started_us:
            detail: dict[str, object] = {"started_us": began_us}
            told = Control(captured_at_us=now_us(), operation="server_started", database=self.database, detail=detail)
            self._send(told, self._start_told(began_us))
        else:
            self.memory.started_us = began_us

    def _start_told(self, began_us: int) -> Callable[[], None]:
        def told() -> None:
            self.memory.started_us = began_us

        return told

    def _went_back(self, end: int | None) -> list[Gap]:
        """Begin a new incarnation when the server stands before what was read of it."""
        gap = slot.went_back(self.memory, self.place, self.slot, end, now_us())
        if gap is None:
            return []
        self.memory.incarnation = max(gap.captured_at_us, self.memory.incarnation + 1)
        gap.detail["incarnation"] = self.memory.incarnation
        return [gap]

    def _look_at_publications(self) -> None:
        """Compare what is published with what it was; what nobody announced is a gap, noted before it is sent."""
        passed = self.delivered_lsn if self.assembler.inside else max(self.delivered_lsn, self.after_lsn)
        now, there = publication_watch.snapshot(self.sql)
        end = slot.wal_end(self.sql) or self.stream.server_end
        gaps = self.watch.look(now, there, end_lsn=end, passed_lsn=passed, database=self.database, now_us=now_us())
        if gaps or self.memory.publications != self.watch.known:
            self.memory.publications = self.watch.known
            self.memory.gaps += gaps
            slot.remember(self.memory_path, self.memory)
        for gap in gaps:
            log.warning("gap in the evidence", cluster=self.context.name, reason=gap.reason, **gap.detail)
            self.measures.gap(gap.reason)
            self._send(gap)
        self._take_on(frozenset(now) - self.streamed, end)

    def _take_on(self, made: frozenset[str], end: int) -> None:
        """Begin the stream anew with a publication that was made since, once it has passed where that was there."""
        if not made:
            self.made_by = 0
        elif not self.made_by:
            self.made_by = end
        elif self.memory.confirmed >= self.made_by and self.sent == self.delivered:
            self.stream.tell(now=True)
            raise Retry(f"publication {', '.join(sorted(made))} is there now: the stream begins anew with it")

    streamed: frozenset[str] = frozenset()
    made_by = 0

    def _gaps_open(self, resumes: int) -> None:
        for gap in self.memory.gaps:
            log.warning("gap in the evidence", cluster=self.context.name, reason=gap.reason, **gap.detail)
            self.measures.gap(gap.reason)
            gap.detail.setdefault("resumes", format_lsn(resumes))
            self._send(gap)

    def _measure(self) -> None:
        """Publish the slot's state and keep the source's disk in bounds."""
        found = slot.read(self.sql, self.slot)
        self._look_at_publications()
        self.measures.stream(self.assembler, self.sent, forged_outside=self.judge.forgeries.total)
        if found is None:
            raise Retry(f"slot {self.slot} is gone")
        self.measures.slot(found)
        if found.lag > self.context.cluster.slot.max_lag:
            self._too_far_behind(found)

    def _too_far_behind(self, found: SlotState) -> None:
        settings = self.context.cluster.slot
        held_by = slot.oldest(self.sql)
        log.warning(
            "the slot holds back more WAL than slot.max_lag",
            cluster=self.context.name,
            database=self.database,
            lag_bytes=found.lag,
            max_lag_bytes=int(settings.max_lag),
            behind_bytes=found.behind,
            on_max_lag=settings.on_max_lag,
            oldest_transaction=held_by,
        )
        if settings.on_max_lag != "drop":
            return
        detail: dict[str, object] = {
            "slot": self.slot,
            "confirmed": format_lsn(self.memory.confirmed),
            "lag_bytes": found.lag,
            "max_lag_bytes": int(settings.max_lag),
            "behind_bytes": found.behind,
            "oldest_transaction": held_by,
        }
        self.memory.gaps.append(
            Gap(captured_at_us=now_us(), reason="slot_dropped", database=self.database, detail=detail)
        )
        self.memory.slot = ""  # so that its absence is not found a second time
        slot.remember(self.memory_path, self.memory)
        self.stream.close()
        self._drop()
        raise Retry(f"slot {self.slot} held back {found.lag} bytes of WAL and was dropped, as slot.on_max_lag says")

    def _drop(self) -> None:
        """Drop the slot as soon as the server has noticed that our stream is closed."""
        deadline = time.monotonic() + 10
        while True:
            try:
                slot.drop(self.sql, self.slot)
            except PgwitnessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    # The catalogue and our own messages.

    def _look_at_registry(self) -> None:
        """Read the registry of now, and take over what it says of what comes from here on."""
        self.tables.look(passed_lsn=self.after_lsn)
        self.memory.asked = self.tables.registry.asked

    def _own_work(self, end_lsn: int, xid: int) -> None:
        """Take over what a transaction of pgwitness's own did, now that the stream has passed it."""
        for operation in self.own_work:
            self.tables.registry.announced(operation, end_lsn)
        self.own_work = []
        deadline = time.monotonic() + SEEN_S
        while not registry.seen(self.sql, xid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.after_lsn = max(self.after_lsn, end_lsn)
        self._look_at_registry()

    def _heartbeat(self) -> None:
        """Write a message when others have written WAL, so that a quiet database beside a busy one moves on."""
        said = (self.heartbeat_lsn + QUIET_BYTES, HEARTBEAT_PREFIX, self.judge.beat.next())
        row = self.sql.execute(_HEARTBEAT, said).fetchone()
        if row is not None and row[0] is not None:
            self.heartbeat_lsn = int(row[0])

    def _keys(self) -> list[Key] | None:
        """Read the keys of the beacon; where they are lost, have another one made. None where they are locked."""
        found = source.load_keys(self.sql)
        if found == [] and source.renew_key(self.sql):
            log.warning("the key of the beacon was lost; another one is made", cluster=self.context.name)
            found = source.load_keys(self.sql)
        return found

    def _stand(self) -> Stand:
        """Ask which transactions have ended."""
        row = self.sql.execute("SELECT pg_catalog.pg_current_snapshot()::text").fetchone()
        assert row is not None
        return stand_of(str(row[0]))

    def _unproven(self, now: float) -> None:
        """Tell, once a while, that beacons said who wrote without a proof."""
        if not self.judge.unproven.number or now < self.next_unproven:
            return
        self.next_unproven = now + UNPROVEN_S
        self.measures.gap("beacon_unproven")
        detail = self.judge.unproven.taken()
        self._send(Gap(captured_at_us=now_us(), reason="beacon_unproven", database=self.database, detail=detail))

    def _heartbeat_came(self) -> None:
        self.accounts.forget_catalogue()
        self.accounts.partitions(published.partitions(self.sql))

    def _announced(self, said: ControlPayload, lsn: int) -> None:
        """Write down what was done to the beacon, and take over what it means from this place of the stream on."""
        detail: dict[str, object] = {"role": said.session_user, "xid": said.xid, "lsn": format_lsn(lsn)}
        self._send(
            Control(
                captured_at_us=now_us(), operation=f"beacon_{said.operation}", database=self.database, detail=detail
            )
        )
        if said.operation in ("renew_key", "rotate_key"):
            self.judge.keys.refresh()
        if said.operation == "renew_key":
            self.measures.gap("key_lost")
            self._send(Gap(captured_at_us=now_us(), reason="key_lost", database=self.database, detail=dict(detail)))
        if said.operation in publication_watch.ANNOUNCES:
            self.watch.announced(lsn)
            if said.operation == "uninstall":
                self.watch.known = {}  # what goes now goes in order
        self.assembler.announced()
        self.own_work.append(said.operation)
        self._heartbeat_came()


_HEARTBEAT = """
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
             AND pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn > %s::numeric
       THEN pg_catalog.pg_logical_emit_message(false, %s, %s) - '0/0'::pg_catalog.pg_lsn END
"""
