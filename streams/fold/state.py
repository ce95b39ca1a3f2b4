"""What the fold remembers between records, as it stands in a checkpoint: small, plain, versioned.

Held transactions are not in it but references to where they stand in `raw` (`HeldPart`); `streams.fold.waiting` fills
them again by reading raw from the oldest reference. Every collection is a list in the order the fold keeps it, so that
a restored fold forgets the same things at the same time as one that was never interrupted.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from pgwitness.core.events import (
    Assurance,
    Binding,
    Certainty,
    Certificate,
    Event,
    Outcome,
    Posture,
    PrincipalKind,
    QueryStats,
    RawHeader,
    Token,
    Trust,
)
from pgwitness.core.sql.parsetree import Handle
from streams.aside import Aside
from streams.fold.log_coverage import State
from streams.fold.sanity import LSN_MAX, TIME_US_MAX
from streams.fold.shares import Shares

STATE_VERSION = 1
POSITION_MAX = 1 << 53
"""No offset is beyond."""

SessionKey = tuple[int, int]
"""A session within a cluster: pid and backend start (µs); two backends never share both."""
Timeline = tuple[str, int, str]
"""What positions grow in: system id, timeline, database."""


Join = Literal["xid", "session_time", "statement", "count"]
"""How lines of the log were joined: to a transaction by its id, or by session and time; to posture by what they say; to
statistics by how often they say it."""


class Attribution(Struct, frozen=True, array_like=True):
    """Whose a transaction or session is; the fields are those of `Event`. `finding` goes into its `detail`."""

    principal: str | None = None
    principal_kind: PrincipalKind = "unknown"
    on_behalf_of: str | None = None
    peer_group: str | None = None
    binding: Binding = "none"
    certainty: Certainty = "none"
    assurance: Assurance = "none"
    identity_rule: str | None = None
    role: str | None = None
    effective_role: str | None = None
    application: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    pid: int | None = None
    auth_method: str | None = None
    session_id: str | None = None
    claim: str | None = None
    owner: str | None = None
    finding: str | None = None
    agent: dict[str, object] | None = None
    trace_id: str | None = None
    token: Token | None = None
    join: Join | None = None
    became: str | None = None
    network: str | None = None


class Vouched(Struct, frozen=True, array_like=True):
    """Who a transaction is of by evidence that is stronger than a comment; `names` are all that act in it."""

    principal: str
    kind: PrincipalKind
    on_behalf_of: str | None
    names: tuple[str, ...] = ()


class KnownSession(Struct, frozen=True, array_like=True):
    """A session as pg_stat_activity showed it."""

    pid: int
    backend_start_us: int
    instance: str | None
    role: str | None
    database: str | None
    application: str
    client_addr: str | None
    client_port: int | None
    auth_method: str | None
    certificate: Certificate | None = None


class LogSession(Struct, frozen=True, array_like=True):
    """A session as one line of the server's log told it; None is not known, a `local` address is the Unix socket.

    `sure`: the server wrote it, as far as can be told, in a format into which nobody can write lines of his own. `tags`
    are what a comment behind the statement says. `trust` is that of the line (`pgwitness.core.events.Trust`).
    """

    pid: int
    start_us: int | None
    instance: str | None
    role: str | None
    database: str | None
    application: str | None
    client_addr: str | None
    client_port: int | None
    auth_method: str | None
    sure: bool
    tags: tuple[tuple[str, str], ...] = ()
    trust: Trust = "likely"


class Watermark(Struct, array_like=True):
    """How far one timeline of one database has been read: the commit LSN, the ordinal that comes next, whether whole.

    While a transaction is not whole: `forged` messages already told, whether the conflict was told, whose it is,
    how many of its commands (`ddl`) were told, and whether the refusal of a token was. `newest_us` is the latest commit
    that was read, 0 where that is not known; `incarnation` the server's (`streams.fold.positions`).
    """

    lsn: int
    next_ordinal: int
    whole: bool
    forged: int = 0
    conflict: bool = False
    whose: Attribution | None = None
    ddl: int = 0
    refused: bool = False
    newest_us: int = 0
    incarnation: int = 0


class Ran(Struct, array_like=True):
    """A statement that the log told without a transaction id: when it ran (µs), and what it may have committed.

    `end_us` is the last moment that it can have committed. `alone`: nobody else had a statement in progress.
    `relations` are those it names, if it writes; `inserts`: it made a row, if nothing took it away.
    """

    session: LogSession
    start_us: int
    end_us: int
    alone: bool
    relations: tuple[str, ...]
    inserts: bool


class Committed(Struct, array_like=True):
    """A transaction: when and where it was committed, the relations it inserted into, whose process that was."""

    at_us: int
    timeline: Timeline
    lsn: int
    inserted: list[str]
    pid: int | None = None

    @property
    def start_us(self) -> int:
        """A commit is a moment: its beginning."""
        return self.at_us

    @property
    def end_us(self) -> int:
        """A commit is a moment: its end."""
        return self.at_us


class Did(Struct, array_like=True):
    """A statement of the log that may have changed posture: when it was at work (µs), and what the parser said of it.

    `end_us` is the last moment at which it can have been committed: a transaction that is open has no end yet.
    `sure`: nothing says that it failed or was rolled back. `ended`: its end is known, else only its announcement.
    `used_us` is the end of the two looks between which it had its effect, 0 before that is known.
    """

    session: LogSession
    start_us: int
    end_us: int
    text: str | None
    operations: tuple[str, ...]
    relations: tuple[str, ...]
    objects: tuple[str, ...]
    settings: tuple[str, ...]
    event_id: str
    sure: bool = True
    ended: bool = True
    used_us: int = 0


class Waiting(Struct, array_like=True):
    """A statement whose outcome is open: its event, when it has waited long enough, what is decided of its parts.

    `left` parts are open; `told`: it went on as pending.
    """

    event: Event
    due_us: int
    left: int = 1
    results: list[Outcome] = []
    told: bool = False


class OpenTransaction(Struct, array_like=True):
    """A session's transaction: its virtual id, what waits in it, and what may take that back.

    `begun`: a BEGIN was seen. `failed`: an ERROR stands. `known`: the session was seen before, so a BEGIN would have
    been. `entries` are places in `items`, -1 once decided; `marks` are savepoints and the entry that came next.
    `announced` are words of a text of which only the beginning is logged. `doubtful`: the text that would have begun it
    failed.
    """

    vxid: str | None
    begun: bool = False
    failed: bool = False
    known: bool = False
    xid: int | None = None
    items: list[Waiting] = []
    entries: list[int] = []
    marks: list[tuple[str, int]] = []
    announced: tuple[str, ...] = ()
    doubtful: bool = False
    lost: bool = False
    """It has ended, and how only the server can say, by its id."""


class Runs(Struct, array_like=True):
    """How often the log told a statement of a role in one second, and by whom.

    `session` is the last that ran it, `name` its principal and the person that acted for. `several` sessions ran it;
    `mixed`, if not all of them have that name. `undone` of them were rolled back, `temporary` ran on such tables alone.
    """

    second: int
    count: int
    session: LogSession
    name: tuple[str | None, str | None]
    several: bool = False
    mixed: bool = False
    undone: int = 0
    temporary: int = 0


class Prepared(Struct, frozen=True, array_like=True):
    """What stands behind a name of a session; None where nobody knows."""

    instance: str | None
    pid: int
    start_us: int
    sort: str
    name: str
    handle: Handle | None


class Place(Struct):
    """What a session has changed of where names are looked up.

    `path` is None for the one of its role, empty where nobody knows it. `temporary` are its tables, false where one may
    have gone. `another`: another role than the one that logged in may be in force.
    """

    path: tuple[str, ...] | None = None
    temporary: dict[str, bool] = {}
    another: bool = False


class Places(Struct, frozen=True):
    """Relations by database and name, databases of which all are known, lists that are not whole, paths, sessions.

    `doubtful` are names by database that may mean something else than is known.
    """

    full: list[tuple[str, str]] = []
    complete: list[str] = []
    listed: list[tuple[str, list[str]]] = []
    paths: list[tuple[str, tuple[str, ...]]] = []
    sessions: list[tuple[tuple[str | None, int, int | None], Place]] = []
    doubtful: list[tuple[str, str]] = []


class FunctionBody(Struct, frozen=True, array_like=True):
    """What a function runs, as read at a moment of the server's clock; `certain`: all of it, whenever it is called."""

    at_us: int
    certain: bool
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


class ViewBody(Struct, frozen=True, array_like=True):
    """What a view reads, as read at a moment of the server's clock; `whole`: it leaves no row out.

    `shown` are the names of the view's own columns.
    """

    at_us: int
    whole: bool
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


class HeldReading(Struct, frozen=True, array_like=True):
    """What a snapshot found or the statistics counted, and until when (record time, µs) it waits for the log.

    `whole`: until then every session's statements were logged, COMMIT and ROLLBACK too.
    """

    header: RawHeader
    raw: Posture | QueryStats
    due_us: int
    whole: bool

    @property
    def instance(self) -> str | None:
        """Where it was read."""
        return self.header.instance

    @property
    def chars(self) -> int:
        """How long the text is that waits with it."""
        return len(self.raw.statement or "") if isinstance(self.raw, QueryStats) else 0


class HeldPart(Struct, frozen=True, array_like=True):
    """Where a held part stands in raw: offset, place in the batch, and its first ordinal after trimming."""

    offset: int
    index: int
    first_ordinal: int


class HeldState(Struct, frozen=True, array_like=True):
    """A held transaction: where its parts stand and until when (record time, µs) it waits."""

    timeline: Timeline
    lsn: int
    xid: int
    due_us: int
    parts: list[HeldPart]
    incarnation: int = 0


class ClusterState(Struct):
    """What is remembered of one cluster; `recent` are the beginnings of ids of events other than changes.

    `told` is what DDL has said and others will say again (`streams.fold.told`).
    """

    clock_us: int
    watermarks: list[tuple[Timeline, Watermark]]
    sessions: list[KnownSession] = []
    xids: list[tuple[int, SessionKey]] = []
    logins: list[tuple[SessionKey, str]] = []
    """As whom sessions logged in by the log, by pid and start in seconds."""
    held: list[HeldState] = []
    recent: list[str] = []
    logs: list[tuple[tuple[str | None, str], tuple[int, int]]] = []
    log_sessions: list[LogSession] = []
    log_xids: list[tuple[int, int]] = []
    """Transaction ids modulo 2^32 that the log named, each with the place of its session in `log_sessions`."""
    told: list[tuple[str, int]] = []
    vouched: list[tuple[int, int]] = []
    """Transaction ids modulo 2^32, each with the place in `vouchers` of who it is known to be of."""
    vouchers: list[Vouched] = []
    ran: list[Ran] = []
    committed: list[Committed] = []
    forgotten_until_us: int = 0
    log_settings: dict[str, str] = {}
    log_coverage: State | None = None
    did: list[Did] = []
    did_begun: list[tuple[str | None, int, int | None]] = []
    """Sessions that are in a transaction which they have begun."""
    did_forgotten_until_us: int = 0
    readings: list[HeldReading] = msgspec.field(default_factory=list, name="postures")
    log_lines: list[tuple[str | None, int]] = []
    log_looks: list[tuple[str | None, int]] = []
    """How far the log of each instance was read, by the server's clock and by the collector's."""
    starts: list[int] = []
    """When the servers began, by their clocks (`streams.fold.sessions.starts`)."""
    runs: list[tuple[str, list[Runs]]] = []
    """What the log told and the statistics have not counted yet, by statement and role
    (`streams.fold.joins.stats_join`)."""
    relations: Places = Places()
    prepared: list[Prepared] = []
    """What stands behind the names of prepared statements and cursors (`streams.fold.sessions.handles`)."""
    functions: list[tuple[tuple[str, str], FunctionBody]] = []
    """What functions run, by database and name (`streams.fold.functions`)."""
    views: list[tuple[tuple[str, str], ViewBody]] = []
    """What views read, likewise (`streams.fold.views`)."""
    shares: Shares = msgspec.field(default_factory=Shares)
    """How many rows relations hold, and how much of them went (`streams.fold.shares`)."""
    open: list[tuple[tuple[str | None, int, int | None], OpenTransaction]] = []
    open_seen: list[tuple[tuple[str | None, int, int | None], bool]] = []
    wal_xids: list[int] = []
    open_due_us: int = 0
    open_asked: bool = False
    beside_ddl: list[tuple[int, Event]] = []
    ddl_databases: list[str] = []
    """Commands that wait for their DDL message, and databases that send such (`streams.fold.joins.beside_ddl`)."""
    young: list[tuple[str, tuple[str, int]]] = []
    """Databases that were just made, by whom and when (`streams.fold.young`)."""
    refusals: list[tuple[str, tuple[tuple[int, str | None], ...]]] = []
    """Refused logins by the role that was claimed (`streams.fold.refusals`)."""
    """Statements whose outcome is open, and what decides it (`streams.fold.outcome.outcomes`)."""
    set_back_told: int = -(1 << 60)
    """The record at which it was last told that a clock was put back."""


class FoldState(Struct, frozen=True):
    """A whole checkpoint; `next_offset` is the first raw offset that is not in it."""

    version: Literal[1]
    partition: int
    next_offset: int
    identities: str
    clusters: dict[str, ClusterState]
    aside: Aside = msgspec.field(default_factory=Aside)


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(FoldState)


def decode(data: bytes) -> FoldState:
    """Read a checkpoint. Raises `msgspec.DecodeError` or `msgspec.ValidationError` on anything else."""
    return _decoder.decode(data)


def check(state: FoldState, partition: int | None) -> None:
    """Raise `ValueError` when a checkpoint cannot be true: of another partition, or with positions that cannot be."""
    if partition is not None and state.partition != partition:
        raise ValueError(f"a checkpoint of partition {state.partition}")
    if not 0 <= state.next_offset <= POSITION_MAX:
        raise ValueError(f"a checkpoint of offset {state.next_offset}")
    for cluster in state.clusters.values():
        if any(not 0 <= mark.lsn <= LSN_MAX for _, mark in cluster.watermarks):
            raise ValueError("a checkpoint with a position in the WAL that no server has")
        if any(not 0 <= reached[0] <= POSITION_MAX for _, reached in cluster.logs):
            raise ValueError("a checkpoint with a place in a log that no log has")
        if not 0 <= cluster.clock_us <= TIME_US_MAX:
            raise ValueError("a checkpoint with a time that cannot be")
