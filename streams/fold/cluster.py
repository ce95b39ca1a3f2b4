"""What the fold knows of one cluster; everything is bounded and forgotten oldest first."""

from __future__ import annotations

from pgwitness.core.events import Event, Statement
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Handle
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.ddl_seen import DdlSeen
from streams.fold.hold_buffer import HoldBuffer
from streams.fold.joins.beside_ddl import BesideDdl
from streams.fold.joins.drift import Drift
from streams.fold.joins.log_join import LogJoin
from streams.fold.joins.log_wait import LogWait
from streams.fold.joins.posture_join import PostureJoin
from streams.fold.joins.stats_join import StatsJoin
from streams.fold.log_coverage import LogCoverage
from streams.fold.log_settings import LogSettings
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.shares import Shares
from streams.fold.memory.transactions import Timeline, Watermark
from streams.fold.outcome.outcomes import Outcomes
from streams.fold.schema.functions import Functions
from streams.fold.schema.new_databases import NewDatabases
from streams.fold.schema.relations import Relations
from streams.fold.schema.views import Views
from streams.fold.sessions.activity import Activity
from streams.fold.sessions.handles import Handles
from streams.fold.sessions.refusals import Refusals
from streams.fold.sessions.server_log import ServerLog
from streams.fold.sessions.spools import Spools
from streams.fold.sessions.starts import Starts

TIMELINES_MAX = 1_000
RECENT_MAX = 8_192
"""Ids of events other than changes that are remembered: more than any collector sends again after a crash."""
RECENT_LETTERS = 16
NEVER = -(1 << 60)


class Cluster:
    """Its time, how far it was read, its sessions, its log, and what waits."""

    def __init__(self) -> None:
        self.clock_us = 0
        self.set_back_reported = NEVER
        """The record at which it was last reported that a clock was put back."""
        self.watermarks: dict[Timeline, Watermark] = {}
        self.recent: dict[str, None] = {}
        self.undo = Undo()
        self.activity = Activity()
        self.log = ServerLog(self.undo)
        self.log_settings = LogSettings()
        self.join = LogJoin()
        self.posture = PostureJoin()
        self.stats = StatsJoin()
        self.readings = LogWait()
        self.waiting = HoldBuffer(self.undo)
        self.ddl_seen = DdlSeen()
        self.handles = Handles()
        self.relations = Relations()
        self.functions = Functions()
        self.views = Views()
        self.coverage = LogCoverage()
        self.shares = Shares()
        self.outcomes = Outcomes(self.undo)
        self.beside_ddl = BesideDdl(self.undo)
        self.new_databases = NewDatabases(self.undo)
        self.refusals = Refusals(self.undo)
        self.drift = Drift(self.undo)
        self.starts = Starts()
        self.spools = Spools(self.undo)

    def reached(self, system_id: str) -> int | None:
        """Return how far a server's WAL was read, in whichever database; None when nothing of it was."""
        return max((mark.lsn for timeline, mark in self.watermarks.items() if timeline[0] == system_id), default=None)

    def set_back(self, now_us: int, grace_us: int) -> None:
        """Take up that a collector's clock was put back: what waits, waits no longer than from now on.

        A clock that only grew would keep what was captured in between waiting for as long as it had been ahead, and let
        nothing after it wait at all.
        """
        self.clock_us = now_us
        self.waiting.shorten(now_us + grace_us)
        self.readings.shorten(now_us + grace_us)

    def keep(self, timeline: Timeline, mark: Watermark | None) -> None:
        """Take down how far a timeline was read, should the event that moves it fail."""
        self.undo.add(lambda: self._set(timeline, mark))

    def _set(self, timeline: Timeline, mark: Watermark | None) -> None:
        if mark is None:
            self.watermarks.pop(timeline, None)
        else:
            self.watermarks[timeline] = mark

    def begin(self, timeline: Timeline, lsn: int) -> Watermark:
        """Begin a transaction that lies behind all that was read."""
        before = self.watermarks.get(timeline)
        mark = Watermark(lsn, 0, False)
        if before is not None:
            mark.newest_us, mark.incarnation = before.newest_us, before.incarnation
        if timeline not in self.watermarks:
            evict_oldest(self.watermarks, TIMELINES_MAX)
        self.watermarks[timeline] = mark
        return mark

    def went_back(self) -> None:
        """Forget whose transaction ids were: those of a server that was put back come again."""
        self.activity.forget_xids()
        self.log.forget_xids()
        self.outcomes.forget_xids()
        self.drift.forget_xids()

    def is_new(self, event_id: str) -> bool:
        """Return whether an event was not reported yet; now it is."""
        key = event_id[:RECENT_LETTERS]
        if key in self.recent:
            return False
        evict_oldest(self.recent, RECENT_MAX)
        self.recent[key] = None
        self.undo.add(lambda: self.recent.pop(key, None))
        return True

    def run_by_name(self, event: Statement, session: LogSession, known: StatementFacts) -> list[Handle]:
        """Return the targets of the names that a statement of the log runs, where nothing better is known."""
        ran = self.handles.statement(
            session,
            known,
            failed=event.outcome in ("failure", "denied"),
            ended=event.outcome == "success",
            complete=self.log_settings.transactions and event.trust != "claimed",
        )
        return ran if event.parsed is None else []

    def through(self, event: Event, session: LogSession | None = None) -> None:
        """Put what the functions that a statement calls run into its event."""
        if event.detail.get("functions"):
            self.functions.ran(event, self.relations.path(event, session))

    def save(self) -> ClusterCheckpoint:
        """Return the state for a checkpoint."""
        state = ClusterCheckpoint(
            clock_us=self.clock_us,
            set_back_reported=self.set_back_reported,
            watermarks=list(self.watermarks.items()),
            held=self.waiting.save(),
            recent=list(self.recent),
            ddl_seen=self.ddl_seen.items(),
            log_settings=self.log_settings.values,
            log_coverage=self.coverage.state,
            runs=self.stats.items(),
            shares=self.shares,
            starts=self.starts.at_us,
        )
        self.activity.save(state)
        self.functions.save(state)
        self.views.save(state)
        self.log.save(state)
        self.spools.save(state)
        self.join.save(state)
        self.posture.save(state)
        self.readings.save(state)
        self.handles.save(state)
        self.relations.save(state)
        self.outcomes.save(state)
        self.drift.save(state)
        self.beside_ddl.save(state)
        self.new_databases.save(state)
        self.refusals.save(state)
        return state

    @classmethod
    def load(cls, state: ClusterCheckpoint) -> Cluster:
        """Make the cluster of a checkpoint."""
        cluster = cls()
        cluster.clock_us = state.clock_us
        cluster.set_back_reported = state.set_back_reported
        cluster.watermarks = dict(state.watermarks)
        cluster.recent = dict.fromkeys(state.recent)
        cluster.ddl_seen = DdlSeen(state.ddl_seen)
        cluster.activity.load(state)
        cluster.log.load(state)
        cluster.spools.load(state)
        cluster.log_settings = LogSettings(state.log_settings)
        cluster.coverage = LogCoverage.load(state.log_coverage, state.log_settings)
        cluster.join.load(state)
        cluster.posture.load(state)
        cluster.readings.load(state)
        cluster.handles.load(state)
        cluster.relations.load(state)
        cluster.functions.load(state)
        cluster.views.load(state)
        cluster.shares = state.shares
        cluster.starts = Starts(state.starts)
        cluster.outcomes.load(state)
        cluster.drift.load(state)
        cluster.beside_ddl.load(state)
        cluster.new_databases.load(state)
        cluster.refusals.load(state)
        cluster.stats = StatsJoin(state.runs)
        cluster.waiting.load(state.held)
        return cluster
