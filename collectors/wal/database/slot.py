"""The replication slot of one database, and what is remembered of it so that a gap is noticed.

Evidence is missing when the slot the collector had is gone, was invalidated, or stands behind the place last
confirmed, or when the system identifier is another one. Each is a `Gap`, written down first and sent until the
broker has it; a new timeline is one too when the WAL confirmed is not part of its history.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from collectors.wal.database.listing import Asked, Listings
from collectors.wal.decoding.place import Place
from collectors.wal.stuck import Stuck
from pgwitness.core.config import Slot
from pgwitness.core.errors import PgwitnessError, Retry, Unreachable
from pgwitness.core.events import Gap, format_lsn
from pgwitness.core.messages.refusal import words
from pgwitness.core.runtime.disk import read_whole, write_whole

Connection = psycopg.Connection[tuple[Any, ...]]
NAME_MAX = 63


class Memory(Struct, kw_only=True, omit_defaults=True):
    """What the collector must know again after a restart. `gaps` are those the broker has not confirmed yet.

    `stuck` is where the stream could not go on; `horizon_lsn` and `horizon_xid` are the last `catalogue.Horizon` at or
    before what is confirmed. `incarnation` is when positions were last found to go back (µs), 0 for never.
    `publications` is what was published when it was last looked, `asked` what was asked for. `started_us` is when the
    server began, by its clock.
    """

    system_id: str = ""
    timeline: int = 0
    slot: str = ""
    confirmed: int = 0
    gaps: list[Gap] = []
    stuck: Stuck = Stuck()
    horizon_lsn: int = 0
    horizon_xid: int = 0
    incarnation: int = 0
    publications: Listings = {}
    asked: list[Asked] = []
    started_us: int = 0


class SlotState(Struct, frozen=True, kw_only=True):
    """A row of pg_replication_slots. `lag` counts the bytes of WAL it holds back, `behind` those not confirmed."""

    plugin: str
    database: str
    active_pid: int | None
    confirmed: int
    lag: int
    behind: int
    wal_status: str | None
    safe_wal_size: int | None
    invalid: str | None = None


def slot_name(name: str, database: str) -> str:
    """Name the slot of a database: slots share one namespace in a cluster and have letters, digits and `_` only."""
    plain = re.sub(r"[^a-z0-9_]", "_", f"{name}_{database}".lower())
    if plain == f"{name}_{database}" and len(plain) <= NAME_MAX:
        return plain
    digest = hashlib.blake2b(f"{name}_{database}".encode(), digest_size=4).hexdigest()
    return f"{plain[: NAME_MAX - 9]}_{digest}"


class Damaged(PgwitnessError):
    """The file of a slot's memory was read and makes no sense."""


def remember(path: Path, memory: Memory) -> None:
    """Write the memory down, durably and whole or not at all. Raise `Retry` when that is impossible."""
    write_whole(path, msgspec.json.encode(memory))


def recall(path: Path) -> Memory:
    """Read the memory; an empty one where there is none.

    Raise `Damaged` when it makes no sense, `Retry` when the operating system does not let it be read.
    """
    content = read_whole(path)
    if content is None:
        return Memory()
    try:
        return msgspec.json.decode(content, type=Memory)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"{path.name}: {error}") from error


def recover(path: Path, database: str, now_us: int) -> Memory:
    """Read the memory; a damaged one is forgotten, which is a gap: what was missed before may go unnoticed."""
    try:
        return recall(path)
    except Damaged as error:
        problem: dict[str, object] = {"problem": str(error)}
        lost = Gap(captured_at_us=now_us, reason="collector_state_lost", database=database, detail=problem)
        return Memory(gaps=[lost])


def read(connection: Connection, name: str) -> SlotState | None:
    """Read the slot; None when there is none."""
    version = connection.info.server_version
    invalid = "invalidation_reason" if version >= 170000 else "NULL::text"
    row = connection.execute(
        f"""
        WITH here AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                  ELSE pg_current_wal_lsn() END AS lsn)
        SELECT plugin, database, active_pid, confirmed_flush_lsn - '0/0'::pg_lsn, here.lsn - restart_lsn,
               here.lsn - confirmed_flush_lsn, wal_status, safe_wal_size, {invalid}
        FROM pg_replication_slots, here WHERE slot_name = %s""",
        (name,),
    ).fetchone()
    if row is None:
        return None
    return SlotState(
        plugin=row[0] or "",
        database=row[1] or "",
        active_pid=row[2],
        confirmed=int(row[3] or 0),
        lag=int(row[4] or 0),
        behind=int(row[5] or 0),
        wal_status=row[6],
        safe_wal_size=row[7],
        invalid=row[8],
    )


def oldest(connection: Connection) -> dict[str, object]:
    """Return the oldest transaction that is open in the cluster: WAL from its start on is held back by any slot.

    With who has it, as the server says: a session, or who prepared it. Empty where none has a transaction id.
    """
    found = connection.execute(
        """
        SELECT age(backend_xid), pid, usename, application_name, host(client_addr), datname, xact_start::text,
               NULL AS prepared
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        UNION ALL
        SELECT age(transaction), NULL, owner, NULL, NULL, database, prepared::text, true FROM pg_prepared_xacts
        ORDER BY 1 DESC LIMIT 1"""
    ).fetchone()
    if found is None:
        return {}
    names = ("pid", "session_user", "application", "client_addr", "database", "since", "prepared")
    return {name: value for name, value in zip(names, found[1:], strict=True) if value is not None}


def make(connection: Connection, name: str, settings: Slot) -> int:
    """Create the slot and give the LSN from which on it sees everything. Raise `Retry` with what to do."""
    failover = settings.failover and connection.info.server_version >= 170000
    try:
        arguments = (
            "%s, 'pgoutput', false, false, true" if failover and not _recovering(connection) else "%s, 'pgoutput'"
        )
        row = connection.execute(
            f"SELECT lsn - '0/0'::pg_lsn FROM pg_create_logical_replication_slot({arguments})", (name,)
        ).fetchone()
    except psycopg.Error as error:
        raise Retry(
            f"slot {name} cannot be made: {_short(error)}; wal_level must be logical, max_replication_slots must "
            f"leave room, the role needs REPLICATION, and transactions open for longer than 30 s hold it up"
            f"{_said(connection)}"
        ) from error
    assert row is not None
    return int(row[0])


def _said(connection: Connection) -> str:
    """Name the oldest open transaction for a sentence."""
    if connection.closed or not (found := oldest(connection)):
        return ""
    return f": the oldest is of {found['session_user']} since {found['since']}, process {found.get('pid', 'none')}"


def drop(connection: Connection, name: str) -> None:
    """Drop the slot, ending a walsender of ours that still holds it. Raise `Retry` when another process does."""
    try:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
        )
    except psycopg.Error as error:
        raise Retry(f"slot {name} cannot be dropped: {_short(error)}") from error


def publications(connection: Connection, wanted: tuple[str, ...]) -> list[str]:
    """Return those of the wanted publications that exist. Raise `Retry` when none does."""
    rows = connection.execute(
        "SELECT pubname FROM pg_publication WHERE pubname = ANY(%s) ORDER BY pubname", (list(wanted),)
    ).fetchall()
    if not rows:
        raise Retry(
            f"database {connection.info.dbname} has no publication {' or '.join(wanted)}: run `pgwitness db install`"
        )
    return [name for (name,) in rows]


def wal_end(connection: Connection) -> int | None:
    """Read how far the server has written; None on a standby, which may have replayed less than it had before."""
    row = connection.execute(
        "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() - '0/0'::pg_lsn END"
    ).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else None


_STARTED = """
SELECT (extract(epoch FROM greatest(pg_catalog.pg_postmaster_start_time(), (SELECT max(backend_start)
  FROM pg_catalog.pg_stat_activity WHERE backend_type = 'checkpointer'))) * 1000000)::bigint
"""
"""The checkpointer begins anew when the server starts its processes again after one of them has crashed."""


def started_us(connection: Connection) -> int:
    """Read when the server began to take sessions, by its own clock; every session of before has ended."""
    row = connection.execute(_STARTED).fetchone()
    return int(row[0]) if row is not None else 0


def went_back(memory: Memory, place: Place, name: str, end: int | None, now_us: int) -> Gap | None:
    """Return the gap for a server that has not written as far as was read of it: it was put back to what it was; pure.

    `end` is where its WAL ends, or where it let a new slot begin. A server that crashed has everything that was read.
    """
    known = memory.slot == name and (memory.system_id, memory.timeline) == (place.system_id, place.timeline)
    if not known or end is None or end >= memory.confirmed:
        return None
    detail: dict[str, object] = {
        "slot": name,
        "system_id": place.system_id,
        "timeline": place.timeline,
        "confirmed": format_lsn(memory.confirmed),
        "server_end": format_lsn(end),
    }
    return Gap(captured_at_us=now_us, reason="position_went_back", database=place.database, detail=detail)


def examine(memory: Memory, place: Place, name: str, found: SlotState | None, now_us: int) -> tuple[list[Gap], bool]:
    """Compare what is there with what is remembered: the gaps it means, and whether the slot must be made; pure."""
    known = memory.slot == name and memory.system_id != ""

    def gap(reason: str, **detail: object) -> Gap:
        detail |= {"slot": name, "confirmed": format_lsn(memory.confirmed)}
        return Gap(captured_at_us=now_us, reason=reason, database=place.database, detail=detail)

    gaps = []
    same_system = memory.system_id == place.system_id
    if known and not same_system:
        gaps.append(gap("new_system", before=memory.system_id, now=place.system_id))
    elif known and memory.timeline != place.timeline:
        ended = dict(place.history).get(memory.timeline)
        lost = ended is None or memory.confirmed > ended
        gaps.append(
            gap(
                "new_timeline",
                before=memory.timeline,
                now=place.timeline,
                ended=None if ended is None else format_lsn(ended),
                diverged=lost,
            )
        )
    if found is None:
        if known and same_system:
            gaps.append(gap("slot_lost"))
        return gaps, True
    if found.wal_status == "lost" or found.invalid is not None:
        gaps.append(gap("slot_invalidated", cause=found.invalid or "wal_status lost"))
        return gaps, True
    if known and same_system and found.confirmed > memory.confirmed > 0:
        gaps.append(gap("slot_moved", resumes=format_lsn(found.confirmed)))
    return gaps, False


def check(found: SlotState | None, name: str, database: str) -> None:
    """Refuse a slot that is not ours. Raise `Retry` with what to do."""
    if found is None:
        return
    if found.plugin != "pgoutput" or found.database != database:
        raise Retry(
            f"slot {name} exists for plugin {found.plugin!r} and database {found.database!r}, not for pgoutput in "
            f"{database!r}: choose another name with slot.name, or drop it"
        )
    if found.active_pid is not None:
        raise Unreachable(
            f"slot {name} is in use by the walsender with pid {found.active_pid}: "
            "another collector runs, or an earlier connection has not timed out yet"
        )


def _recovering(connection: Connection) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return row is not None and bool(row[0])


def _short(error: psycopg.Error) -> str:
    return words(error)
