"""The server's own log over SQL: what `remote` asks of a folder, asked of `pg_ls_logdir` and `pg_read_binary_file`.

One connection, two queries a look while something is written: the list of files, and the bytes. Readings are bounded.
What the role may not do is found out before it is tried, since each refusal would be a line of the log itself.

`pg_read_binary_file` opens every file of the data directory to who may execute it. A function `pgwitness_log.read`,
which a superuser makes (docs/how-to/server-log.md), reads files of the log only; where it is, it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from collectors.connection import connect, conninfo, unreachable
from collectors.log.sources.follow import HEAD_BYTES
from collectors.log.sources.remote import Entry
from pgwitness.core.config import Cluster, Log
from pgwitness.core.errors import Retry

APPLICATION = "pgwitness log"
READ_FUNCTION = "pgwitness_log.read(text, bigint, bigint)"
CORE_FUNCTION = "pg_read_binary_file(text, bigint, bigint, boolean)"

_FACTS = f"""\
SELECT current_user::text, has_function_privilege('pg_ls_logdir()', 'EXECUTE'),
    has_function_privilege('{CORE_FUNCTION}', 'EXECUTE'),
    coalesce(has_function_privilege(to_regprocedure('{READ_FUNCTION}'), 'EXECUTE'), false),
    (SELECT setting FROM pg_settings WHERE name = 'log_directory'), current_setting('log_line_prefix'),
    current_setting('log_timezone'), current_setting('logging_collector')"""
_ENTRIES = """\
SELECT current_setting('log_destination'), f.name, f.size, extract(epoch FROM f.modification)::float8
FROM (SELECT 1) AS one LEFT JOIN pg_ls_logdir() AS f ON true"""


class ServerLog:
    """The log folder of one instance. Raises `Unreachable` when the server is lost, `Retry` when a right is missing."""

    def __init__(self, cluster: Cluster, dsn: str, settings: Log, key: bytes | None = None) -> None:
        self.trouble: str | None = None
        """What is in the way of following, as of the last `entries`, and what to do."""
        self._format = settings.format
        self._text = conninfo(cluster, dsn, None, APPLICATION)
        self._connection = connect(cluster, dsn, application_name=APPLICATION, key=key)
        try:
            facts = self._ask(_FACTS)[0]
            user, may_list, may_read, has_function, directory, self.line_prefix, self.timezone, collector = facts
            self._off = collector != "on"
            fix = missing_right(user, may_list, may_read or has_function, directory is not None or has_function)
            if fix is not None:
                raise Retry(f"the server's log at {self._where} may not be read by {user}: run as a superuser: {fix}")
        except BaseException:
            self.close()
            raise
        # No format with a colon and a space: behind those, a line of the log that names a statement is doubtful.
        self._read = (
            "pgwitness_log.read({0}, {1}, {2})"
            if has_function
            else "pg_read_binary_file(" + _literal(directory or "") + " || '/' || {0}, {1}, {2}, true)"
        )

    @property
    def _where(self) -> str:
        info = self._connection.info
        return f"{info.host}:{info.port}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def entries(self) -> list[Entry] | None:
        """List the files; None when there is no folder."""
        try:
            rows = self._ask(_ENTRIES)
        except psycopg.errors.UndefinedFile:
            self.trouble = self._collector_off() or "the server has no folder log_directory; make it, or correct it"
            return None
        destination = str(rows[0][0])
        if self._format not in [word.strip().lower() for word in destination.split(",")]:
            self.trouble = (
                f"log_destination of the server is {destination!r}, log.format is {self._format}; make them agree: "
                f"ALTER SYSTEM SET log_destination = '{self._format}'; SELECT pg_reload_conf()"
            )
        else:
            self.trouble = self._collector_off()
        return [Entry(name, size, modified) for _, name, size, modified in rows if name is not None]

    def heads(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the first `HEAD_BYTES` of files; those that are gone are left out."""
        query = f"SELECT name, {self._read.format('name', 0, HEAD_BYTES)} FROM unnest(%s::text[]) AS name"
        return {name: bytes(head) for name, head in self._ask(query, [list(names)]) if head is not None}

    def read(self, name: str, offset: int, length: int) -> tuple[bytes, bytes] | None:
        """Return bytes of a file, and after that its first `HEAD_BYTES`; None when it is gone."""
        query = (
            f"SELECT {self._read.format('%(name)s::text', '%(offset)s', '%(length)s')}, "
            f"{self._read.format('%(name)s::text', 0, HEAD_BYTES)}"
        )
        data, head = self._ask(query, {"name": name, "offset": offset, "length": length})[0]
        return None if data is None or head is None else (bytes(data), bytes(head))

    def _collector_off(self) -> str | None:
        if not self._off:
            return None
        return (
            "logging_collector is off, so the server writes no files of its own: ALTER SYSTEM SET logging_collector = "
            'on, then restart the server; or follow its files where they are with from = "file"'
        )

    def _ask(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor(binary=True) as cursor:
                return cursor.execute(query.encode(), values).fetchall()
        except psycopg.errors.UndefinedFile:
            raise
        except psycopg.errors.InsufficientPrivilege as error:
            raise Retry(f"the server's log at {self._where} may not be read any more: {error}".strip()) from error
        except psycopg.Error as error:
            raise unreachable(self._text, error) from error


def missing_right(user: str, may_list: bool, may_read: bool, knows_folder: bool) -> str | None:
    """Return the statements that grant what a role lacks to read the log; None when it lacks nothing."""
    role = '"' + user.replace('"', '""') + '"'
    fixes: list[str] = []
    if not may_list or not knows_folder:
        fixes.append(f"GRANT pg_monitor TO {role}")
    if not may_read:
        fixes.append(f"GRANT EXECUTE ON FUNCTION {CORE_FUNCTION} TO {role}")
    return "; ".join(fixes) or None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"
