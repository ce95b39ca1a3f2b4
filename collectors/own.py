"""How pgwitness knows its own sessions in the server's log and in DDL: by a code that nobody else can make.

A name proves nothing: whoever has the password of the collectors' role can call himself what they do. So each of their
connections puts a code behind its application's name, made under the installation's key from the session's id (`%c`:
its start and process id). Who copies the name has another session, for which the code is wrong. The log's collector
computes the same, wherever it runs.

`pgwitness db` does the same with a code of another meaning, whatever role it logs in with: what an administrator's
command does is then told from what somebody does who merely calls himself so. Its code proves that the command had the
installation's key.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import psycopg

from pgwitness.core.events import Beacon

CODE_CHARS = 24
"""In hex: 96 bits. With the longest name of ours it fits into the 63 bytes that the server keeps."""
_COLLECTOR = b"pgwitness: a session of its own\0"
_COMMAND = b"pgwitness: a command on a database\0"
COMMAND = "pgwitness db"
"""What the application's name of a command begins with; a code stands behind it."""
_SESSION = (
    "SELECT to_hex(trunc(extract(epoch FROM backend_start))::int8) || '.' || to_hex(pid), "
    "current_setting('application_name') FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)


def code(key: bytes, session: str, *, command: bool = False) -> str:
    """Make the code of a session of a collector, or of a command; the session is named as `%c` in the log."""
    # Tokens of values are made under the same key: these must be no token of anything.
    meaning = _COMMAND if command else _COLLECTOR
    return hmac.digest(hmac.digest(key, meaning, hashlib.sha256), session.encode(), hashlib.sha256).hex()[:CODE_CHARS]


def introduce(connection: psycopg.Connection[Any], key: bytes, *, command: bool = False) -> None:
    """Put its code behind a connection's name. Raise `psycopg.Error`."""
    row = connection.execute(_SESSION).fetchone()
    if row is not None:
        session, name = row
        named = f"{name} {code(key, session, command=command)}"
        connection.execute("SELECT set_config('application_name', %s, false)", [named])


class OwnSessions:
    """Tells pgwitness's own sessions; `role` is the one that the collectors log in with."""

    def __init__(self, key: bytes, role: str | None = None) -> None:
        self._key = key
        self._role = role

    def has(self, role: str | None, application: str | None, session: str | None) -> bool:
        """Return whether a session is one of the collectors': its name must have the code of just this session."""
        if role is None or role != self._role or session is None or not application:
            return False
        return self._has_code(application, session)

    def _has_code(self, application: str, session: str) -> bool:
        name, _, said = application.rpartition(" ")
        return name.startswith("pgwitness") and hmac.compare_digest(said.encode(), code(self._key, session).encode())

    def commands(self, application: str | None, session: str | None) -> bool:
        """Return whether a session is that of a `pgwitness db` command, whoever ran it."""
        if session is None or not application or not application.startswith(COMMAND):
            return False
        said = application.rpartition(" ")[2]
        return hmac.compare_digest(said.encode(), code(self._key, session, command=True).encode())

    def wrote(self, beacon: Beacon) -> bool:
        """Return whether DDL, which names its session, is that of such a command, or of a collector's job."""
        if not beacon.authenticated or not beacon.backend_start_us or not beacon.application.startswith("pgwitness"):
            return False
        session = f"{beacon.backend_start_us // 1_000_000:x}.{beacon.pid:x}"
        return self.commands(beacon.application, session) or self._has_code(beacon.application, session)
