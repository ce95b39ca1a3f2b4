"""Logical messages as the collector takes them: beacons, DDL, announcements, heartbeats, others.

Any role may write any of them, as many as it likes, so what is not ours costs as little as can be: no message is
verified that cannot be genuine by its place or size, a heartbeat counts once and only with what we put into it, and
of forgeries the first few of a second are told one by one, the others by their number.

The key is read anew when a message does not verify, at most once a second, because an installation may have made
another one in the meantime.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from collectors.beacon.emission import SILENCED_PREFIX
from collectors.beacon.mac import (
    CLAIM_CHARACTERS_MAX,
    CONTROL_PREFIX,
    DDL_PREFIX,
    PREFIX,
    ControlPayload,
    DdlPayload,
    Forged,
    Unreadable,
    verify_control,
    verify_ddl,
)
from collectors.beacon.verifier import BeaconVerifier
from collectors.wal.ddl import lacks_objects, of_payload
from collectors.wal.limit import Limit
from collectors.wal.pgoutput import LogicalMessage
from collectors.wal.tokens import Verifier
from pgwitness.events import Beacon, Ddl, Forgery, Silenced, Token

HEARTBEAT_PREFIX = "pgwitness.heartbeat"
KEY_AGAIN_S = 1.0
FORGERIES_A_SECOND = 5
"""Forgeries told one by one."""
HEARTBEATS_MAX = 64
"""Heartbeats of ours that may be under way: the stream may be behind by more than one."""
TURNS_MAX = 1_000
"""Texts of one transaction whose commands are counted."""
BYTES_MAX = {PREFIX: 64 * 1024, DDL_PREFIX: 4 * 1024 * 1024, CONTROL_PREFIX: 64 * 1024}
"""Content of our own messages at most: a claim and a token; a statement, a hundred objects; a few names."""


class Unread(Struct, frozen=True):
    """A genuine message that is not understood, and why: evidence is missing, and nobody is accused."""

    prefix: str
    why: str


class Heartbeat:
    """What our heartbeats say: a number of one's own each time, so that nobody else's passes for one."""

    def __init__(self) -> None:
        self._under_way: deque[bytes] = deque(maxlen=HEARTBEATS_MAX)

    def next(self) -> str:
        """Give the content of the next heartbeat."""
        content = secrets.token_hex(16)
        self._under_way.append(content.encode())
        return content

    def came(self, content: bytes) -> bool:
        """Say whether this is one of the heartbeats written last; each counts once, and those before it no more."""
        if content not in self._under_way:
            return False
        while self._under_way.popleft() != content:
            pass
        return True


class Messages:
    """Judges the logical messages of one database's stream.

    `load_key` reads the beacon's key, None where none is installed. `announced` is called with a verified message
    about the beacon itself and its LSN; `heartbeat` when one of ours, which `beat` knows, has come round.
    `tokens` judges what applications give to `pgwitness.claim`, as of the commit.
    """

    def __init__(
        self,
        system_id: str,
        database: str,
        load_key: Callable[[], bytes | None],
        announced: Callable[[ControlPayload, int], None],
        heartbeat: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        tokens: Verifier | None = None,
    ) -> None:
        self.beat = Heartbeat()
        self.forgeries = Limit(FORGERIES_A_SECOND)
        self._tokens = tokens or Verifier(None, "")
        self._system_id = system_id
        self._database = database
        self._load_key = load_key
        self._announced = announced
        self._heartbeat = heartbeat
        self._clock = clock
        self._read = clock()
        self._last: tuple[int, dict[tuple[int, str, str | None], int]] = (-1, {})
        self._beacons = self._verifier(load_key())

    def expects_beacons(self) -> bool:
        """Say whether a beacon is installed, so that waiting for it makes sense."""
        return self._beacons is not None

    def message(
        self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0
    ) -> Beacon | Ddl | Forgery | Silenced | Unread | None:
        """Judge one message; a genuine one outside of a transaction cannot be, so it is a forgery.

        None for what is not ours, and for forgeries beyond those that are told one by one.
        """
        if message.prefix == HEARTBEAT_PREFIX:
            if self.beat.came(message.content):
                self._heartbeat()
            return None
        if message.prefix == SILENCED_PREFIX and xid is not None and self._beacons is not None:
            said = _silenced(message.content)
            if said is None or not self.forgeries.allows(self._clock(), "silenced", message.lsn):
                return None
            return said
        size_max = BYTES_MAX.get(message.prefix)
        if size_max is None:
            return None
        if xid is None:
            return self._forgery(Forged("not_transactional"), message.lsn)
        if len(message.content) > size_max:
            return self._forgery(Forged("malformed"), message.lsn)
        try:
            return self._verified(message, xid, committed_at_us)
        except Forged as forged:
            if not self._fresh_key():
                return self._forgery(forged, message.lsn)
        try:
            return self._verified(message, xid, committed_at_us)
        except Forged as forged:
            return self._forgery(forged, message.lsn)

    def _forgery(self, forged: Forged, lsn: int) -> Forgery | None:
        if not self.forgeries.allows(self._clock(), forged.reason, lsn):
            return None
        return Forgery(reason=forged.reason, claims=forged.claims)

    def _verified(self, message: LogicalMessage, xid: int, committed_at_us: int) -> Beacon | Ddl | Unread | None:
        if self._beacons is None:
            raise Forged("no_beacon_installed")

        def judge(token: str) -> Token:
            return self._tokens.judge(token, committed_at_us)

        try:
            if message.prefix == PREFIX:
                return self._beacons.verify(message.content, xid32=xid, judge=judge)
            place = {"system_id": self._system_id, "database": self._database}
            if message.prefix == DDL_PREFIX:
                command = verify_ddl(message.content, self._beacons.key, xid32=xid, **place)
                return of_payload(command, judge, self._turn(command))
            said = verify_control(message.content, self._beacons.key, xid32=xid, **place)
        except Unreadable as unreadable:
            return Unread(message.prefix, unreadable.why)
        self._announced(said, message.lsn)
        return None

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

    def _fresh_key(self) -> bool:
        """Read the key again when that may help; says whether it is another one."""
        if self._clock() - self._read < KEY_AGAIN_S:
            return False
        before, key, self._read = self._beacons, self._load_key(), self._clock()
        if key == (before.key if before is not None else None):
            return False
        self._beacons = self._verifier(key)
        return True

    def _verifier(self, key: bytes | None) -> BeaconVerifier | None:
        return None if key is None else BeaconVerifier(key, system_id=self._system_id, database=self._database)


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
