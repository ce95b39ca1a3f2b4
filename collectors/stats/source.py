"""What the statistics collector asks of a server; every query names its columns and its schema.

The extension's version decides which columns there are, not the server's: an extension that was not updated after
an upgrade lacks the new ones.
"""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from collectors.stats.delta import Counter, Entry, Key, Snapshot
from pgwitness.core.errors import Retry

Connection = psycopg.Connection[tuple[Any, ...]]

_US = "(extract(epoch from {}) * 1000000)::int8"
_EXTENSION = """
SELECT n.nspname, e.extversion, current_database()
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'"""


class Extension(Struct, frozen=True):
    """Where pg_stat_statements is and what its version offers."""

    schema: str
    version: tuple[int, int]

    @property
    def dated(self) -> bool:
        """Whether entries say when they began (`stats_since`, 1.11, PostgreSQL 17)."""
        return self.version >= (1, 11)

    def name(self, what: str) -> sql.Identifier:
        """Qualify one of the extension's objects."""
        return sql.Identifier(self.schema, what)


def extension(connection: Connection) -> Extension:
    """Find the extension. Raise `Retry` with what to do when it is not there or too old."""
    row = connection.execute(_EXTENSION).fetchone()
    if row is None:
        database = connection.info.dbname
        raise Retry(
            f"pg_stat_statements is not installed in database {database}: add it to shared_preload_libraries, restart "
            f"PostgreSQL, and run in {database}: CREATE EXTENSION pg_stat_statements"
        )
    schema, version, database = str(row[0]), str(row[1]), str(row[2])
    major, _, minor = version.partition(".")
    found = Extension(schema, (int(major), int(minor or 0)))
    if found.version < (1, 9):
        raise Retry(
            f"pg_stat_statements {version} in database {database} is too old: "
            "run there: ALTER EXTENSION pg_stat_statements UPDATE (1.9 or later is needed)"
        )
    return found


class Reading(Struct, frozen=True):
    """A snapshot, and what is not as it should be: conditions by the reason of their gap."""

    snapshot: Snapshot
    conditions: dict[str, str]
    own_role: int


def read(connection: Connection, ext: Extension) -> Reading:
    """Read every counter, without the texts. Raise `Retry` when the library is not loaded."""
    info = sql.SQL(
        "SELECT i.dealloc, " + _US.format("i.stats_reset") + ", " + _US.format("pg_postmaster_start_time()") + ","
        " (SELECT system_identifier::text FROM pg_control_system()), current_setting('pg_stat_statements.track'),"
        " current_setting('pg_stat_statements.track_utility'), (SELECT oid::int8 FROM pg_roles"
        " WHERE rolname = current_user), current_user::text, " + _US.format("clock_timestamp()") + " FROM {} AS i"
    ).format(ext.name("pg_stat_statements_info"))
    since = sql.SQL(_US.format("s.stats_since") if ext.dated else "NULL::int8")
    counters = sql.SQL(
        "SELECT s.userid::int8, s.dbid::int8, s.queryid, s.toplevel, s.calls, s.rows, s.total_exec_time, {since}"
        " FROM {function}(false) AS s"
    ).format(since=since, function=ext.name("pg_stat_statements"))
    try:
        row = connection.execute(info).fetchone()
        entries = connection.execute(counters).fetchall()
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise Retry(
            "pg_stat_statements is not loaded: add it to shared_preload_libraries and restart PostgreSQL"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Retry(f"pg_stat_statements cannot be read ({error}): GRANT pg_read_all_stats TO the role") from error
    assert row is not None
    dealloc, reset, started, system_id, track, utility, own_role, own_name, taken_at = row
    known = [
        Entry(Key(int(userid), int(dbid), int(queryid), bool(top)), Counter(int(calls), int(rows), float(ms), begun))
        for userid, dbid, queryid, top, calls, rows, ms, begun in entries
        if queryid is not None
    ]
    conditions: dict[str, str] = {}
    if len(known) < len(entries):
        conditions["stats_insufficient_privilege"] = (
            f"{len(entries) - len(known)} statements of other roles are hidden: GRANT pg_read_all_stats TO {own_name}"
        )
    if track == "none":
        conditions["stats_not_tracked"] = "pg_stat_statements.track is none: set it to top or all"
    if utility != "on":
        conditions["stats_utility_not_tracked"] = "DDL is not counted: set pg_stat_statements.track_utility to on"
    return Reading(
        Snapshot(int(taken_at), str(system_id), int(started), int(reset), int(dealloc), known),
        conditions,
        int(own_role),
    )


class Unreadable(Exception):
    """The server gives no text, because one of them has bytes that the database's encoding has no characters for."""


def texts(connection: Connection, ext: Extension, queryids: list[int]) -> dict[Key, str]:
    """Read the texts of some queries; one that was thrown out meanwhile is missing. Raise `Unreadable`."""
    try:
        rows = connection.execute(
            sql.SQL(
                "SELECT s.userid::int8, s.dbid::int8, s.queryid, s.toplevel, s.query FROM {}(true) AS s"
                " WHERE s.queryid = ANY(%s)"
            ).format(ext.name("pg_stat_statements")),
            [queryids],
        ).fetchall()
    except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter) as error:
        raise Unreadable from error
    return {
        Key(int(userid), int(dbid), int(queryid), bool(top)): str(text)
        for userid, dbid, queryid, top, text in rows
        if text is not None
    }


class Names:
    """Names of roles and databases by oid; asked again when an unknown oid turns up."""

    def __init__(self) -> None:
        self._roles: dict[int, str] = {}
        self._databases: dict[int, str] = {}

    def learn(self, connection: Connection, keys: list[Key]) -> None:
        """Make sure that every oid of `keys` has been asked for."""
        if all(key.userid in self._roles and key.dbid in self._databases for key in keys):
            return
        self._roles |= dict(connection.execute("SELECT oid::int8, rolname::text FROM pg_roles").fetchall())
        self._databases |= dict(connection.execute("SELECT oid::int8, datname::text FROM pg_database").fetchall())
        for key in keys:
            # Dropped since: its oid is all that is left of it.
            self._roles.setdefault(key.userid, f"oid:{key.userid}")
            self._databases.setdefault(key.dbid, f"oid:{key.dbid}")

    def role(self, oid: int) -> str:
        """Return a role's name."""
        return self._roles[oid]

    def database(self, oid: int) -> str:
        """Return a database's name."""
        return self._databases[oid]
