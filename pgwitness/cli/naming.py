"""Names for sessions of the gateway, by `identities.yaml`: the fold's own, so that evidence has the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streams.fold.memory.sessions import Came, LogSession
from streams.fold.sessions.attribution import by_log
from streams.identity.identities import Identities

if TYPE_CHECKING:
    from collectors.gateway.judging.judge import Namer, Person
    from collectors.gateway.spool.records import Opened


def namer_of(text: str, source: str) -> Namer:
    """Read the text of a file. Raise `ConfigurationError` that names it, the rule and what is wrong."""
    from collectors.gateway.judging.judge import Person

    identities = Identities.parse(text, source)

    def name(opened: Opened, application: str) -> Person:
        session = LogSession(
            opened.pid,
            opened.backend_start_us,
            opened.instance,
            opened.role,
            opened.database,
            application,
            opened.client_addr or "local",
            opened.client_port,
            opened.auth_method,
            sure=True,
            trust="certain",
        )
        came = Came(
            opened.client_addr,
            opened.client_port,
            opened.server_port,
            opened.auth_method,
            opened.token,
            opened.certificate,
            opened.user,
        )
        found = by_log(session, opened.cluster, identities, "own", came=came)
        agent = msgspec.json.encode(found.agent) if found.agent is not None else b""
        return Person(
            found.principal, found.principal_kind, found.on_behalf_of, found.peer_group, found.assurance, agent
        )

    return name
