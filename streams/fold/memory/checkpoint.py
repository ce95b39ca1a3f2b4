"""A whole checkpoint of the fold: small, plain, versioned.

Held transactions are not in it but references to where they stand in `raw` (`HeldPart`); the buffer in which they wait
is filled again by reading raw from the oldest reference. Every collection is a list in the order the fold keeps it, so
that a restored fold forgets the same things at the same time as one that was never interrupted.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from pgwitness.core.events import (
    Event,
)
from streams.aside import Aside
from streams.fold.log_coverage import LogCounts
from streams.fold.memory.attribution import Corroborated
from streams.fold.memory.sessions import Came, KnownSession, LogSession, Places, Prepared, SessionKey
from streams.fold.memory.shares import Shares
from streams.fold.memory.statements import Committed, Did, FunctionBody, HeldReading, Ran, Runs, ViewBody
from streams.fold.memory.transactions import (
    Approved,
    HeldTransaction,
    OpenTransaction,
    Timeline,
    Watermark,
    Written,
)
from streams.fold.sanity import LSN_MAX, TIME_US_MAX

POSITION_MAX = 1 << 53
"""No offset is beyond."""


class ClusterCheckpoint(Struct):
    """What is remembered of one cluster; `recent` are the beginnings of ids of events other than changes.

    `ddl_seen` is what DDL has said and others will say again (`streams.fold.ddl_seen`).
    """

    clock_us: int
    watermarks: list[tuple[Timeline, Watermark]]
    sessions: list[KnownSession] = []
    xids: list[tuple[int, SessionKey]] = []
    logins: list[tuple[SessionKey, str]] = []
    """As whom sessions logged in by the log, by pid and start in seconds."""
    held: list[HeldTransaction] = []
    recent: list[str] = []
    logs: list[tuple[tuple[str | None, str], tuple[int, int]]] = []
    came: list[tuple[SessionKey, Came]] = []
    spools: list[tuple[str, tuple[int, int]]] = []
    log_sessions: list[LogSession] = []
    log_xids: list[tuple[int, int]] = []
    """Transaction ids modulo 2^32 that the log named, each with the place of its session in `log_sessions`."""
    ddl_seen: list[tuple[str, int]] = msgspec.field(default_factory=list, name="told")
    corroborated: list[tuple[int, int]] = msgspec.field(default_factory=list, name="vouched")
    """Transaction ids modulo 2^32, each with the place in `corroborations` of who it is known to be of."""
    corroborations: list[Corroborated] = msgspec.field(default_factory=list, name="vouchers")
    ran: list[Ran] = []
    committed: list[Committed] = []
    forgotten_until_us: int = 0
    log_settings: dict[str, str] = {}
    log_coverage: LogCounts | None = None
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
    """What the log reported and the statistics have not counted yet, by statement and role
    (`streams.fold.joins.stats_join`)."""
    relations: Places = Places()
    prepared: list[Prepared] = []
    """The targets of the names of prepared statements and cursors (`streams.fold.sessions.handles`)."""
    functions: list[tuple[tuple[str, str], FunctionBody]] = []
    """What functions run, by database and name (`streams.fold.schema.functions`)."""
    made_functions: list[tuple[tuple[str, str], FunctionBody]] = []
    """What the log's CREATE FUNCTION says of them."""
    views: list[tuple[tuple[str, str], ViewBody]] = []
    """What views read, likewise (`streams.fold.schema.views`)."""
    clear: list[tuple[tuple[str, str], tuple[int, int, str]]] = []
    """Tables without a sensitive column, likewise (`streams.fold.schema.clear`)."""
    shares: Shares = msgspec.field(default_factory=Shares)
    """How many rows relations hold, and how much of them went (`streams.fold.shares`)."""
    open: list[tuple[tuple[str | None, int, int | None], OpenTransaction]] = []
    open_seen: list[tuple[tuple[str | None, int, int | None], bool]] = []
    wal_xids: list[int] = []
    open_due_us: int = 0
    open_asked: bool = False
    """Statements whose outcome is open, and what decides it (`streams.fold.outcome.outcomes`)."""
    beside_ddl: list[tuple[int, Event]] = []
    ddl_databases: list[str] = []
    """Commands that wait for their DDL message, and databases that send such (`streams.fold.joins.beside_ddl`)."""
    new_databases: list[tuple[str, tuple[str, int]]] = msgspec.field(default_factory=list, name="young")
    """Databases that were just made, by whom and when (`streams.fold.schema.new_databases`)."""
    refusals: list[tuple[str, tuple[tuple[int, str | None], ...]]] = []
    refused_logins: list[tuple[str, tuple[tuple[int, int, int], ...]]] = []
    """Refused logins by the role that was claimed, and its logins since (`streams.fold.sessions.refusals`)."""
    approved: list[tuple[int, Approved]] = []
    written: list[tuple[int, Written]] = []
    """Statements that ran approved, and transactions, by their ids (`streams.fold.joins.drift`)."""
    set_back_reported: int = msgspec.field(default=-(1 << 60), name="set_back_told")
    """The record at which it was last reported that a clock was put back."""


class FoldCheckpoint(Struct, frozen=True):
    """A whole checkpoint; `next_offset` is the first raw offset that is not in it."""

    version: Literal[1]
    partition: int
    next_offset: int
    identities: str
    clusters: dict[str, ClusterCheckpoint]
    aside: Aside = msgspec.field(default_factory=Aside)


encode = msgspec.json.Encoder().encode

_decoder = msgspec.json.Decoder(FoldCheckpoint)


def decode(data: bytes) -> FoldCheckpoint:
    """Read a checkpoint. Raise `msgspec.DecodeError` or `msgspec.ValidationError` on anything else."""
    return _decoder.decode(data)


def check(state: FoldCheckpoint, partition: int | None) -> None:
    """Raise `ValueError` when a checkpoint cannot be true: of another partition, or with positions that cannot be."""
    if partition is not None and state.partition != partition:
        raise ValueError(f"a checkpoint of partition {state.partition}")
    if not 0 <= state.next_offset <= POSITION_MAX:
        raise ValueError(f"a checkpoint whose offset {state.next_offset} is out of range")
    for cluster in state.clusters.values():
        if any(not 0 <= mark.lsn <= LSN_MAX for _, mark in cluster.watermarks):
            raise ValueError("a checkpoint with a position in the WAL that no server has")
        if any(not 0 <= reached[0] <= POSITION_MAX for _, reached in (*cluster.logs, *cluster.spools)):
            raise ValueError("a checkpoint with a place in a log that no log has")
        if not 0 <= cluster.clock_us <= TIME_US_MAX:
            raise ValueError("a checkpoint with a time that cannot be")
