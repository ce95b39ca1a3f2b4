"""Verifies the beacons of one database; pure, and total on hostile bytes: a message verifies or raises `Forged`.

What a beacon consists of stands in `emission`: a code under a secret of the session, the fields of the transaction,
and the session's introduction. That is 64 hexadecimal digits of HMAC-SHA256 (RFC 2104) under the database's key, and
what they cover:

    ["session/1", system_id, database, pid, backend_start_us, session_user, client_addr, client_port, system_user,
     settings]

`system_user` is there from PostgreSQL 16 on: the method of authentication and the identity, null for `trust`.
`settings` are, of a superuser's session, those of `emission.SETTINGS` that were its own when it was introduced. The
secret is the first half of the HMAC of `secret/1` and that HMAC, as two signed numbers: collectors derive it from the
key and the message alone, and remember it for the sessions they saw last. A genuine message copied into another
transaction, database or cluster does not verify there, nor does the introduction of another session under this one's
secret.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from binascii import hexlify
from functools import partial

import msgspec

from collectors.beacon.encodings import json_of, text_of
from collectors.beacon.mac import (
    CLAIM_CHARACTERS_MAX,
    UNSIGNED,
    XID32,
    Forged,
    JudgeToken,
    Unreadable,
    kind_of,
    mac_of,
    method,
    pads,
    split,
)
from pgwitness.core.events import Beacon, Wrote

SESSION_KIND = "session/1"
SESSIONS_MAX = 4_096
"""How many sessions a verifier remembers; one that it has forgotten costs it two HMACs."""

SHORT, LONG = 6, 11
"""Fields of a message of the release before this one, which did not say what was written, and of one of this."""
NAME_SEPARATORS_MAX = 62
"""Separators that the name of a role may hold: it has 63 bytes."""
_SEPARATOR = "\x1f"
_CLAIM_END = "\x1e"
_HEX_CHARACTERS = 64


class SessionPayload(msgspec.Struct, array_like=True, frozen=True):
    """What a session's introduction says; an empty `system_user` is one that the server does not have."""

    kind: str
    system_id: str
    database: str
    pid: int
    backend_start_us: int
    session_user: str
    client_addr: str | None = None
    client_port: int | None = None
    system_user: str | None = ""
    settings: dict[str, str] | None = None


_session = msgspec.json.Decoder(SessionPayload)


class _Known(msgspec.Struct, frozen=True):
    """A session whose introduction verified, and the secret that goes with it."""

    said: SessionPayload
    one: bytes
    other: bytes

    def signed(self, code: bytes, said: bytes) -> bool:
        """Return whether the session wrote what a transaction says of itself."""
        expected = hashlib.sha256(b"".join((self.one, b"\x1f", said, b"\x1f", self.other))).digest()
        return hmac.compare_digest(code, expected)


class BeaconVerifier:
    """Verifies the beacons of one database under its `key`; remembers sessions, and nothing of a transaction.

    An introduction is remembered by its bytes, so remembering changes no verdict.
    """

    def __init__(self, key: bytes, *, system_id: str, database: str, codec: str = "utf-8") -> None:
        self.key = key
        self._pads = pads(key)
        self._codec = codec
        self._system_id = system_id
        self._database = database
        self._known: dict[bytes, _Known] = {}
        self._proven: bytes | None = None

    def verify(self, content: bytes, *, xid32: int, judge: JudgeToken | None = None) -> Beacon:
        """Verify a message found under `PREFIX` in the transaction `xid32` (the WAL's 32 bits) of that database.

        Raise `Forged` on everything that the genuine beacon of this very transaction did not write. The returned
        `xid` has the 64 bits that the database knew. Whoever works in a database where the beacon has no guard, or
        under SET ROLE to a role that the guard cannot hold, repeats it with each statement: `same_session` tells
        repetitions. `judge` says what came of the transaction's token, else that is left out.
        """
        code, rest = split(content)
        if not SHORT <= rest.count(b"\x1f") + 1 <= LONG + 2 * NAME_SEPARATORS_MAX:
            raise Forged("malformed")
        introduction = rest.rpartition(b"\x1f")[2]
        # First what nearly every forgery fails at: anybody may write as many as it likes.
        known = self._introduced(introduction, rest)
        if content is not self._proven and not known.signed(code, rest[: len(rest) - len(introduction)]):
            raise Forged("mac", partial(_claims_of, rest, self._codec))
        fields = _fields(rest, self._codec, known.said.session_user)
        xid, session_user, role, application, claims = fields[:5]
        if int(xid) % XID32 != xid32 % XID32:
            raise Forged("xid", partial(_claims, fields))
        claim, _, token = claims.partition(_CLAIM_END)
        return Beacon(
            session_user=known.said.session_user,
            role=session_user if role == "none" else role,
            pid=known.said.pid,
            backend_start_us=known.said.backend_start_us,
            xid=int(xid),
            application=application,
            client_addr=known.said.client_addr,
            client_port=known.said.client_port,
            claim=claim or None,
            token=judge(token) if judge is not None and token else None,
            auth_method=method(known.said.system_user),
            wrote=Wrote(int(fields[5]), fields[6], *map(int, fields[7:10])) if len(fields) == LONG else None,
            settings=known.said.settings or {},
        )

    def may_verify(self, content: bytes) -> bool:
        """Return whether a message is signed; of the first one of a session, whether the session's introduction is.

        A forgery fails here, and cheaply: nothing is raised and nothing read of it. `verify` is told the rest.
        """
        introduction = content[content.rfind(b"\x1f") + 1 :]
        known = self._known.get(introduction)
        if known is None:
            expected = hexlify(mac_of(self._pads, introduction[_HEX_CHARACTERS:]))
            return hmac.compare_digest(introduction[:_HEX_CHARACTERS], expected)
        code, rest = split(content)
        if not known.signed(code, rest[: len(rest) - len(introduction)]):
            return False
        self._proven = content
        return True

    def _introduced(self, introduction: bytes, rest: bytes) -> _Known:
        known = self._known.get(introduction)
        if known is not None:
            return known
        said_by = partial(_claims_of, rest, self._codec)
        tag, payload = introduction[:_HEX_CHARACTERS], introduction[_HEX_CHARACTERS:]
        expected = mac_of(self._pads, payload)
        if not hmac.compare_digest(tag, expected.hex().encode()):
            raise Forged("mac", said_by)
        try:
            said = _session.decode(json_of(payload, self._codec))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # Genuine, and no introduction as we read them: another kind was put here by somebody, a fault is ours.
            if kind_of(payload) not in (None, SESSION_KIND.partition("/")[0]):
                raise Forged("kind", said_by) from None
            raise Unreadable("a session's introduction that is not of the form known here") from None
        if said.kind != SESSION_KIND:
            if kind_of(payload) != SESSION_KIND.partition("/")[0]:
                raise Forged("kind", said_by)
            raise Unreadable("a session's introduction of another version; a newer release installed it")
        if said.system_id != self._system_id:
            raise Forged("system_id", said_by() | {"system_id": said.system_id})
        if said.database != self._database:
            raise Forged("database", said_by() | {"database": said.database})
        one, other = struct.unpack(">qq", mac_of(self._pads, b"secret/1" + expected)[:16])
        if len(self._known) >= SESSIONS_MAX:
            self._known.pop(next(iter(self._known)))
        known = self._known[introduction] = _Known(said, b"%d" % one, b"%d" % other)
        return known


def claimed(content: bytes, *, xid32: int, database: str, codec: str = "utf-8", unknown: bool = False) -> Beacon | None:
    """Read what the beacon says where it had no key to prove it; None for a message that is not such a one.

    `unknown`: one that was signed, with a key that nobody has any more, is taken likewise. Whoever can write messages
    can write this: it is a claim.
    """
    code, rest = split(content)
    if code != UNSIGNED and not unknown:
        return None
    try:
        fields = _fields(rest, codec)
        said = _session.decode(json_of(rest.rpartition(b"\x1f")[2][_HEX_CHARACTERS:], codec))
    except (Forged, msgspec.MsgspecError, RecursionError):
        return None
    xid, session_user, role, application, claims = (field[: 4 * CLAIM_CHARACTERS_MAX] for field in fields[:5])
    if said.kind != SESSION_KIND or said.database != database or int(xid) % XID32 != xid32 % XID32:
        return None
    return Beacon(
        session_user=said.session_user[:CLAIM_CHARACTERS_MAX],
        role=session_user if role == "none" else role,
        pid=said.pid,
        backend_start_us=said.backend_start_us,
        xid=int(xid),
        application=application,
        client_addr=said.client_addr,
        client_port=said.client_port,
        claim=claims.partition(_CLAIM_END)[0] or None,
        authenticated=False,
    )


def _fields(rest: bytes, codec: str, login: str = "") -> list[str]:
    """Split a message behind its code; `Forged` where it has not the form of one. `login` is who logged in."""
    fields = text_of(rest, codec).split(_SEPARATOR)
    if len(fields) not in (SHORT, LONG) and len(fields) > SHORT:
        fields = _with_odd_names(fields, login)
    numbers = [fields[0], *([fields[5], *fields[7:10]] if len(fields) == LONG else [])]
    if len(fields) not in (SHORT, LONG) or not all(map(_is_number, numbers)):
        raise Forged("malformed")
    return fields


def _is_number(text: str) -> bool:
    # isascii, because int() takes other scripts' digits, too; eighteen of them fit wherever numbers go from here.
    return text.isascii() and text.isdigit() and len(text) <= 18


def _with_odd_names(fields: list[str], login: str) -> list[str]:
    """Put the names of roles together again that hold the separator themselves: PostgreSQL allows it."""
    wrote = len(fields) > LONG and all(map(_is_number, [fields[-6], *fields[-4:-1]]))
    behind = LONG - 3 if wrote else SHORT - 3
    names = _SEPARATOR.join(fields[1:-behind])
    if names.startswith(login + _SEPARATOR):
        user, role = login, names[len(login) + 1 :]
    else:
        user, _, role = names.rpartition(_SEPARATOR)
    return [fields[0], user, role, *fields[-behind:]]


def _claims_of(rest: bytes, codec: str) -> dict[str, str | int | None]:
    """Read the same of a message that may not have the form of one."""
    try:
        return _claims(_fields(rest, codec))
    except Forged:
        return {}


def _claims(fields: list[str]) -> dict[str, str | int | None]:
    """Read what a message that is not believed says of its maker, each text cut."""
    xid, session_user, role, application, claims = fields[:5]
    introduction = fields[-1]
    found: dict[str, str | int | None] = {
        "session_user": session_user,
        "role": role,
        "application": application,
        "claim": claims.partition(_CLAIM_END)[0] or None,
    }
    try:
        said = _session.decode(introduction[_HEX_CHARACTERS:].encode())
        found |= {
            "database": said.database,
            "pid": said.pid,
            "login": said.session_user,
            "client_addr": said.client_addr,
        }
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return {"xid": int(xid)} | {k: v[:CLAIM_CHARACTERS_MAX] if isinstance(v, str) else v for k, v in found.items()}
