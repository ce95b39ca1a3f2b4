"""The mark with which a session of the gateway passes the guard: signed, for one statement, used once; pure.

Whoever has approved something has approved it at the gateway. Before the gateway forwards such a statement it sets the
parameter `pgwitness.mark` in the session (`setting`) to what `made` returns; the guard believes it where the MAC is
right. In the MAC stand the database, the role that logged in, the backend's pid and start, and the hash of the text
that the server runs, so it is of no use to another session, nor for another statement of the same one. Behind the first
statement that it let pass it is used up, and it ends at `until_s` in any case.

    MARK = HEX(HMAC-SHA256(key, PAYLOAD U+001F database U+001F role U+001F pid U+001F start U+001F HEX(SHA-256(text))))
           PAYLOAD
    PAYLOAD = JSON [nonce, until, rows, [policy, …]]

`start` is `backend_start` in microseconds since the epoch, as the session itself says at login, and the text that of
the Query or Parse message, in UTF-8. The key is derived from the installation's (`key_of`); the guard has its two pads.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

from msgspec import Struct

from collectors.guard.names import MARK

_PURPOSE: Final = b"pgwitness guard mark 1"
SETTING: Final = f"SELECT pg_catalog.set_config('{MARK}', $1, false)"
"""What the gateway runs in the session before the statement, with the mark as its parameter."""


class Session(Struct, frozen=True):
    """The session that a mark is for, as it told the gateway at login."""

    database: str
    role: str
    pid: int
    start_us: int


class Mark(Struct, frozen=True):
    """What is let pass: `policies` are those that an approval lifts, `rows` how many may be updated and deleted.

    `nonce` is one that no other mark has, such as the approval's id; `until_s` when it ends, in seconds since 1970.
    """

    nonce: str
    until_s: float
    policies: tuple[str, ...]
    rows: int | None = None


def key_of(key: bytes) -> bytes:
    """Derive the key of marks from the installation's (`pgwitness.core.privacy.load_key`)."""
    return hmac.digest(key, _PURPOSE, "sha256")


def made(key: bytes, mark: Mark, session: Session, statement: str) -> str:
    """Write a mark for one statement of one session; `key` is that of marks."""
    payload = json.dumps([mark.nonce, mark.until_s, mark.rows, list(mark.policies)])
    digest = hashlib.sha256(statement.encode()).hexdigest()
    said = (payload, session.database, session.role, str(session.pid), str(session.start_us), digest)
    return hmac.new(key, "\x1f".join(said).encode(), "sha256").hexdigest() + payload
