"""What the session collector asks of a server: one query a look."""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from collectors.sessions.activity import Backend, Look, Ourselves, authenticates, certificate
from collectors.xids import widen

Connection = psycopg.Connection[tuple[Any, ...]]

# Names of certificates come as bytes: PostgreSQL cuts long ones, perhaps in the middle of a character.
# Who has no role yet is still logging in: a later look has it, or the log if it fails.
# clock_timestamp() comes before the rows are read, so whoever is missing in them was gone by then or came later.
_LOOK = """
SELECT (extract(epoch FROM now.at) * 1000000)::int8, now.next_xid, a.pid,
  (extract(epoch FROM a.backend_start) * 1000000)::int8, a.usename::text, a.datname::text, a.application_name,
  host(a.client_addr), a.client_port, a.backend_type, a.backend_xid::text::int8,
  textsend(s.client_dn), textsend(s.issuer_dn), s.client_serial::text, g.gss_authenticated
FROM (SELECT clock_timestamp() AS at, pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS next_xid) AS now
LEFT JOIN pg_catalog.pg_stat_activity AS a
  ON (a.backend_type IN ('client backend', 'walsender') AND a.usesysid IS NOT NULL) OR a.backend_type IS NULL
LEFT JOIN pg_catalog.pg_stat_ssl AS s ON s.pid = a.pid
LEFT JOIN pg_catalog.pg_stat_gssapi AS g ON g.pid = a.pid
ORDER BY a.pid"""


class Answer(Struct, frozen=True):
    """A look, and how many sessions hide their facts from the collector's role."""

    look: Look
    hidden: int


def ourselves(connection: Connection) -> Ourselves:
    """Ask how the server sees us."""
    row = connection.execute("SELECT pg_backend_pid(), session_user::text, host(inet_client_addr())").fetchone()
    assert row is not None
    return Ourselves(frozenset({int(row[0])}), str(row[1]), row[2])


def look(connection: Connection, own: Ourselves) -> Answer:
    """Read the sessions that are not our own."""
    rows = connection.execute(_LOOK).fetchall()
    backends: list[Backend] = []
    hidden = 0
    for _, next_xid, pid, start, role, database, application, addr, port, kind, xid, dn, issuer, serial, gss in rows:
        if pid is None:
            continue
        if start is None:
            hidden += 1
            continue
        shown = certificate(dn, issuer, serial)
        backend = Backend(
            pid=int(pid),
            backend_start_us=int(start),
            role=role,
            database=database,
            application=application or "",
            client_addr=addr,
            client_port=port,
            auth_method="gss" if gss else "cert" if authenticates(shown, role) else None,
            backend_type=str(kind),
            xid=widen(int(xid), int(next_xid)) if xid is not None else None,
            certificate=shown,
        )
        if not own.is_own(backend):
            backends.append(backend)
    return Answer(Look(int(rows[0][0]), backends), hidden)
