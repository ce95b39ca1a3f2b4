"""A session of the gateway as it is now, for whoever asks: pure but for the time, which is an argument."""

from __future__ import annotations

from typing import Final

from collectors.gateway.connection import Connection
from collectors.gateway.judging.judge import Judging
from collectors.gateway.session.actions import Moment
from pgwitness.core.events import session_id
from pgwitness.core.runtime.control import LiveSession

_STATES: Final = {"I": "idle", "T": "idle in transaction", "E": "idle in transaction (aborted)"}


def identity(connection: Connection) -> str:
    """Name a session as its evidence does (`session_id`)."""
    opened = connection.opened
    return session_id(opened.instance, opened.backend_start_us, opened.pid)


def live(connection: Connection, judging: Judging, process: int, now: Moment) -> LiveSession:
    """Tell of a session."""
    opened, seen = connection.opened, connection.look()
    person = judging.rules.name(opened, seen.application)
    return LiveSession(
        session_id=identity(connection),
        process=process,
        principal=person.principal,
        principal_kind=person.kind,
        on_behalf_of=person.on_behalf_of,
        assurance=person.assurance,
        intent=connection.intent or None,
        cluster=opened.cluster,
        instance=opened.instance,
        database=opened.database,
        role=opened.role,
        application=seen.application,
        client_addr=opened.client_addr,
        client_port=opened.client_port,
        encrypted=opened.encrypted,
        auth_method=opened.auth_method,
        pid=opened.pid,
        since_us=opened.at_us,
        state="active" if seen.active else _STATES[seen.status],
        state_since_us=now.us - max(0, now.ns - seen.since_ns) // 1000 if seen.since_ns else opened.at_us,
        statement=seen.statement,
        statements=seen.statements,
        rows=seen.rows,
    )
