"""How the collectors know their own sessions in the server's log: by a code that nobody else can make.

A name proves nothing: whoever has the password of the collectors' role can call himself what they do. So each of their
connections puts a code behind its application's name, made under the installation's key from the session's id (`%c`:
its start and process id). Who copies the name has another session, for which the code is wrong. The log's collector
computes the same, wherever it runs.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import psycopg

CODE_CHARS = 24
"""In hex: 96 bits. With the longest name of ours it fits into the 63 bytes that the server keeps."""
_MEANING = b"pgwitness: a session of its own\0"
_SESSION = (
    "SELECT to_hex(trunc(extract(epoch FROM backend_start))::int8) || '.' || to_hex(pid), "
    "current_setting('application_name') FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)


def code(key: bytes, session: str) -> str:
    """Make the code of a session, which is named as `%c` in the log."""
    # Tokens of values are made under the same key: these must be no token of anything.
    return hmac.digest(hmac.digest(key, _MEANING, hashlib.sha256), session.encode(), hashlib.sha256).hex()[:CODE_CHARS]


def introduce(connection: psycopg.Connection[Any], key: bytes) -> None:
    """Put its code behind a connection's name. Raises `psycopg.Error`."""
    row = connection.execute(_SESSION).fetchone()
    if row is not None:
        session, name = row
        connection.execute("SELECT set_config('application_name', %s, false)", [f"{name} {code(key, session)}"])


class OwnSessions:
    """Tells the collectors' sessions in the log; `role` is the one that they log in with."""

    def __init__(self, key: bytes, role: str | None) -> None:
        self._key = key
        self._role = role

    def has(self, role: str | None, application: str | None, session: str | None) -> bool:
        """Say whether a session is one of the collectors': its name must have the code of just this session."""
        if role is None or role != self._role or session is None or not application:
            return False
        name, _, said = application.rpartition(" ")
        return name.startswith("pgwitness") and hmac.compare_digest(said.encode(), code(self._key, session).encode())
