"""The MAC of what pgwitness says in the WAL, and the verification of messages about DDL and about itself.

Any role may write any message under any prefix, so only a MAC tells a genuine one from a forgery. Messages about DDL
(`ddl_templates`) and about pgwitness itself are HMAC-SHA256 (RFC 2104) under the database's key, in 64 hexadecimal
digits, and a JSON array in the database's encoding, `ddl/1` or `control/1` first; in the release before this one the
code was 32 bytes. The beacon, of which there are far more, has a form of its own
(`verifier`). Pure, and total on hostile bytes: what does not verify raises `Forged`, and what verifies and is not
understood `Unreadable`: that is a fault of ours and accuses nobody.

All MACs cover where and when a message was made: a genuine one copied into another transaction, database or cluster
does not verify there.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from binascii import unhexlify
from collections.abc import Callable
from typing import TypeVar

import msgspec

from collectors.beacon.encodings import json_of
from pgwitness.core.events import Beacon, Token

PREFIX = "pgwitness.beacon"
"""The prefix of a beacon's logical message."""
DDL_PREFIX = "pgwitness.ddl"
"""The prefix of the message in which an event trigger tells of DDL."""
CONTROL_PREFIX = "pgwitness.control"
"""The prefix of the message with which an installation, pause or removal of the beacon announces itself."""

CONTROL_KIND = "control/1"
DDL_KIND = "ddl/1"
"""First element of the payload: what it is and the version of its form; the MAC keeps one from passing as the other."""

MAC_BYTES = 32
CLAIM_CHARACTERS_MAX = 200
"""How much of each text a forgery is quoted with."""

XID32 = 1 << 32
"""The WAL's transaction ids are modulo this."""

JudgeToken = Callable[[str], Token]
"""Makes of a token what may be known of it; the token goes no further."""


class ControlPayload(msgspec.Struct, array_like=True, frozen=True):
    """What an installation, pause, resumption or removal said of itself; verified as a beacon is.

    `operation`: `install`, `pause`, `resume` or `uninstall`. `session_user` is who did it.
    """

    kind: str
    system_id: str
    database: str
    xid: int
    operation: str
    session_user: str


class NamedObject(msgspec.Struct, array_like=True, frozen=True):
    """An object as an event trigger names it: of a grant PostgreSQL tells only what kind of object it was on."""

    type: str | None
    identity: str | None
    relation: str | None = None
    beacon: str | None = None


class DdlPayload(msgspec.Struct, array_like=True, frozen=True):
    """What an event trigger said of one command: the session as a beacon names it, and what was made or dropped.

    `event`: `ddl_command_end` or `sql_drop`. `total` counts the objects, of which `objects` names the first. The
    statement is as the client sent it, None when it was too long; `sha256` is its digest. `path` are the schemas in
    which the client's names were looked for, in order; None where an earlier form of the function did not say.
    `masks`: views that mask ran it, to stand aside for the client's command or to come back behind it.
    """

    kind: str
    system_id: str
    database: str
    xid: int
    pid: int
    backend_start_us: int
    session_user: str
    role: str
    application: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    claim: str | None = None
    token: str | None = None
    event: str = ""
    tag: str = ""
    total: int = 0
    objects: list[NamedObject] = []
    statement: str | None = None
    sha256: str | None = None
    system_user: str | None = ""
    path: list[str] | None = None
    masks: bool = False


class _Kind(msgspec.Struct, array_like=True):
    kind: str


_kind = msgspec.json.Decoder(_Kind)
_ddl = msgspec.json.Decoder(DdlPayload)
_control = msgspec.json.Decoder(ControlPayload)


Claims = dict[str, str | int | None]


Pads = tuple["hashlib._Hash", "hashlib._Hash"]
"""The two hashes of a MAC under one key, begun."""


class Forged(Exception):
    """A message under our prefix that did not verify.

    `reason`: `malformed` (not of the form), `mac` (not made by this database's beacon), `kind` (another kind or
    version), `system_id`, `database` or `xid` (genuine, but copied from another cluster, database or transaction).
    `claims` is what the message says of its maker, each text cut to `CLAIM_CHARACTERS_MAX`; not to be believed, and
    read only when somebody asks: in a flood nobody does.
    """

    def __init__(self, reason: str, claims: Claims | Callable[[], Claims] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self._claims = claims

    def __str__(self) -> str:
        return f"a message under the beacon's prefix does not verify: {self.reason}"

    def alone(self) -> Forged:
        """Return the same without where it was raised: whoever keeps that keeps a whole frame, in a flood many."""
        self.__traceback__ = None
        return self

    @property
    def claims(self) -> Claims:
        """Read what the message says of its maker."""
        return self._claims() if callable(self._claims) else self._claims or {}


class Unreadable(Exception):
    """A message whose code verifies and which is not of the form that is read here: ours, and not understood.

    `why` holds nothing of the message.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"a genuine message cannot be read: {why}")
        self.why = why


def mac(key: bytes, payload: bytes) -> bytes:
    """Compute the MAC of a payload, as the function in the database does with its two pads and core `sha256`."""
    return mac_of(pads(key), payload)


def mac_of(begun: Pads, payload: bytes) -> bytes:
    """Compute it from what `pads` gives: whoever computes many under one key keeps that."""
    inner, outer = begun[0].copy(), begun[1].copy()
    inner.update(payload)
    outer.update(inner.digest())
    return outer.digest()


@functools.lru_cache(maxsize=64)
def pads(key: bytes) -> Pads:
    """Begin both hashes of a MAC: most of what one of few bytes costs is to begin them."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
    return inner, outer


_BLOCK_BYTES = 64


def split(content: bytes) -> tuple[bytes, bytes]:
    """Take a message apart: the 32 bytes of its code, and what that covers."""
    code = content[: 2 * MAC_BYTES]
    if len(content) > 2 * MAC_BYTES and not code.translate(None, b"0123456789abcdef"):
        return unhexlify(code), content[2 * MAC_BYTES :]
    return content[:MAC_BYTES], content[MAC_BYTES:]


UNSIGNED = bytes(MAC_BYTES)
"""The code of a message that the database made without a key: what it says is no more than a claim."""


def verify_ddl(
    content: bytes, key: bytes | None, *, system_id: str, database: str, xid32: int, codec: str = "utf-8"
) -> DdlPayload:
    """Verify a message found under `DDL_PREFIX`. Raise `Forged` as `verify` does, `Unreadable` for what is genuine.

    Without a key only one that was made without one is taken; it is not proven.
    """
    said = _decoded(json_of(_authentic(content, key), codec), _ddl, DDL_KIND)
    _bind(said, system_id if key is not None else said.system_id, database, xid32)
    return said


def verify_control(
    content: bytes, key: bytes, *, system_id: str, database: str, xid32: int, codec: str = "utf-8"
) -> ControlPayload:
    """Verify a message found under `CONTROL_PREFIX`. Raises as `verify_ddl` does."""
    said = _decoded(json_of(_authentic(content, key), codec), _control, CONTROL_KIND)
    _bind(said, system_id, database, xid32)
    return said


def beacon_of(said: DdlPayload, judge: JudgeToken | None = None) -> Beacon:
    """Return the session that a verified message about DDL names; `judge` as for a beacon."""
    return Beacon(
        session_user=said.session_user,
        role=said.role,
        pid=said.pid,
        backend_start_us=said.backend_start_us,
        xid=said.xid,
        application=said.application or "",
        client_addr=said.client_addr,
        client_port=said.client_port,
        claim=said.claim,
        token=judge(said.token) if judge is not None and said.token is not None else None,
        auth_method=method(said.system_user),
    )


def method(system_user: str | None) -> str | None:
    """Read `method:identity`; the method of whom nobody authenticated is `trust`."""
    return "trust" if system_user is None else system_user.partition(":")[0] or None


def same_session(one: Beacon, other: Beacon) -> bool:
    """Return whether two beacons name the same session in the same role with the same claim."""
    same = msgspec.structs.replace(other, ordinal=one.ordinal, wrote=one.wrote, settings=one.settings)
    return one == same


def _authentic(content: bytes, key: bytes | None) -> bytes:
    code, payload = split(content)
    if not payload:
        raise Forged("malformed")
    if not hmac.compare_digest(code, UNSIGNED if key is None else mac(key, payload)):
        raise Forged("mac")
    return payload


def kind_of(payload: bytes) -> str | None:
    """Return the kind of a genuine payload without its version; None where it does not say."""
    try:
        return _kind.decode(payload).kind.partition("/")[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


P = TypeVar("P", DdlPayload, ControlPayload)


def _decoded(payload: bytes, decoder: msgspec.json.Decoder[P], kind: str) -> P:
    """Read a genuine payload. One of another kind was put under this prefix by somebody else: that is a forgery."""
    try:
        first = _kind.decode(payload).kind
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable("not an array that begins with its kind") from None
    name, _, version = first.partition("/")
    if name != kind.partition("/")[0]:
        raise Forged("kind")
    if first != kind:
        raise Unreadable(f"version {version[:20]!r} of its form is not known here; a newer release installed it")
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        where = str(error).rpartition("`")[0].rpartition("`")[2][:60]
        raise Unreadable(f"not of the form {kind} at {where or 'its end'}") from None


def _bind(said: DdlPayload | ControlPayload, system_id: str, database: str, xid32: int) -> None:
    claims: dict[str, str | int | None] = {"session_user": said.session_user, "xid": said.xid}
    if said.system_id != system_id:
        raise Forged("system_id", claims | {"system_id": said.system_id})
    if said.database != database:
        raise Forged("database", claims | {"database": said.database})
    if said.xid % XID32 != xid32 % XID32:
        raise Forged("xid", claims)
