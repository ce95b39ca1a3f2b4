"""The fold: one raw partition in, attributed events out; deterministic, and it never waits for what may not come.

`Fold.apply(offset, batch)` must see every record of the partition in order of offsets. The same records from the
same state give byte-identical events: time is the time in the records, nothing else is asked. What it promises:

- A re-sent transaction, or part of one, is dropped or trimmed by its position (`FoldState.Watermark`), a line of the
  server's log by its place in the log; any other event that a collector sends again after a crash is dropped by its
  id, among the last `RECENT_MAX` of its cluster.
- A transaction is bound by its verified beacon (`exact`), its replication origin, a line of the server's log or a
  session sample with its transaction id, or goes on as `none`. Only one without any of these, on tables without a
  beacon, waits, at most `grace_us` of record time and within `held_bytes_max`.
- An event that has the right shape and nonsense in it is left out (`refused`); the others of its record go on.
- An event's `at` is the record that let it go. `snapshot` is the state at a record's end; `restore`, then
  `rehydrate` from `resume_from` on, brings held transactions back.

All memory is bounded: sessions, transaction ids and watermarks are forgotten oldest first.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from pgwitness.errors import ConfigurationError
from pgwitness.events import (
    Beacon,
    Control,
    Event,
    Gap,
    LogPlace,
    Position,
    Posture,
    QueryStats,
    RawBatch,
    RawEvent,
    RawHeader,
    Session,
    Statement,
    Tick,
    Transaction,
)
from pgwitness.events import Identities as IdentitiesRecord
from streams import claims, shape
from streams import fold_state as states
from streams.attribution import (
    NOBODY,
    SHADOW,
    by_beacon,
    by_log,
    by_origin,
    by_role,
    by_session,
    known,
    log_session,
)
from streams.fold_state import (
    Attribution,
    ClusterState,
    FoldState,
    HeldPart,
    HeldState,
    SessionKey,
    Timeline,
    Watermark,
)
from streams.identity import Identities
from streams.sanity import check
from streams.told import Told
from streams.trimming import trim

SESSIONS_MAX = 10_000
XIDS_MAX = 20_000
TIMELINES_MAX = 1_000
LOGS_MAX = 1_000
XID_MODULUS = 1 << 32
"""The log writes transaction ids without their epoch; among those that are remembered that tells them apart."""
HELD_BYTES_MAX = 16 * 1024 * 1024
RECENT_MAX = 8_192
"""Ids of events other than changes that are remembered: more than any collector sends again after a crash."""
RECENT_LETTERS = 16
BEACONS_MAX = 20_000
"""Sessions whose attribution by beacon is remembered; forgetting costs time only."""

K = TypeVar("K")
V = TypeVar("V")


class _Held:
    """A transaction that waits for its identity; a part without its transaction is yet to be read again."""

    __slots__ = ("bytes", "due_us", "key", "parts", "xid")

    def __init__(self, key: tuple[Timeline, int], xid: int, due_us: int) -> None:
        self.key = key
        self.xid = xid
        self.due_us = due_us
        self.parts: list[tuple[HeldPart, str | None, Transaction | None]] = []
        self.bytes = 0


class _Cluster:
    """What is known of one cluster; dictionaries are in the order of what is forgotten first."""

    def __init__(self) -> None:
        self.clock_us = 0
        self.watermarks: dict[Timeline, Watermark] = {}
        self.sessions: dict[SessionKey, states.KnownSession] = {}
        self.xids: dict[int, SessionKey] = {}
        self.held: dict[tuple[Timeline, int], _Held] = {}
        self.by_xid: dict[int, list[tuple[Timeline, int]]] = {}
        self.beacons: dict[SessionKey, tuple[tuple[object, ...], Attribution]] = {}
        self.recent: dict[str, None] = {}
        self.logs: dict[tuple[str | None, str], tuple[int, int]] = {}
        self.log_xids: dict[int, states.LogSession] = {}
        self.told = Told()


class Fold:
    """The fold over one raw partition. `next_offset` is the record it expects, from 0."""

    def __init__(
        self, partition: int, identities: Identities, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX
    ) -> None:
        self.partition = partition
        self.identities = identities
        self.next_offset = 0
        self.dropped = 0
        """Parts and other events that were known already, since this object was made."""
        self.refused: str | None = None
        """Why an event of the last record was left out, None when none was: the record is then a dead letter too."""
        self.held_bytes = 0
        self._grace_us = grace_us
        self._held_bytes_max = held_bytes_max
        self._clusters: dict[str, _Cluster] = {}
        self._missing: dict[int, list[_Held]] = {}
        self._out: list[Event] = []
        self._offset = 0

    # -- records -----------------------------------------------------------------------------------------------

    def apply(self, offset: int, batch: RawBatch) -> list[Event]:
        """Take the next record and return what it lets go, in order. A record from before `next_offset` gives [] ."""
        if offset < self.next_offset:
            return []
        self._begin(offset, batch.header.cluster)
        cluster = self._cluster(batch.header.cluster)
        self.refused = None
        for index, event in enumerate(batch.events):
            try:
                check(event)
                if event.captured_at_us > cluster.clock_us:
                    cluster.clock_us = event.captured_at_us
                if type(event) is Transaction:
                    self._transaction(cluster, batch.header, index, event)
                else:
                    self._other(cluster, batch.header, event)
            except (ValueError, OverflowError) as error:  # msgspec's own errors are ValueErrors
                self.refused = f"event {index}: {error}"
        if cluster.held:
            self._expire(batch.header.cluster, cluster)
        return self._end(offset)

    def skip(self, offset: int) -> list[Event]:
        """Pass a record that was no batch and went to the dead letters."""
        if offset < self.next_offset:
            return []
        self._begin(offset, None)
        return self._end(offset)

    def _begin(self, offset: int, cluster: str | None) -> None:
        self._offset = offset
        if self._missing:
            self._abandon()
        if offset > self.next_offset:
            self._lost(self.next_offset, offset, cluster)

    def _end(self, offset: int) -> list[Event]:
        out, self._out = self._out, []
        self.next_offset = offset + 1
        return out

    def _emit(self, event: Event) -> None:
        event.at = Position(self.partition, self._offset, len(self._out))
        self._out.append(event)

    def _emit_once(self, cluster: _Cluster, event: Event) -> bool:
        """Emit an event unless it was: a collector that crashed sends what it is not sure of again. Says whether."""
        key = event.event_id[:RECENT_LETTERS]
        if key in cluster.recent:
            self.dropped += 1
            return False
        _room(cluster.recent, RECENT_MAX)
        cluster.recent[key] = None
        self._emit(event)
        return True

    def _cluster(self, name: str) -> _Cluster:
        cluster = self._clusters.get(name)
        if cluster is None:
            cluster = self._clusters[name] = _Cluster()
        return cluster

    def _lost(self, first: int, end: int, cluster: str | None) -> None:
        """Records that are no longer in raw are missing evidence, and told as such for every cluster known here."""
        names = sorted(set(self._clusters) | ({cluster} if cluster is not None else set()))
        for name in filter(None, names):
            self._emit(shape.raw_lost(name, self.partition, first, end, self._cluster(name).clock_us))

    # -- transactions ------------------------------------------------------------------------------------------

    def _transaction(self, cluster: _Cluster, header: RawHeader, index: int, part: Transaction) -> None:
        timeline = (part.system_id, part.timeline, part.database)
        mark = cluster.watermarks.get(timeline)
        if mark is None or part.lsn > mark.lsn:
            mark = Watermark(part.lsn, 0, False)
            if timeline not in cluster.watermarks:
                _room(cluster.watermarks, TIMELINES_MAX)
            cluster.watermarks[timeline] = mark
        elif part.lsn < mark.lsn or mark.whole:
            self.dropped += 1
            return
        end = part.first_ordinal + part.n_rows
        if part.first_ordinal < mark.next_ordinal:
            if end <= mark.next_ordinal and not part.last:
                self.dropped += 1
                return
            part = trim(part, mark.next_ordinal)
        mark.next_ordinal = max(end, mark.next_ordinal)
        whose = self._whose(cluster, header, part, mark)
        if part.forged or part.ddl or len(part.beacons) > 1 or (part.beacons and part.beacons[0].token is not None):
            self._findings(header, part, mark, whose or NOBODY)
            self._ddl(cluster, header, part, mark)
        key = (timeline, part.lsn)
        held = cluster.held.get(key) if cluster.held else None
        if whose is None and part.n_rows and not self._hold(cluster, header, index, key, part):
            whose = NOBODY
        if whose is not None:
            if held is not None:
                self._release(header.cluster, cluster, held, whose)
            mark.whose = None if part.last else whose
            if part.n_rows or part.part:
                self._emit(shape.change(header.cluster, header.instance, part, whose))
        if part.last:
            mark.whole = True
            mark.whose = None

    def _whose(self, cluster: _Cluster, header: RawHeader, part: Transaction, mark: Watermark) -> Attribution | None:
        """Say whose a transaction is, or None when it may still be found out."""
        decided = mark.whose
        if decided is not None and (decided.binding != "none" or not part.beacons):
            return decided
        if part.beacons:
            conflict = len(part.beacons) > 1 and shape.conflicting(part.beacons)
            return self._by_beacon(cluster, header, part.database, part.beacons[0], conflict)
        if part.origin is not None:
            return by_origin(part.origin)
        covered = False
        for relation in part.relations:
            if relation.beacon:
                covered = True
                break
        finding = "shadow_write" if covered else None
        if part.ddl:
            whose = self._by_beacon(cluster, header, part.database, part.ddl[0].beacon)
            return replace(whose, finding=finding) if covered else whose
        told = cluster.log_xids.get(part.xid % XID_MODULUS)
        if told is not None and _fits(told, part):
            return by_log(told, header.cluster, self.identities, finding=finding)
        session_key = cluster.xids.get(part.xid)
        if session_key is not None:
            session = cluster.sessions.get(session_key)
            if session is not None:
                return by_session(session, header.cluster, self.identities, "sample", finding)
        return SHADOW if covered else None

    def _by_beacon(
        self, cluster: _Cluster, header: RawHeader, database: str, beacon: Beacon, conflict: bool = False
    ) -> Attribution:
        key = (beacon.pid, beacon.backend_start_us)
        said = (
            beacon.session_user,
            beacon.role,
            beacon.application,
            beacon.client_addr,
            beacon.client_port,
            beacon.claim,
            beacon.token,
            database,
            header.instance,
            conflict,
        )
        remembered = cluster.beacons.get(key)
        if remembered is not None and remembered[0] == said:
            return remembered[1]
        whose = by_beacon(
            beacon,
            cluster.sessions.get(key),
            (header.cluster, database, header.instance),
            self.identities,
            conflict,
        )
        _room(cluster.beacons, BEACONS_MAX)
        cluster.beacons[key] = (said, whose)
        return whose

    def _findings(self, header: RawHeader, part: Transaction, mark: Watermark, whose: Attribution) -> None:
        for number in range(mark.forged, len(part.forged)):
            self._emit(shape.forged(header.cluster, header.instance, part, number, whose))
        mark.forged = max(mark.forged, len(part.forged))
        if not mark.refused:
            said = [beacon.token for beacon in (*part.beacons, *(item.beacon for item in part.ddl))]
            token = next((token for token in said if token is not None and claims.refused(token)), None)
            if token is not None:
                mark.refused = True
                self._emit(shape.refused(header.cluster, header.instance, part, token, whose))
        if not mark.conflict and shape.conflicting(part.beacons):
            mark.conflict = True
            self._emit(shape.conflict(header.cluster, header.instance, part, whose))

    def _ddl(self, cluster: _Cluster, header: RawHeader, part: Transaction, mark: Watermark) -> None:
        """Tell each command by the session that its own message names, once."""
        fresh = [item for item in part.ddl if item.number >= mark.ddl]
        for item in fresh:
            whose = self._by_beacon(cluster, header, part.database, item.beacon)
            event = shape.ddl(header.cluster, header.instance, part, item, whose)
            mark.ddl = item.number + 1
            self._emit(event)
        cluster.told.ddl(part.database, fresh)

    # -- waiting -----------------------------------------------------------------------------------------------

    def _hold(
        self, cluster: _Cluster, header: RawHeader, index: int, key: tuple[Timeline, int], part: Transaction
    ) -> bool:
        """Keep a part until its transaction's identity is known; False when there is no room for it."""
        size = len(memoryview(part.rows))
        if self._grace_us <= 0 or self.held_bytes + size > self._held_bytes_max:
            return False
        held = cluster.held.get(key)
        if held is None:
            held = _Held(key, part.xid, part.captured_at_us + self._grace_us)
            cluster.held[key] = held
            cluster.by_xid.setdefault(part.xid % XID_MODULUS, []).append(key)
        # Rows are a view of their whole record: a copy lets go of the rest.
        part = replace(part, rows=part.rows.copy())
        held.parts.append((HeldPart(self._offset, index, part.first_ordinal), header.instance, part))
        held.bytes += size
        self.held_bytes += size
        return True

    def _release(self, name: str, cluster: _Cluster, held: _Held, whose: Attribution) -> None:
        """Let a held transaction go; later parts of it go the same way."""
        del cluster.held[held.key]
        same = cluster.by_xid[held.xid % XID_MODULUS]
        same.remove(held.key)
        if not same:
            del cluster.by_xid[held.xid % XID_MODULUS]
        self.held_bytes -= held.bytes
        timeline, lsn = held.key
        mark = cluster.watermarks.get(timeline)
        if mark is not None and mark.lsn == lsn and not mark.whole:
            mark.whose = whose
        for _, instance, part in held.parts:
            if part is not None:
                self._emit(shape.change(name, instance, part, whose))

    def _expire(self, name: str, cluster: _Cluster) -> None:
        while cluster.held:
            held = next(iter(cluster.held.values()))
            if held.due_us > cluster.clock_us:
                return
            self._release(name, cluster, held, NOBODY)

    # -- everything else ---------------------------------------------------------------------------------------

    def _other(self, cluster: _Cluster, header: RawHeader, event: RawEvent) -> None:
        match event:
            case Tick():
                pass
            case Session():
                self._session(cluster, header, event)
            case Statement():
                self._statement(cluster, header, event)
            case QueryStats():
                whose = by_role(header.cluster, event.database, event.role, self.identities)
                told = shape.query_stats(header, event, whose)
                if self._emit_once(cluster, told):
                    cluster.told.query_stats(told)
            case IdentitiesRecord():
                self._rename(event)
            case Posture():
                found = shape.finding(header, event)
                if self._emit_once(cluster, found):
                    cluster.told.posture(found, event)
            case Gap() | Control():
                self._emit_once(cluster, shape.finding(header, event))
            case Transaction():  # pragma: no cover - `apply` takes these
                raise AssertionError(event)

    def _statement(self, cluster: _Cluster, header: RawHeader, event: Statement) -> None:
        if self._is_known_line(cluster, header, event.place):
            return
        session = log_session(event, header.instance)
        if event.xid is not None and event.role is not None:
            told = cluster.log_xids.pop(event.xid, None)
            if told == session:
                session = told  # one object for all the transactions of a session
            _room(cluster.log_xids, XIDS_MAX)
            cluster.log_xids[event.xid] = session
            waiting = cluster.by_xid.get(event.xid)
            held = cluster.held[waiting[-1]] if waiting else None
            if held is not None and session.database in (None, held.key[0][2]):
                self._release(header.cluster, cluster, held, by_log(session, header.cluster, self.identities))
        self._emit(shape.statement(header, event, by_log(session, header.cluster, self.identities, own=True)))

    def _is_known_line(self, cluster: _Cluster, header: RawHeader, place: LogPlace) -> bool:
        key = (header.instance, place.log)
        reached = cluster.logs.pop(key, None)
        here = (place.offset, place.index)
        known = reached is not None and here <= reached
        _room(cluster.logs, LOGS_MAX)
        cluster.logs[key] = reached if known and reached is not None else here
        if known:
            self.dropped += 1
        return known

    def _session(self, cluster: _Cluster, header: RawHeader, event: Session) -> None:
        if event.place is not None:
            if not self._is_known_line(cluster, header, event.place):
                whose = by_log(log_session(event, header.instance), header.cluster, self.identities, own=True)
                self._emit(shape.session(header, event, whose))
            return
        session = known(event, header.instance)
        key = (event.pid, event.backend_start_us)
        if cluster.sessions.pop(key, None) != session:
            cluster.beacons.pop(key, None)
        for gone in _room(cluster.sessions, SESSIONS_MAX):
            cluster.beacons.pop(gone, None)
        cluster.sessions[key] = session
        if event.xid is not None:
            cluster.xids.pop(event.xid, None)
            _room(cluster.xids, XIDS_MAX)
            cluster.xids[event.xid] = key
            waiting = cluster.by_xid.get(event.xid % XID_MODULUS)
            if waiting and cluster.held[waiting[-1]].xid == event.xid:
                whose = by_session(session, header.cluster, self.identities, "sample")
                self._release(header.cluster, cluster, cluster.held[waiting[-1]], whose)
        if event.operation != "sample":
            whose = by_session(session, header.cluster, self.identities, "own")
            self._emit_once(cluster, shape.session(header, event, whose))

    def _rename(self, record: IdentitiesRecord) -> None:
        if record.sha256 == self.identities.sha256:
            return
        try:
            self.identities = Identities.parse(record.content)
            error = None
        except ConfigurationError as refused:
            error = str(refused)
        for cluster in self._clusters.values():
            cluster.beacons.clear()
        for name in sorted(name for name in self._clusters if name):
            self._emit(shape.renamed(name, record, self.partition, self._offset, error))

    # -- checkpoints -------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many transactions wait."""
        return sum(len(cluster.held) for cluster in self._clusters.values())

    @property
    def resume_from(self) -> int:
        """The raw offset to read from after `restore`: the oldest held part's, or `next_offset`."""
        offsets = [
            reference.offset
            for cluster in self._clusters.values()
            for held in cluster.held.values()
            for reference, _, _ in held.parts
        ]
        return min([*offsets, self.next_offset])

    def snapshot(self) -> bytes:
        """Give the state after the last record, as JSON."""
        return states.encode(
            FoldState(
                version=1,
                partition=self.partition,
                next_offset=self.next_offset,
                identities=self.identities.content,
                clusters={name: _save(cluster) for name, cluster in self._clusters.items()},
            )
        )

    @classmethod
    def restore(cls, data: bytes, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX) -> Fold:
        """Make the fold of a checkpoint. Raises `msgspec.DecodeError` when it is none."""
        state = states.decode(data)
        fold = cls(state.partition, Identities.parse(state.identities), grace_us, held_bytes_max)
        fold.next_offset = state.next_offset
        for name, saved in state.clusters.items():
            fold._clusters[name] = cluster = _Cluster()
            cluster.clock_us = saved.clock_us
            cluster.watermarks = dict(saved.watermarks)
            cluster.told = Told(saved.told)
            cluster.sessions = {(session.pid, session.backend_start_us): session for session in saved.sessions}
            cluster.xids = dict(saved.xids)
            cluster.recent = dict.fromkeys(saved.recent)
            cluster.logs = dict(saved.logs)
            cluster.log_xids = {xid: saved.log_sessions[place] for xid, place in saved.log_xids}
            for item in saved.held:
                held = _Held((item.timeline, item.lsn), item.xid, item.due_us)
                held.parts = [(reference, None, None) for reference in item.parts]
                cluster.held[held.key] = held
                cluster.by_xid.setdefault(item.xid % XID_MODULUS, []).append(held.key)
                for reference in item.parts:
                    fold._missing.setdefault(reference.offset, []).append(held)
        return fold

    def rehydrate(self, offset: int, batch: RawBatch) -> None:
        """Take a record from before `next_offset` again, only to refill what is held."""
        for held in self._missing.pop(offset, ()):
            for place, (reference, _, part) in enumerate(held.parts):
                if part is not None or reference.offset != offset or reference.index >= len(batch.events):
                    continue
                event = batch.events[reference.index]
                if not isinstance(event, Transaction) or event.lsn != held.key[1]:
                    continue
                if event.first_ordinal < reference.first_ordinal:
                    event = trim(event, reference.first_ordinal)
                event = replace(event, rows=event.rows.copy())
                held.parts[place] = (reference, batch.header.instance, event)
                size = len(memoryview(event.rows))
                held.bytes += size
                self.held_bytes += size

    def _abandon(self) -> None:
        """Held parts that raw no longer has cannot come back: say so, and go on."""
        missing, self._missing = self._missing, {}
        first, end = min(missing), max(missing) + 1
        for name in sorted(self._clusters):
            cluster = self._clusters[name]
            gone = [held for held in cluster.held.values() if any(part is None for _, _, part in held.parts)]
            if gone:
                self._emit(shape.raw_lost(name, self.partition, first, end, cluster.clock_us))
            for held in gone:
                self._release(name, cluster, held, NOBODY)


def _room(items: dict[K, V], items_max: int) -> list[K]:
    """Forget the oldest entries until one more has room; returns their keys."""
    gone: list[K] = []
    while len(items) >= items_max:
        key = next(iter(items))
        del items[key]
        gone.append(key)
    return gone


def _fits(told: states.LogSession, part: Transaction) -> bool:
    """Say whether a line of the log can be about a transaction: ids come again, after four thousand million."""
    return told.database is None or told.database == part.database


def _save(cluster: _Cluster) -> ClusterState:
    log_sessions: dict[states.LogSession, int] = {}
    log_xids = [(xid, log_sessions.setdefault(session, len(log_sessions))) for xid, session in cluster.log_xids.items()]
    return ClusterState(
        clock_us=cluster.clock_us,
        watermarks=list(cluster.watermarks.items()),
        sessions=list(cluster.sessions.values()),
        xids=list(cluster.xids.items()),
        held=[
            HeldState(held.key[0], held.key[1], held.xid, held.due_us, [reference for reference, _, _ in held.parts])
            for held in cluster.held.values()
        ],
        recent=list(cluster.recent),
        logs=list(cluster.logs.items()),
        log_sessions=list(log_sessions),
        log_xids=log_xids,
        told=cluster.told.items(),
    )
