"""From what is known of a session to an `Attribution`: how it was bound, how sure that is, and who it names.

Pure functions; the fold decides which of them applies. `certainty` says whether the event is that session's,
`assurance` (from `streams.identity.identities`) whether the session is that principal's; neither is ever raised by the
other.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pgwitness.core.events import Assurance, Beacon, Binding, Certainty, Session, Statement, Trust, session_id
from streams.fold.memory.attribution import Attribution, Join
from streams.fold.memory.sessions import Came, KnownSession, LogSession
from streams.fold.sessions import comments
from streams.identity import claims
from streams.identity.identities import NO_CERTIFICATE, Facts, Identities, Named

NOBODY = Attribution()
SHADOW = Attribution(finding="shadow_write")
"""Rows on a table with a beacon, but no beacon: somebody switched it off, or writes round it."""

BINDINGS: dict[str, tuple[Binding, Certainty]] = {
    "beacon": ("beacon", "exact"),
    "conflict": ("beacon", "weak"),
    "claimed": ("beacon", "weak"),
    "announced": ("beacon", "exact"),
    "sample": ("activity", "strong"),
    "own": ("activity", "exact"),
    "line": ("log", "exact"),
    "likely line": ("log", "strong"),
    "claimed line": ("log", "weak"),
    "ran alone": ("log", "strong"),
    "time": ("log", "weak"),
    "statement": ("log", "strong"),
    "statements": ("log", "weak"),
    "counted": ("log", "strong"),
    "counted in several": ("log", "weak"),
    "statistics": ("stats", "weak"),
}


_JOINS: dict[str, Join | None] = {
    "own": None,
    "xid": "xid",
    "statement": "statement",
    "statements": "statement",
    "counted": "count",
    "counted in several": "count",
}


def _attribution(named: Named, how: str, **session: Any) -> Attribution:
    """Put a name, how the event was bound (a key of `BINDINGS`) and the facts of the session together."""
    binding, certainty = BINDINGS[how]
    return Attribution(
        principal=named.principal,
        principal_kind=named.kind,
        on_behalf_of=named.on_behalf_of,
        peer_group=named.peer_group,
        binding=binding,
        certainty=certainty,
        assurance=named.assurance,
        identity_rule=named.rule,
        owner=named.owner,
        network=named.network,
        **session,
    )


def by_beacon(
    beacon: Beacon,
    session: KnownSession | None,
    where: tuple[str, str, str | None],
    identities: Identities,
    conflict: bool = False,
    logged_in: str | None = None,
    came: Came | None = None,
) -> Attribution:
    """Attribute a transaction to the session that its verified beacon names; `where` is cluster, database, instance.

    Of a session that `came` through a gateway its token and certificate count as what the client showed there, and the
    role that it has proven to be, whichever it was logged in as.

    What pg_stat_activity showed of the same session adds how it authenticated, where the beacon does not say. Of
    beacons that contradict each other the first counts, as a weak one, and so does one that is not authenticated; what
    that one says is no more than asserted. A verified token outranks every rule that does not ask for its claims; one
    that was refused names nobody.
    """
    cluster, database, instance = where
    # SET SESSION AUTHORIZATION makes a session appear as another; who logged in is who acts.
    login = (session.role if session is not None else None) or logged_in or beacon.session_user
    # A certificate of the role's own, which pg_stat_activity shows, proves it also beside a password.
    auth_method = (session.auth_method if session is not None else None) or beacon.auth_method
    address = beacon.client_addr or "local"
    token = claims.believed(beacon.token)
    shown = NO_CERTIFICATE if address == "local" else None
    if session is not None:
        shown = session.certificate or NO_CERTIFICATE
    if came is not None:
        shown = came.certificate or NO_CERTIFICATE
        token = token if beacon.token is not None else claims.believed(came.token)
    said = claims.facts(token)
    user = login if came is None or came.user is None else came.user
    named = identities.name(Facts(cluster, database, user, beacon.application, address, auth_method, said, shown))
    if token is not None:
        named = claims.name(token, named)
    if not beacon.authenticated:
        named = replace(named, assurance="asserted" if named.assurance == "verified" else named.assurance)
    finding = "identity_conflict" if conflict else "claim_refused" if claims.refused(beacon.token) else None
    return _attribution(
        named,
        "conflict" if conflict else "beacon" if beacon.authenticated else "claimed",
        role=login,
        effective_role=beacon.role,
        became=beacon.session_user if beacon.session_user != login else None,
        application=beacon.application,
        client_addr=beacon.client_addr,
        client_port=beacon.client_port,
        pid=beacon.pid,
        auth_method=auth_method,
        session_id=session_id(session.instance if session else instance, beacon.backend_start_us, beacon.pid),
        claim=beacon.claim,
        finding=finding,
        agent=claims.agent(token) if token is not None else None,
        trace_id=claims.trace_id(token) if token is not None else None,
        token=beacon.token if token is None else None,
    )


def by_session(
    session: KnownSession, cluster: str, identities: Identities, how: str, finding: str | None = None
) -> Attribution:
    """Attribute to a session of pg_stat_activity: `how` is `sample` (its xid was seen) or `own` (it is its event)."""
    named = identities.name(
        Facts(
            cluster,
            session.database,
            session.role,
            session.application,
            session.client_addr or "local",
            session.auth_method,
            certificate=session.certificate or NO_CERTIFICATE,
        )
    )
    return _attribution(
        named,
        how,
        role=session.role,
        application=session.application,
        client_addr=session.client_addr,
        client_port=session.client_port,
        pid=session.pid,
        auth_method=session.auth_method,
        session_id=session_id(session.instance, session.backend_start_us, session.pid),
        finding=finding,
    )


def by_log(
    session: LogSession,
    cluster: str,
    identities: Identities,
    how: str,
    finding: str | None = None,
    came: Came | None = None,
) -> Attribution:
    """Attribute to the session of a line of the server's log; `how` is one of `own`, `xid`, `ran alone`, `time`.

    `own`: the event is that line itself. `xid`: it is a transaction whose id the line carries: the server wrote session
    and id in one message. Either is exact where the line is certain to be the server's, strong where that is likely;
    what rests on a line that only claims to be is weak. `statement`, `statements`: it is what they changed
    (`streams.fold.joins.posture_join`). `counted`, `counted in several`: it is how often they ran
    (`streams.fold.joins.stats_join`). The others are `streams.fold.joins.log_join`'s. `came`: it is the gateway's own
    word, and what the session showed there; a verified token outranks every rule that does not ask for its claims.
    """
    token = claims.believed(came.token) if came is not None else None
    shown = NO_CERTIFICATE if session.client_addr == "local" else None
    if came is not None:
        shown = came.certificate or NO_CERTIFICATE
    facts = Facts(
        cluster,
        session.database,
        session.role if came is None or came.user is None else came.user,
        session.application,
        session.client_addr,
        # Nobody is verified by what a session may have written itself.
        session.auth_method if session.trust == "certain" else None,
        claims=claims.facts(token),
        certificate=shown,
    )
    named = comments.name(facts, session.tags, identities)
    if token is not None:
        named = claims.name(token, named)
    tags = dict(session.tags)
    join = _JOINS.get(how, "session_time")
    return _attribution(
        named,
        _bound(session.trust, how),
        join=join,
        role=session.role,
        application=session.application,
        client_addr=None if session.client_addr == "local" else session.client_addr,
        client_port=session.client_port,
        pid=session.pid,
        auth_method=session.auth_method,
        session_id=session_id(session.instance, session.start_us, session.pid) if session.start_us else None,
        finding=finding,
        agent=claims.agent(token) if token is not None else comments.agent(tags) if tags else None,
        trace_id=(comments.trace_id(tags) if tags else None) or (claims.trace_id(token) if token is not None else None),
        token=came.token if came is not None and token is None else None,
    )


def attempted(attribution: Attribution) -> Attribution:
    """Return whose a refused login is: nobody's, for anybody can claim a name; its role is what was claimed.

    Who had authenticated before he was refused (the server is full, there is no such database) has proven the name,
    unless the server asks for no proof.
    """
    if proven(attribution):
        assurance: Assurance = "none" if attribution.assurance == "none" else "asserted"
        return replace(attribution, certainty="weak", assurance=assurance)
    return replace(
        NOBODY,
        binding=attribution.binding,
        certainty="weak",
        role=attribution.role,
        application=attribution.application,
        client_addr=attribution.client_addr,
        client_port=attribution.client_port,
        pid=attribution.pid,
        auth_method=attribution.auth_method,
        session_id=attribution.session_id,
        token=attribution.token,
    )


def proven(attribution: Attribution) -> bool:
    """Return whether a session that was refused had proven its name before."""
    return attribution.auth_method not in (None, "trust")


def _bound(trust: Trust, how: str) -> str:
    """Return the key of `BINDINGS` for a line of the log; a claimed one makes nothing stronger than itself."""
    if how in ("own", "xid"):
        return _LINES[trust]
    return how if trust != "claimed" or BINDINGS[how][1] == "weak" else _LINES[trust]


_LINES: dict[Trust, str] = {"certain": "line", "likely": "likely line", "claimed": "claimed line"}


def log_session(line: Statement | Session, instance: str | None) -> LogSession:
    """Keep of a line of the log what attribution asks for."""
    if isinstance(line, Session):
        return LogSession(
            line.pid,
            line.backend_start_us or None,
            instance,
            line.role,
            line.database,
            line.application,
            line.client_addr or "local",
            line.client_port,
            line.auth_method,
            line.format != "stderr" and line.trust != "claimed",
            (),
            line.trust,
        )
    return LogSession(
        line.pid,
        line.session_start_us,
        instance,
        line.role,
        line.database,
        line.application,
        line.client_addr,
        line.client_port,
        line.auth_method,
        line.format != "stderr" and line.trust != "claimed",
        tuple(line.tags.items()),
        line.trust,
    )


def by_role(cluster: str, database: str, role: str, identities: Identities) -> Attribution:
    """Attribute statistics: they know the role and nothing else of who ran the statement."""
    facts = Facts(cluster, database, role, None, None, claims=None, certificate=None)
    return _attribution(identities.name(facts), "statistics", role=role)


def by_role_in_force(role: str) -> Attribution:
    """Attribute statistics of a role that somebody else may have taken on: the role, and nobody's name."""
    binding, certainty = BINDINGS["statistics"]
    return Attribution(binding=binding, certainty=certainty, role=role)


def by_announcement(cluster: str, database: str, role: str, identities: Identities) -> Attribution:
    """Attribute what was done to the beacon: its authenticated message in the WAL names the role that did it."""
    facts = Facts(cluster, database, role, None, None, claims=None, certificate=None)
    return _attribution(identities.name(facts), "announced", role=role)


def by_origin(origin: str) -> Attribution:
    """Attribute replicated rows to the replication that brought them; who wrote them there is in that evidence."""
    return Attribution(
        principal=f"replication:{origin}",
        principal_kind="service",
        binding="replication",
        certainty="strong",
        peer_group="replication",
    )


def known(session: Session, instance: str | None) -> KnownSession:
    """Keep of a raw session event what later attribution asks for."""
    return KnownSession(
        session.pid,
        session.backend_start_us,
        instance,
        session.role,
        session.database,
        session.application,
        session.client_addr,
        session.client_port,
        session.auth_method,
        session.certificate,
    )


def came_by(session: Session) -> Came:
    """Keep of a gateway's session what later attribution asks for."""
    return Came(
        session.client_addr,
        session.client_port,
        session.server_port,
        session.auth_method,
        session.token,
        session.certificate,
        session.user,
    )
