"""What pg_stat_activity and the beacons have shown of a cluster's sessions; forgotten oldest first.

`Activity.see` takes a look at a session, `holding` gives the session that was seen with a transaction id. How a beacon
was attributed is remembered by session, because a session says the same thing a thousand times.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Beacon, Session
from streams.fold.bounded import evict_oldest
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import Came, KnownSession, LogSession, SessionKey
from streams.fold.sessions.attribution import by_beacon, by_log, came_by, known
from streams.identity.identities import Identities

SESSIONS_MAX = 10_000
XIDS_MAX = 20_000
BEACONS_MAX = 20_000
SECOND_US = 1_000_000
"""Sessions whose attribution by beacon is remembered; forgetting costs time only."""


class Activity:
    """Sessions of one cluster, by pid and start."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, KnownSession] = {}
        self._xids: dict[int, SessionKey] = {}
        self._beacons: dict[SessionKey, tuple[tuple[object, ...], Attribution]] = {}
        self._came: dict[SessionKey, Came] = {}
        """Sessions that came through a gateway."""
        self._forwarded: dict[LogSession, Attribution] = {}
        self._logins: dict[SessionKey, str] = {}
        """As whom sessions logged in, by pid and start in seconds."""

    def see(self, event: Session, instance: str | None) -> KnownSession:
        """Take up what a session looks like, and the transaction id it holds."""
        session = known(event, instance)
        key = (event.pid, event.backend_start_us)
        if self._sessions.pop(key, None) != session:
            self._beacons.pop(key, None)
        for gone in evict_oldest(self._sessions, SESSIONS_MAX):
            self._beacons.pop(gone, None)
        self._sessions[key] = session
        if event.xid is not None:
            self._xids.pop(event.xid, None)
            evict_oldest(self._xids, XIDS_MAX)
            self._xids[event.xid] = key
        return session

    def holding(self, xid: int) -> KnownSession | None:
        """Return the session that was seen with a transaction id (64 bits)."""
        key = self._xids.get(xid)
        return self._sessions.get(key) if key is not None else None

    def by_beacon(
        self, beacon: Beacon, where: tuple[str, str, str | None], identities: Identities, conflict: bool = False
    ) -> Attribution:
        """Attribute to the session that a beacon names; `where` is cluster, database, instance."""
        key = (beacon.pid, beacon.backend_start_us)
        came = self._came.get(key)
        if came is not None and came.server_port != beacon.client_port:
            came = None
        if came is not None:
            # The server sees the gateway; whose session it is, and where from, the gateway knows.
            beacon = replace(
                beacon,
                client_addr=came.client_addr,
                client_port=came.client_port,
                auth_method=beacon.auth_method or came.auth_method,
            )
        said = (
            beacon.session_user,
            beacon.role,
            beacon.application,
            beacon.client_addr,
            beacon.client_port,
            beacon.claim,
            beacon.token,
            beacon.authenticated,
            where,
            conflict,
        )
        remembered = self._beacons.get(key)
        if remembered is not None and remembered[0] == said:
            return remembered[1]
        attribution = by_beacon(beacon, self._sessions.get(key), where, identities, conflict, self._login(beacon), came)
        evict_oldest(self._beacons, BEACONS_MAX)
        self._beacons[key] = (said, attribution)
        return attribution

    def came(self, event: Session) -> None:
        """Take up where a session comes from that a gateway has logged in."""
        key = (event.pid, event.backend_start_us)
        self._came.pop(key, None)
        evict_oldest(self._came, SESSIONS_MAX)
        self._came[key] = came_by(event)
        self._beacons.pop(key, None)

    def forwarded(self, session: LogSession, cluster: str, identities: Identities) -> Attribution | None:
        """Attribute what a gateway forwarded to who logged in there; None where it is not known to have come there."""
        came = self._came.get((session.pid, session.start_us or 0))
        if came is None:
            return None
        attribution = self._forwarded.get(session)
        if attribution is None:
            attribution = by_log(session, cluster, identities, "own", came=came)
            evict_oldest(self._forwarded, BEACONS_MAX)
            self._forwarded[session] = attribution
        return attribution

    def logged_in(self, event: Session) -> None:
        """Take up as whom a session logged in, by the log; the sessions that it lists may not be looked at in time."""
        key = (event.pid, event.backend_start_us // SECOND_US)
        self._logins.pop(key, None)
        if event.role is not None:
            evict_oldest(self._logins, SESSIONS_MAX)
            self._logins[key] = event.role

    def _login(self, beacon: Beacon) -> str | None:
        return self._logins.get((beacon.pid, beacon.backend_start_us // SECOND_US)) if self._logins else None

    def forget_xids(self) -> None:
        """Forget which session had which transaction id."""
        self._xids = {}

    def forget_names(self) -> None:
        """Ask the identities again, because they have changed."""
        self._beacons.clear()
        self._forwarded.clear()

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.sessions = list(self._sessions.values())
        state.xids = list(self._xids.items())
        state.logins = list(self._logins.items())
        state.came = list(self._came.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._sessions = {(session.pid, session.backend_start_us): session for session in state.sessions}
        self._xids = dict(state.xids)
        self._logins = dict(state.logins)
        self._came = dict(state.came)
