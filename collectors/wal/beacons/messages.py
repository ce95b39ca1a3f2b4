"""Logical messages as the collector takes them: beacons, DDL, announcements, heartbeats, others.

Any role may write any of them, as many as it likes, so what is not ours costs as little as can be: no message is
verified that cannot be genuine by its place or size, a heartbeat counts once and only with what we put into it, and
of forgeries the first few of a second are told one by one, the others by their number.

The keys are read anew when a message does not verify, because another one may have been made in the meantime
(`collectors.wal.beacons.keyreads`): none is called forged before those of its time are known, and where they cannot be
read, it is said that this one could not be judged. A message that the database made without a key, or with one that
nobody has any more, is no forgery either: what it says is a claim, and that there was one is told as a gap.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from collectors.beacon.keyring import KEYS_MAX, Key
from collectors.beacon.mac import (
    CLAIM_CHARACTERS_MAX,
    CONTROL_PREFIX,
    DDL_PREFIX,
    PREFIX,
    UNSIGNED,
    ControlPayload,
    DdlPayload,
    Forged,
    JudgeToken,
    Unreadable,
    mac,
    split,
    verify_control,
    verify_ddl,
)
from collectors.beacon.verifier import SHORT, BeaconVerifier, claimed
from collectors.installation.sql.emission import SILENCED_PREFIX
from collectors.own import OwnSessions
from collectors.tokens import Verifier
from collectors.wal.beacons.ddl import lacks_objects, of_payload
from collectors.wal.beacons.keyreads import KeyReads
from collectors.wal.beacons.limit import Limit
from collectors.wal.decoding.pgoutput import LogicalMessage
from pgwitness.core.events import Beacon, Ddl, Forgery, Silenced, Token, format_lsn

HEARTBEAT_PREFIX = "pgwitness.heartbeat"
FORGERIES_A_SECOND = 5
"""Forgeries told one by one."""
HEARTBEATS_MAX = 64
"""Heartbeats of ours that may be under way: the stream may be behind by more than one."""
TURNS_MAX = 1_000
"""Texts of one transaction whose commands are counted."""
WITHOUT_A_CODE = (b"0" * 64, bytes(32))
"""How a beacon begins that no key has signed; there is nothing to verify."""
BYTES_MAX = {PREFIX: 64 * 1024, DDL_PREFIX: 1024 * 1024, CONTROL_PREFIX: 64 * 1024}
"""Content of our own messages at most: a claim and a token; a statement, a hundred objects; a few names.

A statement has 32,768 characters, an object some 600, and JSON makes six bytes of a character at most.
"""


HEARTBEAT_BYTES_MAX = 64
SIZES_MAX = {prefix.encode(): size for prefix, size in BYTES_MAX.items()} | {
    HEARTBEAT_PREFIX.encode(): HEARTBEAT_BYTES_MAX,
    SILENCED_PREFIX.encode(): 4 * CLAIM_CHARACTERS_MAX,
}
"""How much of a message is looked at, by the prefixes that are ours."""


class Unread(Struct, frozen=True):
    """A genuine message that is not understood, and why: evidence is missing, and nobody is accused."""

    prefix: str
    why: str


class Unsigned(Struct, frozen=True):
    """A beacon that no key has signed, not read yet: only where a transaction's rows need it, it says anything."""

    content: bytes
    lsn: int
    xid: int


Said = Beacon | Ddl | Forgery | Silenced | Unread | Unsigned
"""What a message of ours, or one that pretends to be, says."""


class Unproven:
    """Counts what was said without a proof since it was asked for, and keeps the first of it; a gap tells of it."""

    def __init__(self) -> None:
        self.number = 0
        self._first: dict[str, object] = {}

    def note(self, lsn: int, xid: int, said: Beacon) -> None:
        """Count one message."""
        if not self.number:
            self._first = {"lsn": format_lsn(lsn), "xid": xid, "claims": {"session_user": said.session_user}}
        self.number += 1

    def taken(self) -> dict[str, object]:
        """Return what there was, and begin anew."""
        found, self.number = {"messages": self.number, **self._first}, 0
        return found


class Heartbeat:
    """What our heartbeats say: a number of one's own each time, so that nobody else's passes for one."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, None] = {}

    def next(self) -> str:
        """Return the content of the next heartbeat."""
        content = secrets.token_hex(16)
        self._under_way[content.encode()] = None
        if len(self._under_way) > HEARTBEATS_MAX:
            del self._under_way[next(iter(self._under_way))]
        return content

    def came(self, content: bytes) -> bool:
        """Return whether this is one of the heartbeats written last; each counts once, and those before it no more."""
        if content not in self._under_way:
            return False
        while (first := next(iter(self._under_way))) != content:
            del self._under_way[first]
        del self._under_way[content]
        return True


class Messages:
    """Judges the logical messages of one database's stream.

    `keys` are those known, and read anew. `announced` is called with a verified message
    about the beacon itself and its LSN; `heartbeat` when one of ours, which `beat` knows, has come round.
    `tokens` judges what applications give to `pgwitness.claim`, as of the commit. `own` knows the sessions of
    `pgwitness db`.
    """

    def __init__(
        self,
        system_id: str,
        database: str,
        keys: KeyReads,
        announced: Callable[[ControlPayload, int], None],
        heartbeat: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        tokens: Verifier | None = None,
        codec: str = "utf-8",
        own: OwnSessions | None = None,
    ) -> None:
        self.unproven = Unproven()
        self.sizes_max: Mapping[bytes, int] = SIZES_MAX
        self.keys = keys
        self.ring = keys.ring
        self._codec = codec
        self._verifiers: dict[bytes, BeaconVerifier] = {}
        self.beat = Heartbeat()
        self.forgeries = Limit(FORGERIES_A_SECOND)
        self._tokens = tokens or Verifier(None, "")
        self._system_id = system_id
        self._database = database
        self._announced = announced
        self._heartbeat = heartbeat
        self._clock = clock
        self._own = own
        self._last: tuple[int, dict[tuple[int, str, str | None], int]] = (-1, {})
        self.keys.refresh()

    def expects_beacons(self) -> bool:
        """Return whether a beacon is installed, so that waiting for it makes sense."""
        return bool(self.ring.keys)

    def lost(self, lsn: int) -> bool:
        """Return whether the database may have had no key at a place of the WAL: the newest replaced a lost one."""
        if not self.ring.keys or not self.keys.here:
            return True
        newest = self.ring.keys[0]
        return lsn < newest.made_lsn and all(key.number == newest.number for key in self.ring.keys)

    def message(self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0) -> Said | None:
        """Judge one message; a genuine one outside of a transaction cannot be, so it is a forgery.

        None for what is not ours, and for forgeries beyond those that are told one by one.
        """
        size_max = BYTES_MAX.get(message.prefix)
        if size_max is not None:
            if xid is not None and len(message.content) <= size_max:
                return self._ours(message, xid, committed_at_us)
            reason = "not_transactional" if xid is None else "malformed"
            return Forgery(reason=reason) if self.tells(reason, message.lsn) else None
        if message.prefix == HEARTBEAT_PREFIX:
            if self.beat.came(message.content):
                self._heartbeat()
        elif message.prefix == SILENCED_PREFIX and xid is not None and self.ring.keys:
            whole = message.content.count(b"\x1f") == 4
            return _silenced(message.content) if whole and self.tells("silenced", message.lsn) else None
        return None

    def claimed(self, said: Unsigned) -> Beacon | None:
        """Read a beacon without a code; None for what is not of the form of one."""
        known = self.ring.knows(said.lsn)
        return claimed(said.content, xid32=said.xid, database=self._database, codec=self._codec, unknown=not known)

    def _ours(
        self, message: LogicalMessage, xid: int, committed_at_us: int
    ) -> Beacon | Ddl | Forgery | Unread | Unsigned | None:
        """Judge a message under one of our prefixes in a transaction."""
        if message.prefix == PREFIX and self.ring.keys and message.content.startswith(WITHOUT_A_CODE):
            return Unsigned(message.content, message.lsn, xid)
        news: bool | None = True
        for _ in range(KEYS_MAX):
            found: Forged | None = None
            refused = self._refused(message, xid, committed_at_us)
            if refused is None:
                try:
                    return self._verified(message, xid, committed_at_us)
                except Forged as forged:
                    found = forged.alone()
            reason = refused or (found.reason if found is not None else "")
            # What is signed, and not of this place, was signed with a key that is known.
            news = self.keys.again(xid) if reason in ("mac", "no_beacon_installed") else False
            if not news:
                break
        if said := self._claim(message, xid):
            return said
        if news is None:
            return Unread(message.prefix, "no known key has signed it, and the keys of now cannot be read")
        return self._told(found, message.lsn) if found else self._forgery(reason, message, xid, committed_at_us)

    def _forgery(self, reason: str, message: LogicalMessage, xid: int, committed_at_us: int) -> Forgery | None:
        """Tell of a message that no key has signed: of the few that are told, what it says of its maker."""
        if not self.tells(reason, message.lsn):
            return None
        try:
            self._verified(message, xid, committed_at_us)
        except Forged as forged:
            return Forgery(reason=forged.reason, claims=forged.claims)
        return Forgery(reason=reason)

    def _refused(self, message: LogicalMessage, xid: int, committed_at_us: int) -> str | None:
        """Say why no key has signed a message, where that can be said at once; raises nothing, because that is dear.

        Nearly every forgery ends here, and no genuine message does: the keys that may have signed it are all tried.
        """
        if not self.ring.keys:
            return "no_beacon_installed"
        usable = self.ring.usable(message.lsn, xid, committed_at_us)
        if message.prefix == PREFIX:
            if message.content.count(b"\x1f") < SHORT - 1:
                return "malformed"
            for key in usable:
                if self._verifier(key).may_verify(message.content):
                    return None
            return "mac"
        code, payload = split(message.content)
        if not payload:
            return "malformed"
        for key in usable:
            if hmac.compare_digest(code, mac(key.key, payload)):
                return None
        return "mac"

    def _claim(self, message: LogicalMessage, xid: int) -> Ddl | Unread | Unsigned | None:
        """Take what was said without a proof where the database may have said it."""
        unknown = bool(self.ring.keys) and not self.ring.knows(message.lsn)
        if message.prefix == PREFIX:
            return Unsigned(message.content, message.lsn, xid) if unknown else None
        if unknown and message.prefix == CONTROL_PREFIX:
            return Unread(message.prefix, "nobody has the key any more that would prove it")
        if message.prefix != DDL_PREFIX or not self.ring.keys or not (unknown or self.lost(message.lsn)):
            return None
        content = UNSIGNED + split(message.content)[1] if unknown else message.content
        try:
            command = verify_ddl(content, None, system_id="", database=self._database, xid32=xid, codec=self._codec)
        except (Forged, Unreadable):
            return None
        told = of_payload(command, None, self._turn(command))
        told = msgspec.structs.replace(told, beacon=msgspec.structs.replace(told.beacon, authenticated=False))
        self.unproven.note(message.lsn, xid, told.beacon)
        return told

    def tells(self, reason: str, lsn: int) -> bool:
        """Return whether a forgery may be told by itself now; else it is counted under its reason."""
        return self.forgeries.allows(self._clock(), reason, lsn)

    def _told(self, forged: Forged, lsn: int) -> Forgery | None:
        if not self.tells(forged.reason, lsn):
            return None
        return Forgery(reason=forged.reason, claims=forged.claims)

    def _verified(self, message: LogicalMessage, xid: int, committed_at_us: int) -> Beacon | Ddl | Unread | None:
        if not self.ring.keys:
            raise Forged("no_beacon_installed")

        def judge(token: str) -> Token:
            return self._tokens.judge(token, committed_at_us)

        *older, last = self.ring.usable(message.lsn, xid, committed_at_us) or (None,)
        for key in older:
            try:
                return self._taken(key, message, xid, judge)
            except Forged as forged:
                if forged.reason != "mac":
                    raise
        if last is None:
            raise Forged("mac")
        return self._taken(last, message, xid, judge)

    def _taken(self, key: Key, message: LogicalMessage, xid: int, judge: JudgeToken) -> Beacon | Ddl | Unread | None:
        """Take a message if it verifies under one key."""
        try:
            said = self._by(key, message, xid, judge)
        except Forged:
            raise
        except Unreadable as unreadable:
            return Unread(message.prefix, unreadable.why)
        except Exception as error:
            # A fault of ours in reading what verified: this message is lost, and nothing else.
            return Unread(message.prefix, f"it could not be read: {type(error).__name__}")
        if not isinstance(said, ControlPayload):
            return said
        self._announced(said, message.lsn)
        return None

    def _by(self, key: Key, message: LogicalMessage, xid: int, judge: JudgeToken) -> Beacon | Ddl | ControlPayload:
        """Verify a message under one key."""
        if message.prefix == PREFIX:
            return self._verifier(key).verify(message.content, xid32=xid, judge=judge)
        place = {"system_id": self._system_id, "database": self._database, "codec": self._codec}
        if message.prefix == DDL_PREFIX:
            command = verify_ddl(message.content, key.key, xid32=xid, **place)
            made = of_payload(command, judge, self._turn(command))
            return replace(made, own=True) if self._own is not None and self._own.wrote(made.beacon) else made
        return verify_control(message.content, key.key, xid32=xid, **place)

    def _turn(self, command: DdlPayload) -> int:
        """Count the commands of one text that came without objects in one transaction: they come in their order."""
        if not lacks_objects(command):
            return 0
        which = (command.xid, command.tag, command.sha256)
        if self._last[0] != command.xid:
            self._last = (command.xid, {})
        turns = self._last[1]
        if len(turns) >= TURNS_MAX:
            turns.clear()
        turns[which] = turns.get(which, -1) + 1
        return turns[which]

    def _verifier(self, key: Key) -> BeaconVerifier:
        known = self._verifiers.get(key.key)
        if known is None:
            held = {one.key for one in self.ring.keys}
            self._verifiers = {name: one for name, one in self._verifiers.items() if name in held}
            place = {"system_id": self._system_id, "database": self._database, "codec": self._codec}
            known = self._verifiers[key.key] = BeaconVerifier(key.key, **place)
        return known


def _silenced(content: bytes) -> Silenced | None:
    """Read what a beacon that failed says: SQLSTATE, session's user, role, table's OID, statement."""
    try:
        fields = content[: 4 * CLAIM_CHARACTERS_MAX].decode().split("\x1f")
    except UnicodeDecodeError:
        return None
    if len(fields) != 5 or not (len(fields[0]) == 5 and fields[0].isascii() and fields[0].isalnum()):
        return None
    sqlstate, user, role, relation, statement = fields
    claims: dict[str, str | int | None] = {"session_user": user[:CLAIM_CHARACTERS_MAX], "role": role[:64]}
    if relation.isascii() and relation.isdigit() and len(relation) <= 10:
        claims["oid"] = int(relation)
    claims["statement"] = statement[:16]
    return Silenced(sqlstate, claims)
