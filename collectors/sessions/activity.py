"""Who came, who went and who has a transaction id, from two looks at pg_stat_activity.

Pure. A session is (pid, backend_start): a pid alone comes again. A session that lives shorter than the interval
between two looks is not seen here; statistics and beacons still show what it did.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pgwitness.core.events import Certificate, Session


class Backend(Struct, frozen=True):
    """One row of pg_stat_activity, of a client or a walsender; `xid` has 64 bits."""

    pid: int
    backend_start_us: int
    role: str | None = None
    database: str | None = None
    application: str = ""
    client_addr: str | None = None
    client_port: int | None = None
    auth_method: str | None = None
    backend_type: str = "client backend"
    xid: int | None = None
    certificate: Certificate | None = None


class Look(Struct, frozen=True):
    """The sessions at one time by the server's clock."""

    taken_at_us: int
    backends: list[Backend]


class Ourselves(Struct, frozen=True):
    """How to know the collectors' own sessions: one of these pids, or all of role, name and address."""

    pids: frozenset[int]
    role: str
    client_addr: str | None
    application: str = "pgwitness"

    def is_own(self, backend: Backend) -> bool:
        """Return whether a session is pgwitness's own. A name alone proves nothing: whoever uses it would be hidden."""
        return backend.pid in self.pids or (
            backend.role == self.role
            and backend.client_addr == self.client_addr
            and backend.application.startswith(self.application)
        )


NAME_BYTES_MAX = 62
"""PostgreSQL cuts a longer name of a certificate (NAMEDATALEN, 64 with the byte that ends it); one of 63 may be cut."""


def certificate(dn: bytes | None, issuer: bytes | None, serial: str | None) -> Certificate | None:
    """Make a certificate of what pg_stat_ssl shows; a name that may have been cut is not known."""
    if dn is None and issuer is None and serial is None:
        return None

    def whole(name: bytes | None) -> str | None:
        if name is None or len(name) > NAME_BYTES_MAX:
            return None
        try:
            return name.decode()
        except UnicodeDecodeError:
            return None

    return Certificate(whole(dn), whole(issuer), serial)


def authenticates(shown: Certificate | None, role: str | None) -> bool:
    """Return whether a certificate proves the role: its only common name is the role's own.

    A client may show a certificate of anybody's and log in by password all the same.
    """
    if shown is None or shown.dn is None or not role:
        return False
    _, *names = shown.dn.split("/CN=")
    return len(names) == 1 and names[0].partition("/")[0] == role


def compare(before: Look | None, after: Look, captured_at_us: int, *, resumed: bool = False) -> list[Session]:
    """Tell what changed from one look to the next; without one before, everybody is found.

    `resumed`: the look before is from before a restart of the collector, so who is still there is found again.
    """
    known = {_key(backend): backend for backend in before.backends} if before is not None else {}
    events: list[Session] = []
    for backend in after.backends:
        old = known.pop(_key(backend), None)
        if old is None:
            fresh = before is not None
            at = backend.backend_start_us if fresh else after.taken_at_us
            events.append(_session(backend, "connect" if fresh else "found", at, captured_at_us))
        elif resumed:
            events.append(_session(backend, "found", after.taken_at_us, captured_at_us))
        if _worth_a_sample(old, backend):
            events.append(_session(backend, "sample", after.taken_at_us, captured_at_us))
    gone = [_session(backend, "disconnect", after.taken_at_us, captured_at_us) for backend in known.values()]
    return gone + events


def _key(backend: Backend) -> tuple[int, int]:
    return backend.pid, backend.backend_start_us


def _worth_a_sample(old: Backend | None, new: Backend) -> bool:
    if new.xid is not None and (old is None or old.xid != new.xid):
        return True
    return old is not None and (old.application, old.role, old.auth_method) != (
        new.application,
        new.role,
        new.auth_method,
    )


def _session(
    backend: Backend,
    operation: Literal["found", "connect", "disconnect", "sample"],
    occurred_at_us: int,
    captured_at_us: int,
) -> Session:
    return Session(
        captured_at_us=captured_at_us,
        operation=operation,
        occurred_at_us=occurred_at_us,
        pid=backend.pid,
        backend_start_us=backend.backend_start_us,
        role=backend.role,
        database=backend.database,
        application=backend.application,
        client_addr=backend.client_addr,
        client_port=backend.client_port,
        auth_method=backend.auth_method,
        backend_type=backend.backend_type,
        xid=backend.xid if operation == "sample" else None,
        certificate=backend.certificate,
    )
