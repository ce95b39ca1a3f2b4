"""Sessions as the log tells them: how each authenticated, that it began, that it was refused, that it ended.

A session that was authorized may yet be refused (an unknown role, a full server), so it is told as connected when it
has done something else, or after `WAIT_US` of the log's time. How it authenticated is remembered, since its later lines
do not say it, with whether the line that said it was certain to be the server's (`proven`).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec.structs import replace

from collectors.log.formats.record import LOCAL, LogRecord
from collectors.log.interpretation.forms import address, ends_startup, named
from collectors.log.interpretation.provenance import weaker
from pgwitness.core.events import LogFormat, LogPlace, Session, Trust

WAIT_US = 1_000_000
SESSIONS_MAX = 10_000
CONNECTING_MAX = 1_000

Operation = Literal["connect", "disconnect", "login_failed"]

_AUTHENTICATED = re.compile(r'connection authenticated: (?:identity|user)="(?P<identity>.*)" method=(?P<method>\S+)')
_APPLICATION = re.compile(r" application_name=(?P<name>.*?)(?: (?:SSL|GSS) .*)?$", re.DOTALL)
_DISCONNECTION = re.compile(r"disconnection: session time: (\d{1,9}):(\d\d):(\d\d(?:\.\d+)?)")


class Logins:
    """What is known of one server's sessions, by the key that the interpreter gives each."""

    def __init__(self, log_format: LogFormat) -> None:
        self.auth: dict[str, tuple[str, str]] = {}
        """How sessions authenticated: method and identity."""
        self.proven: set[str] = set()
        self.connecting: dict[str, Session] = {}
        """Sessions that were authorized and have done nothing yet."""
        self._format = log_format

    def method(self, key: str, trust: Trust) -> str | None:
        """Return how a session authenticated, for a line of it; a certain line says nothing that is not."""
        auth = self.auth.get(key)
        return auth[0] if auth is not None and (trust != "certain" or key in self.proven) else None

    def due(self, key: str, record: LogRecord) -> list[Session]:
        """Return the sessions that have begun, as a line of the session `key` shows."""
        found: list[Session] = []
        while self.connecting:
            first, session = next(iter(self.connecting.items()))
            if record.time_us - session.occurred_at_us < WAIT_US:
                break
            del self.connecting[first]
            found.append(session)
        if key in self.connecting and not (record.severity == "FATAL" and ends_startup(record)):
            found.append(self.connecting.pop(key))
        return found

    def idle(self) -> list[Session]:
        """Return all sessions that wait."""
        found = list(self.connecting.values())
        self.connecting.clear()
        return found

    def authenticated(self, key: str, record: LogRecord, trust: Trust) -> None:
        """Take up how a session has authenticated."""
        found = _AUTHENTICATED.match(record.message)
        if found is None:
            return
        self.auth.pop(key, None)
        while len(self.auth) >= SESSIONS_MAX:
            gone = next(iter(self.auth))
            del self.auth[gone]
            self.proven.discard(gone)
        self.auth[key] = (found["method"], found["identity"])
        (self.proven.add if trust == "certain" else self.proven.discard)(key)

    def authorized(self, key: str, record: LogRecord, place: LogPlace, at_us: int, trust: Trust) -> list[Session]:
        """Keep a session that may begin; return one that has to make room for it."""
        message = record.message
        said = _APPLICATION.search(message)
        record = replace(record, application=said["name"] if said is not None else "")
        kind = "walsender" if message.startswith("replication") else record.backend_type or "client backend"
        gone = [self.connecting.pop(next(iter(self.connecting)))] if len(self.connecting) >= CONNECTING_MAX else []
        self.connecting[key] = self._told(key, record, "connect", place, at_us, trust, backend_type=kind)
        return gone

    def refused(self, key: str, record: LogRecord, place: LogPlace, at_us: int, trust: Trust) -> Session:
        """Tell a session that was refused."""
        told = self._told(key, record, "login_failed", place, at_us, trust, sqlstate=record.sqlstate)
        self.forget(key)
        return told

    def disconnected(self, key: str, record: LogRecord, place: LogPlace, at_us: int, trust: Trust) -> Session:
        """Tell the end of a session."""
        time = _DISCONNECTION.match(record.message)
        took = (int(time[1]) * 3600 + int(time[2]) * 60 + float(time[3])) * 1000 if time is not None else None
        kind = record.backend_type or "client backend"
        told = self._told(key, record, "disconnect", place, at_us, trust, backend_type=kind, duration_ms=took)
        self.forget(key)
        return told

    def forget(self, key: str) -> None:
        """Forget how a session authenticated."""
        self.auth.pop(key, None)
        self.proven.discard(key)

    def _told(
        self,
        key: str,
        record: LogRecord,
        operation: Operation,
        place: LogPlace,
        at_us: int,
        trust: Trust,
        **more: Any,
    ) -> Session:
        method, identity = self.auth.get(key, ("", ""))
        if method and key not in self.proven:
            trust = weaker(trust, "likely")
        client_addr = address(record.host)
        return Session(
            captured_at_us=at_us,
            operation=operation,
            occurred_at_us=record.time_us,
            pid=record.pid,
            backend_start_us=record.start_us or 0,
            role=record.user or named(record.message),
            database=record.database,
            application=record.application or "",
            client_addr=None if client_addr == LOCAL else client_addr,
            client_port=record.port,
            auth_method=method or None,
            identity=identity or None,
            place=place,
            format=self._format,
            trust=trust,
            **more,
        )
