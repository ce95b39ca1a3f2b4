"""Who is logged in: sessions kept here, of which the browser has nothing but a random name. Pure; time is an argument.

A session's name is made when somebody logs in, never taken from the browser, and kept as its hash. It ends by its age,
by idleness, by logging out, and with the process. `Throttle` makes guessing passwords slow.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

SESSIONS_MAX = 10_000
"""Beyond this the one that was idle longest ends."""
FAILURES_MAX, FAILURES_S = 5, 300.0
THROTTLED_MAX = 10_000


@dataclass
class Session:
    """One login; `csrf` stands in every form of it, `public` names it to an administrator."""

    user: str
    address: str
    began_s: float
    seen_s: float
    roles: tuple[str, ...] | None = None
    """Those that the provider gave; none where the file of users has them."""
    credential: str = ""
    """The hash of the password that somebody logged in with; none where a provider vouched for them."""
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    public: str = field(default_factory=lambda: secrets.token_hex(8))

    def wrote(self, token: str) -> bool:
        """Say whether a form is one of this session."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.csrf.encode())


class Sessions:
    """All sessions of a process. Several threads may ask."""

    def __init__(self, lifetime_s: float, idle_s: float, clock: Callable[[], float]) -> None:
        self._lifetime_s, self._idle_s, self._clock = lifetime_s, idle_s, clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(
        self, user: str, address: str, roles: tuple[str, ...] | None = None, credential: str = ""
    ) -> tuple[str, Session]:
        """Make a session; returns its name, which is kept nowhere here, and itself."""
        name, now_s = secrets.token_urlsafe(32), self._clock()
        session = Session(user, address, now_s, now_s, roles, credential)
        with self._lock:
            self._sessions[_hash(name)] = session
            while len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)
        return name, session

    def get(self, name: str, *, touch: bool = True) -> Session | None:
        """Return a session that still holds; with `touch` this is a sign of life of whoever has it."""
        key = _hash(name)
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if self._over(session):
                del self._sessions[key]
                return None
            if touch:
                session.seen_s = self._clock()
                self._sessions.move_to_end(key)
            return session

    def end(self, name: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hash(name), None)

    def end_public(self, public: str) -> Session | None:
        """End the session that an administrator names; returns it, None when there is none."""
        with self._lock:
            for key, session in self._sessions.items():
                if session.public == public:
                    return self._sessions.pop(key)
        return None

    def all(self) -> list[Session]:
        """List the sessions that hold, the latest sign of life first."""
        with self._lock:
            return [session for session in reversed(self._sessions.values()) if not self._over(session)]

    def _over(self, session: Session) -> bool:
        now_s = self._clock()
        return now_s - session.began_s >= self._lifetime_s or now_s - session.seen_s >= self._idle_s


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()


class Throttle:
    """After `FAILURES_MAX` failures for a name or from an address, `FAILURES_S` without another try."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, *keys: str) -> bool:
        """Say whether another try may be made."""
        with self._lock:
            return all(self._count(key) < FAILURES_MAX for key in keys)

    def failed(self, *keys: str) -> None:
        """Count a failure."""
        with self._lock:
            for key in keys:
                self._failures[key] = (self._count(key) + 1, self._clock())
                self._failures.move_to_end(key)
            while len(self._failures) > THROTTLED_MAX:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def taken_back(self, key: str) -> None:
        """Count one failure less: it was none."""
        with self._lock:
            count, at_s = self._failures.get(key, (0, 0.0))
            if count > 0:
                self._failures[key] = (count - 1, at_s)

    def _count(self, key: str) -> int:
        count, at_s = self._failures.get(key, (0, 0.0))
        return count if self._clock() - at_s < FAILURES_S else 0
