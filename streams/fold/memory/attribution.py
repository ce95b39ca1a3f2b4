"""Who an event is attributed to, as records carry it and checkpoints keep it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pgwitness.core.events import (
    Assurance,
    Binding,
    Certainty,
    PrincipalKind,
    Token,
)

Join = Literal["xid", "session_time", "statement", "count"]
"""How lines of the log were joined: to a transaction by its id, or by session and time; to posture by what they say; to
statistics by how often they say it."""


class Attribution(Struct, frozen=True, array_like=True):
    """Whose a transaction or session is; the fields are those of `Event`. `finding` goes into its `detail`."""

    principal: str | None = None
    principal_kind: PrincipalKind = "unknown"
    on_behalf_of: str | None = None
    peer_group: str | None = None
    binding: Binding = "none"
    certainty: Certainty = "none"
    assurance: Assurance = "none"
    identity_rule: str | None = None
    role: str | None = None
    effective_role: str | None = None
    application: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    pid: int | None = None
    auth_method: str | None = None
    session_id: str | None = None
    claim: str | None = None
    owner: str | None = None
    finding: str | None = None
    agent: dict[str, object] | None = None
    trace_id: str | None = None
    token: Token | None = None
    join: Join | None = None
    became: str | None = None
    network: str | None = None


class Corroborated(Struct, frozen=True, array_like=True):
    """Who a transaction is of by evidence that is stronger than a comment; `names` are all that act in it."""

    principal: str
    kind: PrincipalKind
    on_behalf_of: str | None
    names: tuple[str, ...] = ()
