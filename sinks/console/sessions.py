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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

SESSIONS_MAX = 10_000
"""Beyond this the one that was idle longest ends."""
FAILURES_MAX, FAILURES_OF_ADDRESS_MAX = 5, 20
"""Of a name from an address, and of an address with whatever names."""
FAILURES_S, DOUBLED_MAX = 300.0, 4
"""The first wait, and how often it doubles: to eighty minutes."""
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
    """Makes guessing slow: after so many failures for a key a wait, and after each further one twice as long a wait.

    Keys have to name where somebody comes from: of a name alone anybody could keep its owner out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, limits: Mapping[str, int]) -> bool:
        """Say whether another try may be made, by keys and how many failures each may have."""
        with self._lock:
            return all(self._wait_s(key, most) <= 0 for key, most in limits.items())

    def is_first_refusal(self, limits: Mapping[str, int]) -> bool:
        """Say whether this is the first try that is refused in a wait: who goes on trying writes no evidence by it."""
        with self._lock:
            waiting = [self._failures[key] for key, most in limits.items() if self._wait_s(key, most) > 0]
            first = any(not one.told for one in waiting)
            for one in waiting:
                one.told = True
            return first

    def failed(self, keys: Iterable[str]) -> None:
        """Count a failure."""
        with self._lock:
            for key in keys:
                known = self._failures.get(key)
                count = known.count if known is not None and not self._is_over(known) else 0
                self._failures[key] = _Failures(count + 1, self._clock())
                self._failures.move_to_end(key)
            while len(self._failures) > THROTTLED_MAX:
                self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures."""
        with self._lock:
            self._failures.pop(key, None)

    def taken_back(self, key: str) -> None:
        """Count one failure less: it was none."""
        with self._lock:
            known = self._failures.get(key)
            if known is not None and known.count > 0:
                known.count -= 1

    def _wait_s(self, key: str, most: int) -> float:
        known = self._failures.get(key)
        if known is None or known.count < most or self._is_over(known):
            return 0.0
        return FAILURES_S * (1 << min(known.count - most, DOUBLED_MAX)) - (self._clock() - known.at_s)

    def _is_over(self, known: _Failures) -> bool:
        """Say whether failures are forgotten: as long after the last as the longest wait, and once more."""
        return self._clock() - known.at_s >= FAILURES_S * (2 << DOUBLED_MAX)


@dataclass
class _Failures:
    count: int
    at_s: float
    told: bool = False
