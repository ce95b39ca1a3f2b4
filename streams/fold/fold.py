"""The fold: one raw partition in, attributed events out; deterministic, and it never waits for what may not come.

`Fold.apply(offset, batch)` must see every record of the partition in order of offsets. The same records from the
same state give byte-identical events: time is the time in the records, nothing else is asked. What it promises:

- A re-sent transaction, or part of one, is dropped or trimmed by its position (`FoldState.Watermark`), a line of the
  server's log by its place in the log; any other event that a collector sends again after a crash is dropped by its
  id, among the last `RECENT_MAX` of its cluster.
- A transaction is bound by its verified beacon (`exact`), its replication origin, a line of the server's log or a
  session sample with its transaction id, or goes on as `none`. Only one without any of these, on tables without a
  beacon, waits, at most `grace_us` of record time and within `held_bytes_max`.
- What a snapshot of posture found changed waits for the log, where there is one, and is bound by the statement that
  says just that (`streams.fold.joins.posture_join`), or goes on as `none`. So does what the statistics counted, where
  every statement is logged: by the runs that the log told (`streams.fold.joins.stats_join`), else by the role.
- An event that cannot be taken, for whatever reason, is left out (`refused`) and leaves nothing behind
  (`pgwitness.core.undo`); the others of its record go on. `set_aside` tells it as a gap, within bounds.
- An event's `at` is the record that let it go. `snapshot` is the state at a record's end; `restore`, then
  `rehydrate` from `resume_from` on, brings held transactions back.

All memory is bounded: sessions, transaction ids and watermarks are forgotten oldest first.
"""

from __future__ import annotations

from copy import copy
from functools import partial

from msgspec.structs import replace

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import (
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
from pgwitness.core.events import Identities as IdentitiesRecord
from pgwitness.core.sql.statements import facts
from pgwitness.core.topics import OURSELVES
from streams.aside import Aside, Problem, unexpected
from streams.fold import positions, publications, readings, shares
from streams.fold.cluster import Cluster
from streams.fold.covering import covering
from streams.fold.events.base import line_id
from streams.fold.events.change import change_event, unpublished_event
from streams.fold.events.ddl import ddl_event, publication_changed
from streams.fold.events.findings import (
    beacon_forged,
    beacon_silenced,
    claim_refused,
    comment_contradicted,
    conflicting,
    identity_conflict,
    log_imitated,
    session_blinds,
)
from streams.fold.events.gaps import (
    clock_set_back,
    identities_changed,
    position_went_back,
    raw_lost,
    record_skipped,
    set_aside,
)
from streams.fold.events.observed import observed_event
from streams.fold.events.session import session_event
from streams.fold.events.statement import put_targets, statement_event, transaction_words
from streams.fold.events.statistics import statistics_id
from streams.fold.memory import checkpoint
from streams.fold.memory.attribution import Attribution, Vouched
from streams.fold.memory.checkpoint import FoldState
from streams.fold.memory.statements import HeldReading
from streams.fold.memory.transactions import HeldPart, Timeline, Watermark
from streams.fold.outcome.outcomes import ASKED
from streams.fold.sanity import bounded, bounded_header, check, check_position
from streams.fold.sessions import comments, witnesses
from streams.fold.sessions.attribution import (
    NOBODY,
    SHADOW,
    attempted,
    by_announcement,
    by_log,
    by_origin,
    by_session,
    log_session,
)
from streams.fold.told import OWN
from streams.fold.trimming import trim
from streams.fold.waiting import Held, Key, size_of
from streams.identity import claims
from streams.identity.identities import Identities

HELD_BYTES_MAX = 32 * 1024 * 1024
"""Bytes of parts that wait, with what each costs beside its rows (`streams.fold.waiting`)."""
CLUSTERS_MAX = 256
"""Clusters of one partition that are known; of more, the one that was quiet the longest is forgotten."""
ENDLESS_US = 1 << 63
SET_BACK_US = 5_000_000
"""By how much a captured event may lie behind the latest: collectors' threads and hosts are not one clock."""
SET_BACK_TOLD_US = 60_000_000
SET_BACK_RECORDS = 1_000
""" Of collectors whose clocks differ, it is told once in so many records."""
RUN_LINES = ("duration", "statement")
"""Of these lines of the log each run of a statement has one, where none of them is known to tell every run."""


_ENDS = frozenset({"commit", "rollback"})


class Fold:
    """The fold over one raw partition. `next_offset` is the record it expects, from 0."""

    def __init__(
        self, partition: int, identities: Identities, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX
    ) -> None:
        self.partition = partition
        self.identities = identities
        self.next_offset = 0
        self.base = 0
        """What the positions of this partition are ahead of the broker's offsets (`streams.kafka.origins`)."""
        self.dropped = 0
        """Parts and other events that were known already, since this object was made."""
        self.refused: list[Problem] = []
        """Why events of the last record were left out; the record is then a dead letter too."""
        self.failed: list[Problem] = []
        """What waited since an earlier record and failed when its time came, with the last one."""
        self._grace_us = grace_us
        self._held_bytes_max = held_bytes_max
        self._clusters: dict[str, Cluster] = {}
        self._whole = True
        self._out: list[Event] = []
        self._offset = 0
        self._emitted = 0
        self._aside = Aside()

    # -- records -----------------------------------------------------------------------------------------------

    def apply(self, offset: int, batch: RawBatch, written_us: int | None = None) -> list[Event]:
        """Take the next record and return what it lets go, in order. A record from before `next_offset` gives [] .

        `written_us` is the record's own time, which bounds what its events may say of theirs.
        """
        if offset < self.next_offset:
            return []
        header = bounded_header(batch.header)
        self.refused, self.failed = [], []
        self._begin(offset, header.cluster)
        cluster = self._cluster(header.cluster)
        for index, event in enumerate(batch.events):
            self._take(cluster, header, index, event, written_us)
        if cluster.waiting:
            self._expire(header.cluster, cluster)
        self._decided(cluster, cluster.outcomes.due(cluster.clock_us))
        for waited in cluster.beside_ddl.due(cluster.clock_us):
            self._after_ddl(cluster, waited)
        if cluster.readings.waiting:
            for held in cluster.readings.due(cluster.clock_us):
                self._read_late(cluster, held)
        return self._end(offset)

    def _take(self, cluster: Cluster, header: RawHeader, index: int, event: RawEvent, written_us: int | None) -> None:
        """Take one event, or nothing of it: whatever is wrong with it is its own affair."""
        cluster.undo.begin()
        emitted, clock_us = len(self._out), cluster.clock_us
        try:
            check(event, written_us)
            event = bounded(event)
            captured_us = event.captured_at_us
            if captured_us > clock_us:
                cluster.clock_us = captured_us
            elif captured_us < clock_us - SET_BACK_US:
                cluster.set_back(captured_us, self._grace_us)
                self._tell_clock(cluster, header, clock_us, captured_us)
            if type(event) is Transaction:
                self._transaction(cluster, header, index, event)
            else:
                self._other(cluster, header, event)
        except Exception as error:
            cluster.undo.back()
            del self._out[emitted:]
            cluster.clock_us = clock_us
            # The text of any other error may hold what stood in a row.
            expected = type(error) in (ValueError, OverflowError)
            why = str(error) if expected else unexpected(error)
            database = getattr(event, "database", None)
            cause = "nonsense" if expected else "failed"
            self.refused.append(Problem(cause, f"event {index}: {why}", index, header.cluster, database))

    def set_aside(self, topic: str, problems: list[Problem]) -> list[Event]:
        """Tell what was set aside of the record that was taken last, and what is due of those before."""
        now_us = self._latest_us()
        told = [] if problems else self._aside.due(now_us)
        for problem in problems:
            told += self._aside.add(problem, self._offset, now_us)
        events: list[Event] = []
        for problem, summary in told:
            name = problem.cluster if problem.cluster in self._clusters else OURSELVES
            event = set_aside(name, problem, summary, (topic, self.partition, self.base), now_us)
            event.at = Position(self.partition, self._offset, self._emitted)
            self._emitted += 1
            events.append(event)
        return events

    def _tell_clock(self, cluster: Cluster, header: RawHeader, before_us: int, after_us: int) -> None:
        """Tell that the collectors' clock was put back, or that two of them differ; the latter not each time."""
        if before_us - after_us < SET_BACK_TOLD_US or 0 <= self._offset - cluster.set_back_told < SET_BACK_RECORDS:
            return
        cluster.set_back_told = self._offset
        self._emit(clock_set_back(header, before_us, after_us, (self.partition, self._offset)))

    def _latest_us(self) -> int:
        """Give the latest record time of all clusters, for what belongs to none."""
        return max((cluster.clock_us for cluster in self._clusters.values()), default=0)

    def skip(self, offset: int, said: dict[str, object] | None = None) -> list[Event]:
        """Pass a record that was no batch and went to the dead letters; `said` is by whose order, if by anybody's."""
        if offset < self.next_offset:
            return []
        self.refused, self.failed = [], []
        self._begin(offset, None)
        if said is not None:
            self._emit(record_skipped(said, self._latest_us()))
        return self._end(offset)

    def _begin(self, offset: int, cluster: str | None) -> None:
        self._offset = offset
        if not self._whole:
            self._abandon()
        if offset > self.next_offset:
            self._lost(self.next_offset, offset, cluster)

    def _end(self, offset: int) -> list[Event]:
        out, self._out = self._out, []
        self._emitted = len(out)
        self.next_offset = offset + 1
        return out

    def _emit(self, event: Event) -> None:
        event.at = Position(self.partition, self._offset, len(self._out))
        self._out.append(event)

    def _emit_once(self, cluster: Cluster, event: Event) -> bool:
        """Emit an event unless it was: a collector that crashed sends what it is not sure of again. Says whether."""
        if not cluster.is_new(event.event_id):
            self.dropped += 1
            return False
        self._emit(event)
        return True

    def _cluster(self, name: str) -> Cluster:
        cluster = self._clusters.pop(name, None) or Cluster()
        self._clusters[name] = cluster
        while len(self._clusters) > CLUSTERS_MAX:
            quietest = next(iter(self._clusters))
            while held := self._clusters[quietest].waiting.due(ENDLESS_US):
                self._release(quietest, self._clusters[quietest], held, NOBODY)
            del self._clusters[quietest]
        return cluster

    def _lost(self, first: int, end: int, cluster: str | None) -> None:
        """Records that are no longer in raw are missing evidence, and told as such for every cluster known here."""
        names = sorted(set(self._clusters) | ({cluster} if cluster is not None else set()))
        for name in filter(None, names):
            self._emit(raw_lost(name, self.partition, first, end, self._cluster(name).clock_us))

    # -- transactions ------------------------------------------------------------------------------------------

    def _transaction(self, cluster: Cluster, header: RawHeader, index: int, part: Transaction) -> None:
        timeline = (part.system_id, part.timeline, part.database)
        news = self._news(cluster, header, timeline, part)
        if news is None:
            self.dropped += 1
            return
        part, mark = news
        whose = self._whose(cluster, header, part, mark)
        cluster.relations.change(part)
        if part.forged or part.ddl or len(part.beacons) > 1 or (part.beacons and part.beacons[0].token is not None):
            self._findings(header, part, mark, whose or NOBODY)
            self._ddl(cluster, header, part, mark)
        self._witnesses(cluster, header, part, whose or NOBODY)
        if cluster.log.followed:
            self._beside_log(cluster, header, part, whose or NOBODY)
        key = (timeline, part.lsn)
        held = cluster.waiting.get(key)
        if whose is None and part.n_rows and not self._hold(cluster, header, index, key, part):
            whose = SHADOW if _covered(part) else NOBODY
        if whose is not None:
            if held is not None:
                self._release(header.cluster, cluster, held, whose)
            mark.whose = None if part.last else whose
            if part.n_rows or part.part:
                self._change(cluster, header.cluster, header.instance, part, whose)
        if part.last:
            mark.whole = True
            mark.whose = None

    def _change(self, cluster: Cluster, name: str, instance: str | None, part: Transaction, whose: Attribution) -> None:
        """Tell a part of a transaction, and with its last one how much it took of what was there."""
        event = change_event(name, instance, part, whose)
        who = whose.principal or f"?{whose.role or ''}"
        found = shares.change(cluster.shares, part, who, whose.principal_kind)
        if found:
            event.detail["shares"] = found
        self._emit(event)

    def _news(
        self, cluster: Cluster, header: RawHeader, timeline: Timeline, part: Transaction
    ) -> tuple[Transaction, Watermark] | None:
        """Give what of a part is not known yet, and the mark that has been moved over it; None when it all is."""
        mark = cluster.watermarks.get(timeline)
        check_position(part.lsn, cluster.reached(part.system_id) if mark is None else mark.lsn)
        cluster.keep(timeline, mark if mark is None else copy(mark))
        incarnation = positions.incarnation(mark, part)
        if mark is not None and incarnation > mark.incarnation:
            self._went_back(cluster, header, timeline, mark, part)
            mark = None
        if incarnation != part.incarnation:
            part = replace(part, incarnation=incarnation)
        if mark is None or part.lsn > mark.lsn:
            mark = cluster.begin(timeline, part.lsn)
            mark.incarnation = incarnation
        elif part.lsn < mark.lsn or mark.whole:
            return None
        end = part.first_ordinal + part.n_rows
        if part.first_ordinal < mark.next_ordinal:
            if end <= mark.next_ordinal and not part.last:
                return None
            part = trim(part, mark.next_ordinal)
        mark.next_ordinal = max(end, mark.next_ordinal)
        if part.xid:
            mark.newest_us = max(mark.newest_us, part.committed_at_us)
        return part, mark

    def _went_back(
        self, cluster: Cluster, header: RawHeader, timeline: Timeline, mark: Watermark, part: Transaction
    ) -> None:
        """Begin anew where a server was put back: what it commits from here on has positions that were there before."""
        for held in cluster.waiting.of(timeline):
            self._release(header.cluster, cluster, held, NOBODY)
        cluster.went_back()
        if part.incarnation <= mark.incarnation:  # else its collector has told it
            self._emit(position_went_back(header, part, mark))

    def _whose(self, cluster: Cluster, header: RawHeader, part: Transaction, mark: Watermark) -> Attribution | None:
        """Say whose a transaction is, or None when it may still be found out."""
        decided = mark.whose
        if decided is not None and (decided.binding != "none" or not part.beacons):
            return decided
        proven = bool(part.beacons) and part.beacons[0].authenticated
        if proven:
            conflict = len(part.beacons) > 1 and conflicting(part.beacons)
            where = (header.cluster, part.database, header.instance)
            return cluster.activity.by_beacon(part.beacons[0], where, self.identities, conflict)
        if part.origin is not None:
            return by_origin(part.origin)
        covered = _covered(part) and not part.beacons
        finding = "shadow_write" if covered else None
        if part.ddl and part.ddl[0].beacon.authenticated:
            where = (header.cluster, part.database, header.instance)
            whose = cluster.activity.by_beacon(part.ddl[0].beacon, where, self.identities)
            return replace(whose, finding=finding) if covered else whose
        told = cluster.log.holding(part)
        if told is not None and not cluster.starts.between(told.start_us, part.committed_at_us):
            return by_log(told, header.cluster, self.identities, "xid", finding)
        session = cluster.activity.holding(part.xid)
        if session is not None and not cluster.starts.between(session.backend_start_us, part.committed_at_us):
            return by_session(session, header.cluster, self.identities, "sample", finding)
        if part.beacons or part.ddl:
            # Said without a proof, which anything that is known otherwise outranks.
            said = part.beacons or [part.ddl[0].beacon]
            where = (header.cluster, part.database, header.instance)
            whose = cluster.activity.by_beacon(said[0], where, self.identities, conflicting(part.beacons))
            return replace(whose, finding="shadow_write") if covered else whose
        # Whoever writes past the beacon may still be named by a line of the log that is on its way.
        return SHADOW if covered and not cluster.log.followed else None

    def _findings(self, header: RawHeader, part: Transaction, mark: Watermark, whose: Attribution) -> None:
        for number in range(mark.forged, len(part.forged)):
            self._emit(beacon_forged(header.cluster, header.instance, part, number, whose))
        mark.forged = max(mark.forged, len(part.forged))
        if not mark.refused:
            said = [beacon.token for beacon in (*part.beacons, *(item.beacon for item in part.ddl))]
            token = next((token for token in said if token is not None and claims.refused(token)), None)
            if token is not None:
                mark.refused = True
                self._emit(claim_refused(header.cluster, header.instance, part, token, whose))
        if not mark.conflict and conflicting(part.beacons):
            mark.conflict = True
            self._emit(identity_conflict(header.cluster, header.instance, part, whose))

    def _witnesses(self, cluster: Cluster, header: RawHeader, part: Transaction, whose: Attribution) -> None:
        """Tell what somebody did to those who watch: rows that are not published, a beacon that failed, settings."""
        place = (header.cluster, header.instance, part)
        for item in part.unpublished:
            self._emit(unpublished_event(*place, item, whose))
        for number in range(len(part.silenced)):
            self._emit(beacon_silenced(*place, number, whose))
        if not part.beacons or not part.beacons[0].authenticated or not part.beacons[0].settings:
            return
        found = witnesses.blinding(part.beacons[0].settings, cluster.log_settings.told)
        if found:
            self._emit_once(cluster, session_blinds(*place, found, whose))

    def _beside_log(self, cluster: Cluster, header: RawHeader, part: Transaction, whose: Attribution) -> None:
        """Remember a transaction for lines of the log that come, and tell if a comment contradicted its beacon."""
        cluster.join.committed((part.system_id, part.timeline, part.database), part, whose.pid)
        if part.last:
            self._decided(cluster, cluster.outcomes.committed(part.xid, part.captured_at_us))
        stronger = comments.vouched(whose) if part.beacons and part.beacons[0].authenticated else None
        if stronger is None:
            return
        cluster.log.vouch(part.xid, stronger)
        told = cluster.log.holding(part)
        if told is not None and told.tags:
            self._compare(cluster, header, whose, dict(told.tags), stronger, part.captured_at_us)

    def _compare(
        self,
        cluster: Cluster,
        header: RawHeader,
        whose: Attribution,
        tags: dict[str, str],
        stronger: Vouched | None,
        at_us: int,
    ) -> None:
        """Tell, once a session, that a comment contradicts what is known better."""
        wrong = comments.contradiction(tags, stronger)
        if wrong and stronger is not None:
            found = comment_contradicted(header, whose, tags, stronger, wrong, at_us)
            if cluster.is_new(found.event_id):
                self._emit(found)

    def _ddl(self, cluster: Cluster, header: RawHeader, part: Transaction, mark: Watermark) -> None:
        """Tell each command by the session that its own message names, once."""
        fresh = [item for item in part.ddl if item.number >= mark.ddl]
        own = covering(part.ddl)
        for item in fresh:
            shares.moved(cluster.shares, part.database, cluster.relations.ddl(part.database, item))
            shares.ddl(cluster.shares, part, item, partial(cluster.relations.schemas, part.database))
        cluster.functions.ddl(part.database, fresh, part.committed_at_us)
        cluster.views.ddl(part.database, fresh, part.committed_at_us)
        for item in fresh:
            where = (header.cluster, part.database, header.instance)
            whose = cluster.activity.by_beacon(item.beacon, where, self.identities)
            event = ddl_event(header.cluster, header.instance, part, item, whose)
            if item.number in own:
                event.detail["covering"] = True
            holds = shares.holds(cluster.shares, part.database, event.relations)
            if holds is not None:
                event.detail["holds"] = holds
            mark.ddl = item.number + 1
            cluster.relations.resolve(event)
            self._emit(event)
            less = publications.taken_out(item)
            if less is None or item.number in own:
                continue
            if not part.announced:
                self._emit(publication_changed(header, part, item, less, whose))
            elif less[1] and publications.within(item, part.ddl):
                self._emit(publication_changed(header, part, item, less, whose, publications.UNREAD))
        cluster.told.ddl(part.database, fresh)
        if fresh:
            for event in cluster.beside_ddl.message(part.database, cluster.told):
                self._after_ddl(cluster, event)

    # -- waiting -----------------------------------------------------------------------------------------------

    def _hold(self, cluster: Cluster, header: RawHeader, index: int, key: Key, part: Transaction) -> bool:
        """Keep a part until its transaction's identity is known; False when there is no room for it."""
        if self._grace_us <= 0 or self.held_bytes + size_of(part) > self._held_bytes_max:
            return False
        place = HeldPart(self._offset, index, part.first_ordinal)
        cluster.waiting.hold(key, place, header.instance, part, part.captured_at_us + self._grace_us)
        return True

    def _release(self, name: str, cluster: Cluster, held: Held, whose: Attribution) -> None:
        """Let a held transaction go; later parts of it go the same way. Past the beacon that is told too."""
        if whose.binding != "beacon" and any(part is not None and _covered(part) for _, _, part in held.parts):
            whose = replace(whose, finding="shadow_write")
        cluster.waiting.release(held)
        cluster.join.named(held, whose)
        timeline, lsn = held.key
        mark = cluster.watermarks.get(timeline)
        if mark is not None and mark.lsn == lsn and not mark.whole:
            mark.whose = whose
        for _, instance, part in held.parts:
            if part is not None:
                self._change(cluster, name, instance, part, whose)

    def _expire(self, name: str, cluster: Cluster) -> None:
        while held := cluster.waiting.due(cluster.clock_us):
            emitted = len(self._out)
            try:
                found = cluster.join.decide(held, cluster.log_settings.announced)
                whose = NOBODY if found is None else by_log(found[0], name, self.identities, found[1])
                self._release(name, cluster, held, whose)
            except Exception as error:
                del self._out[emitted:]
                if cluster.waiting.get(held.key) is held:
                    cluster.waiting.release(held)
                offset = held.parts[0][0].offset - self.base if held.parts else -1
                why = f"what waited since offset {offset}: {unexpected(error)}"
                self.failed.append(Problem("failed", why, None, name, held.database))

    # -- everything else ---------------------------------------------------------------------------------------

    def _other(self, cluster: Cluster, header: RawHeader, event: RawEvent) -> None:
        match event:
            case Tick():
                if header.source == "log":
                    cluster.readings.looked(header.instance, event.captured_at_us)
            case Session():
                self._session(cluster, header, event)
            case Statement():
                self._statement(cluster, header, event)
            case QueryStats():
                self._reading(cluster, header, event, statistics_id(header, event))
            case IdentitiesRecord():
                self._rename(event)
            case Posture():
                self._posture(cluster, header, event)
            case Gap() | Control():
                cluster.coverage.gap(event, header.instance)
                if isinstance(event, Gap) and header.source == "log":
                    cluster.posture.lost(event.captured_at_us)
                    cluster.handles.lost()
                    self._decided(cluster, cluster.outcomes.lost(event.captured_at_us))
                cluster.starts.see(event)
                cluster.told.announced(event)
                self._emit_once(cluster, observed_event(header, event, self._announced(header.cluster, event)))
            case Transaction():  # pragma: no cover - `apply` takes these
                raise AssertionError(event)

    def _posture(self, cluster: Cluster, header: RawHeader, event: Posture) -> None:
        if event.object_type == ASKED:
            self._decided(cluster, cluster.outcomes.answered(event))
            return
        if (
            cluster.relations.posture(event)
            or cluster.functions.posture(event)
            or cluster.views.posture(event)
            or shares.posture(cluster.shares, event)
        ):
            return
        cluster.coverage.posture(event)
        self._reading(cluster, header, event, observed_event(header, event).event_id)
        cluster.log_settings.see(event)

    def _announced(self, cluster: str, event: Gap | Control) -> Attribution:
        """Name who installed, paused, resumed or removed the beacon; of anything else nobody is known."""
        role, database = event.detail.get("role"), event.database
        if not (isinstance(event, Control) and event.operation.startswith("beacon_")):
            return NOBODY
        if not isinstance(role, str) or database is None:
            return NOBODY
        return by_announcement(cluster, database, role, self.identities)

    def _is_news(self, cluster: Cluster, header: RawHeader, place: LogPlace) -> bool:
        """Say whether an event of the log was not told yet; with the first one the log is followed."""
        if not cluster.log.followed:
            cluster.join.begin(cluster.clock_us)
            cluster.posture.lost(cluster.clock_us)
        known = cluster.log.is_known(header.instance, place)
        self.dropped += known
        return not known

    def _statement(self, cluster: Cluster, header: RawHeader, event: Statement) -> None:
        if not self._is_news(cluster, header, event.place):
            return
        if event.source == "imitated":
            whose = by_log(log_session(event, header.instance), header.cluster, self.identities, "own")
            self._emit(log_imitated(header, event, whose))
            return
        session = cluster.log.see(event, header.instance)
        cluster.readings.line(header.instance, event.occurred_at_us)
        known = facts(event.statement, freed=True) if event.statement is not None else None
        event_id = line_id(header, event.place)
        cluster.join.statement(event, session, known)
        cluster.posture.statement(event, session, event_id, event.parsed or known)
        if event.xid is not None and event.role is not None:
            held = cluster.waiting.with_xid(event.xid)
            earlier = held is not None and cluster.starts.between(session.start_us, held.committed_us)
            if held is not None and not earlier and session.database in (None, held.database):
                self._release(header.cluster, cluster, held, by_log(session, header.cluster, self.identities, "xid"))
        whose = cluster.log.own(session, header.cluster, self.identities)
        told = statement_event(header, event, event_id, known, whose)
        if known is not None and (known.handles or not _ENDS.isdisjoint(known.operations)):
            put_targets(told, cluster.run_by_name(event, session, known))
        cluster.through(told, session)
        cluster.relations.resolve(told, session)
        cluster.relations.ran(told, session)
        cluster.views.ran(told)
        shares.by_effect(cluster.shares, told)
        cluster.coverage.statement(told)
        if event.outcome == "success" and event.source in _run_lines(cluster):
            cluster.stats.statement(told, session, another=cluster.relations.is_another(session))
        if event.tags:
            stronger = cluster.log.vouched(event.xid) or comments.vouched(whose)
            self._compare(cluster, header, whose, event.tags, stronger, event.captured_at_us)
        if told.detail.get(OWN) is True:
            cluster.told.proven(told.database or "")
        cluster.young.statement(told)  # no transaction block has CREATE DATABASE: its line of success is its outcome
        words = transaction_words(event, known)
        self._decided(cluster, cluster.outcomes.statement(event, session, words, told, cluster.log_settings.sees_ends))

    def _decided(self, cluster: Cluster, events: list[Event]) -> None:
        """Emit statements whose outcome is known now, or pending."""
        for event in events:
            cluster.told.statement(event)
            if event.outcome == "rolled_back":
                cluster.stats.rolled_back(event)
            if not cluster.beside_ddl.wait(event, cluster.clock_us):
                self._emit(event)

    def _after_ddl(self, cluster: Cluster, event: Event) -> None:
        """Tell a statement that has waited; what it names may have been made meanwhile, by the WAL."""
        if cluster.relations.again(event):
            cluster.views.ran(event)
        shares.by_effect(cluster.shares, event)
        self._emit(event)

    def _session(self, cluster: Cluster, header: RawHeader, event: Session) -> None:
        if event.place is not None:
            if not self._is_news(cluster, header, event.place):
                return
            session = log_session(event, header.instance)
            cluster.readings.line(header.instance, event.occurred_at_us)
            if event.operation == "connect":
                cluster.outcomes.begins(session)
                if event.trust != "claimed":
                    cluster.activity.logged_in(event)
            if event.operation == "disconnect":
                cluster.join.ends(session, event.occurred_at_us)
                cluster.posture.ends(session, event.occurred_at_us)
                cluster.handles.ends(session)
                cluster.relations.ends(session)
                self._decided(cluster, cluster.outcomes.ends(session, event.captured_at_us))
            whose = by_log(session, header.cluster, self.identities, "own")
            claimed = whose.principal
            if event.operation == "login_failed":
                whose = attempted(whose)
            told = session_event(header, event, whose, claimed)
            cluster.refusals.see(event, told)
            self._emit(told)
            return
        seen = cluster.activity.see(event, header.instance)
        held = cluster.waiting.with_xid(event.xid) if event.xid is not None else None
        earlier = held is not None and cluster.starts.between(seen.backend_start_us, held.committed_us)
        if held is not None and held.xid == event.xid and not earlier:
            whose = by_session(seen, header.cluster, self.identities, "sample")
            self._release(header.cluster, cluster, held, whose)
        if event.operation != "sample":
            whose = by_session(seen, header.cluster, self.identities, "own")
            told = session_event(header, event, whose)
            if self._emit_once(cluster, told):
                cluster.refusals.see(event, told)

    def _reading(self, cluster: Cluster, header: RawHeader, raw: Posture | QueryStats, event_id: str) -> None:
        """Take up what was read from the server, once; what the log may explain waits for it."""
        if not cluster.is_new(event_id):
            self.dropped += 1
        elif (held := readings.take(cluster, header, raw, self._grace_us)) is not None:
            self._read(cluster, held)

    def _read(self, cluster: Cluster, held: HeldReading) -> None:
        """Tell what was read from the server, and what shows by it."""
        first, *more = readings.tell(cluster, held, self.identities)
        self._emit(first)
        for event in more:
            self._emit_once(cluster, event)

    def _read_late(self, cluster: Cluster, held: HeldReading) -> None:
        """Tell a reading that has waited; should that fail, it is its own affair."""
        emitted = len(self._out)
        cluster.undo.begin()
        try:
            self._read(cluster, held)
        except Exception as error:
            cluster.undo.back()
            del self._out[emitted:]
            why = f"a reading of {held.header.source} that waited: {unexpected(error)}"
            self.failed.append(Problem("failed", why, None, held.header.cluster, held.raw.database))

    def _rename(self, record: IdentitiesRecord) -> None:
        if record.sha256 == self.identities.sha256:
            return
        try:
            self.identities = Identities.parse(record.content)
            error = None
        except ConfigurationError as refused:
            error = str(refused)
        for cluster in self._clusters.values():
            cluster.activity.forget_names()
            cluster.log.forget_names()
        for name in sorted(name for name in self._clusters if name not in ("", OURSELVES)):
            self._emit(identities_changed(name, record, self.partition, self._offset, error))

    # -- checkpoints -------------------------------------------------------------------------------------------

    @property
    def clusters(self) -> list[str]:
        """The clusters that are known."""
        return [name for name in self._clusters if name]

    @property
    def held(self) -> int:
        """How many transactions wait."""
        return sum(len(cluster.waiting) for cluster in self._clusters.values())

    @property
    def held_bytes(self) -> int:
        """How many bytes of rows wait."""
        return sum(cluster.waiting.bytes for cluster in self._clusters.values())

    @property
    def resume_from(self) -> int:
        """The raw offset to read from after `restore`: the oldest held part's, or `next_offset`."""
        offsets = [offset for cluster in self._clusters.values() for offset in cluster.waiting.offsets()]
        return min([*offsets, self.next_offset])

    def snapshot(self) -> bytes:
        """Give the state after the last record, as JSON."""
        return checkpoint.encode(
            FoldState(
                version=1,
                partition=self.partition,
                next_offset=self.next_offset,
                identities=self.identities.content,
                clusters={name: cluster.save() for name, cluster in self._clusters.items()},
                aside=self._aside,
            )
        )

    @classmethod
    def restore(
        cls, data: bytes, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX, *, partition: int | None = None
    ) -> Fold:
        """Make the fold of a checkpoint, of a certain partition if that is given.

        Raises `ValueError` or another error of a lookup when the checkpoint is none, or cannot be true.
        """
        state = checkpoint.decode(data)
        checkpoint.check(state, partition)
        fold = cls(state.partition, Identities.parse(state.identities), grace_us, held_bytes_max)
        fold.next_offset = state.next_offset
        fold._clusters = {name: Cluster.load(saved) for name, saved in state.clusters.items()}
        fold._whole = not fold.held
        fold._aside = state.aside
        return fold

    def rehydrate(self, offset: int, batch: RawBatch) -> None:
        """Take a record from before `next_offset` again, only to refill what is held."""
        for cluster in self._clusters.values():
            cluster.waiting.refill(offset, batch)

    def _abandon(self) -> None:
        """Held parts that raw no longer has cannot come back: say so, and go on."""
        self._whole = True
        missing = [offset for cluster in self._clusters.values() for offset in cluster.waiting.missing]
        for name in sorted(self._clusters):
            cluster = self._clusters[name]
            gone = cluster.waiting.incomplete()
            if gone and missing:
                self._emit(raw_lost(name, self.partition, min(missing), max(missing) + 1, cluster.clock_us))
            for held in gone if missing else ():
                self._release(name, cluster, held, NOBODY)


def _run_lines(cluster: Cluster) -> tuple[str, ...]:
    """Give the kinds of lines of which each run of a statement has one."""
    source = cluster.coverage.source
    return RUN_LINES if source is None else (source,)


def _covered(part: Transaction) -> bool:
    """Say whether a part changed a table that carries a beacon."""
    return any(relation.beacon for relation in part.relations)
