"""Logical messages as the collector takes them: beacons, DDL, announcements, heartbeats, others.

The key is read anew when a message does not verify, at most once a second, because an installation may have made
another one in the meantime.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from collectors.beacon.mac import (
    CONTROL_PREFIX,
    DDL_PREFIX,
    PREFIX,
    ControlPayload,
    Forged,
    verify_control,
    verify_ddl,
)
from collectors.beacon.verifier import BeaconVerifier
from collectors.wal.ddl import of_payload
from collectors.wal.pgoutput import LogicalMessage
from collectors.wal.tokens import Verifier
from pgwitness.events import Beacon, Ddl, Forgery, Token

HEARTBEAT_PREFIX = "pgwitness.heartbeat"
KEY_AGAIN_S = 1.0


class Messages:
    """Judges the logical messages of one database's stream.

    `load_key` reads the beacon's key, None where none is installed. `announced` is called with a verified message
    about the beacon itself, its LSN and the transaction's 32-bit id; `heartbeat` when one of ours has come round.
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
        self._tokens = tokens or Verifier(None, "")
        self._system_id = system_id
        self._database = database
        self._load_key = load_key
        self._announced = announced
        self._heartbeat = heartbeat
        self._clock = clock
        self._read = clock()
        self._beacons = self._verifier(load_key())

    def expects_beacons(self) -> bool:
        """Say whether a beacon is installed, so that waiting for it makes sense."""
        return self._beacons is not None

    def message(
        self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0
    ) -> Beacon | Ddl | Forgery | None:
        """Judge one message; a genuine one outside of a transaction cannot be, so it is a forgery."""
        if message.prefix == HEARTBEAT_PREFIX:
            self._heartbeat()
            return None
        if message.prefix not in (PREFIX, DDL_PREFIX, CONTROL_PREFIX):
            return None
        try:
            return self._verified(message, xid, committed_at_us)
        except Forged as forged:
            if not self._fresh_key():
                return Forgery(reason=forged.reason, claims=forged.claims)
        try:
            return self._verified(message, xid, committed_at_us)
        except Forged as forged:
            return Forgery(reason=forged.reason, claims=forged.claims)

    def _verified(self, message: LogicalMessage, xid: int | None, committed_at_us: int) -> Beacon | Ddl | None:
        if self._beacons is None:
            raise Forged("no_beacon_installed")
        if xid is None:
            raise Forged("not_transactional")

        def judge(token: str) -> Token:
            return self._tokens.judge(token, committed_at_us)

        if message.prefix == PREFIX:
            return self._beacons.verify(message.content, xid32=xid, judge=judge)
        place = {"system_id": self._system_id, "database": self._database}
        if message.prefix == DDL_PREFIX:
            return of_payload(verify_ddl(message.content, self._beacons.key, xid32=xid, **place), judge)
        said = verify_control(message.content, self._beacons.key, xid32=xid, **place)
        self._announced(said, message.lsn)
        return None

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
