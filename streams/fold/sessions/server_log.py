"""What lines of the server's log have said of a cluster: which line came last, which session had which transaction.

How a session is named is remembered, because it says the same of itself in a thousand lines. The log writes
transaction ids without their epoch, modulo 2^32; among those that are remembered that tells them apart.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import LogPlace, Statement, Transaction
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.attribution import Attribution, Corroborated
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession
from streams.fold.sessions.attribution import by_log, log_session
from streams.identity.identities import Identities

XIDS_MAX = 20_000
LOGS_MAX = 1_000
CORROBORATED_MAX = 20_000
NAMED_MAX = 10_000
"""Sessions whose attribution is remembered; forgetting costs time only."""
STEP_MAX = 1 << 40
"""A tebibyte of log between two events of one file."""
XID_MODULUS = 1 << 32


class ServerLog:
    """The logs of one cluster's instances; forgotten oldest first."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._reached: dict[tuple[str | None, str], tuple[int, int]] = {}
        self._xids: dict[int, LogSession] = {}
        self._corroborated: dict[int, Corroborated] = {}
        self._named: dict[LogSession, Attribution] = {}

    @property
    def followed(self) -> bool:
        """Whether a log has reported anything."""
        return bool(self._reached)

    def is_known(self, instance: str | None, place: LogPlace) -> bool:
        """Return whether an event of the log was reported already; if not, it is now.

        Raise `ValueError` for a place that no log can have come to: believed, it would silence the file.
        """
        key = (instance, place.log)
        if place.offset - self._reached.get(key, (0, 0))[0] > STEP_MAX:
            raise ValueError(f"the place {place.offset} in a log is not plausible")
        reached = self._reached.pop(key, None)
        here = (place.offset, place.index)
        known = reached is not None and here <= reached
        evict_oldest(self._reached, LOGS_MAX)
        self._reached[key] = reached if known and reached is not None else here
        self._undo.add(lambda: self._set(key, reached))
        return known

    def _set(self, key: tuple[str | None, str], reached: tuple[int, int] | None) -> None:
        if reached is None:
            self._reached.pop(key, None)
        else:
            self._reached[key] = reached

    def see(self, event: Statement, instance: str | None) -> LogSession:
        """Take up whose a statement is, and the transaction id in its line."""
        session = log_session(event, instance)
        if event.xid is not None and event.role is not None:
            earlier = self._xids.pop(event.xid, None)
            evict_oldest(self._xids, XIDS_MAX)
            if earlier is not None and session.trust == "claimed" != earlier.trust:
                # Whoever can write a line names no transaction that a better one has named.
                self._xids[event.xid] = earlier
                return session
            # One object for all the lines of a transaction; what a comment said once stays said.
            known = earlier is not None and session in (earlier, replace(earlier, tags=()))
            self._xids[event.xid] = earlier if known and earlier is not None else session
        return session

    def own(self, session: LogSession, cluster: str, identities: Identities) -> Attribution:
        """Attribute a line of the log to the session that it names."""
        attribution = self._named.get(session)
        if attribution is None:
            attribution = by_log(session, cluster, identities, "own")
            evict_oldest(self._named, NAMED_MAX)
            self._named[session] = attribution
        return attribution

    def forget_xids(self) -> None:
        """Forget which session had which transaction id."""
        self._xids = {}

    def forget_names(self) -> None:
        """Ask the identities again, because they have changed."""
        self._named.clear()

    def corroborate(self, xid: int, who: Corroborated) -> None:
        """Take up who a transaction is of by stronger evidence than a comment."""
        self._corroborated.pop(xid % XID_MODULUS, None)
        evict_oldest(self._corroborated, CORROBORATED_MAX)
        self._corroborated[xid % XID_MODULUS] = who

    def corroborated(self, xid: int | None) -> Corroborated | None:
        """Return who a transaction is known to be of."""
        return self._corroborated.get(xid) if xid is not None else None

    def holding(self, part: Transaction) -> LogSession | None:
        """Return the session whose line had a transaction's id: ids come again, after four thousand million."""
        session = self._xids.get(part.xid % XID_MODULUS)
        return session if session is not None and session.database in (None, part.database) else None

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint, each session once."""
        sessions: dict[LogSession, int] = {}
        state.logs = list(self._reached.items())
        state.log_xids = [(xid, sessions.setdefault(session, len(sessions))) for xid, session in self._xids.items()]
        state.log_sessions = list(sessions)
        corroborations: dict[Corroborated, int] = {}
        state.corroborated = [
            (xid, corroborations.setdefault(who, len(corroborations))) for xid, who in self._corroborated.items()
        ]
        state.corroborations = list(corroborations)

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._reached = dict(state.logs)
        self._xids = {xid: state.log_sessions[place] for xid, place in state.log_xids}
        self._corroborated = {xid: state.corroborations[place] for xid, place in state.corroborated}
