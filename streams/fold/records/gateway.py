"""What the gateway forwarded, and who came to it: its session is known by login, so the binding is exact.

The server's log may tell of the same statement. Neither stands in for the other: a log that says less than the gateway
forwarded, or a gateway that others go around, shows by what only one of them has.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Decision, Session, Statement
from pgwitness.core.sql.statements import facts
from streams.fold.context import FoldContext
from streams.fold.events.base import line_id
from streams.fold.events.findings import approval_drift
from streams.fold.events.session import session_event
from streams.fold.events.statement import statement_event, transaction_words
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.sessions import Came, LogSession
from streams.fold.sessions.attribution import attempted, by_log, came_by, log_session

SOURCE = "gateway"


def take(context: FoldContext, raw: Statement | Decision) -> None:
    """Take what the gateway tells of a statement."""
    if isinstance(raw, Statement):
        take_statement(context, raw)
    else:
        take_decision(context, raw)


def take_statement(context: FoldContext, raw: Statement) -> None:
    """Take a statement that the gateway forwarded; it is emitted here, or waits for the end of its transaction."""
    cluster, header = context.cluster, context.header
    if _known(context, raw):
        return
    session = log_session(raw, header.instance)
    known = facts(raw.statement, freed=True) if raw.statement is not None else None
    whose = _whose(context, session)
    event = statement_event(header, raw, line_id(header, raw.place), known, whose)
    cluster.through(event, session)
    cluster.relations.resolve(event, session)
    cluster.views.ran(event)
    for decided in cluster.outcomes.forwarded(raw, session, transaction_words(raw, known), event):
        context.emit(decided)
    if raw.ran is not None and (run := cluster.drift.ran(event, raw, whose)) is not None:
        context.emit(approval_drift(header.cluster, run, raw.captured_at_us))


def take_decision(context: FoldContext, raw: Decision) -> None:
    """Take a decision of the gateway: its event has the id of where it stands, and of the statement what is known."""
    said = raw.statement
    if _known(context, said):
        return
    session = log_session(said, context.header.instance)
    known = facts(said.statement, freed=True) if said.statement is not None else None
    event = statement_event(context.header, said, line_id(context.header, said.place), known, _whose(context, session))
    context.cluster.relations.resolve(event, session)
    event.kind, event.calls = "decision", None
    event.detail["decided"] = event.operation or ""
    event.operation = raw.decided.effect
    event.outcome = "denied" if raw.decided.effect == "deny" else "unknown"
    context.emit(event)


def take_session(context: FoldContext, raw: Session) -> None:
    """Take a session that came to the gateway, left it or was refused."""
    if _known(context, raw):
        return
    session = log_session(raw, context.header.instance)
    if raw.operation == "connect":
        context.cluster.activity.came(raw)
    attribution = _whose(context, session, came_by(raw) if raw.operation == "login_failed" else None)
    claimed = attribution.principal
    if raw.operation == "login_failed":
        attribution = attempted(attribution)
    if raw.operation == "disconnect":
        for decided in context.cluster.outcomes.forwarded_ends(session, raw.captured_at_us):
            context.emit(decided)
    context.emit(session_event(context.header, raw, attribution, claimed))


def _known(context: FoldContext, raw: Statement | Session) -> bool:
    assert raw.place is not None
    known = context.cluster.spools.is_known(raw.place)
    context.partition.dropped += known
    return known


def _whose(context: FoldContext, session: LogSession, came: Came | None = None) -> Attribution:
    """Return whose a session is; of a refused one `came` is what it showed, for it is nowhere remembered."""
    cluster, identities = context.header.cluster, context.partition.identities
    if came is not None:
        found = by_log(session, cluster, identities, "own", came=came)
    else:
        known = context.cluster.activity.forwarded(session, cluster, identities)
        found = known or context.cluster.log.own(session, cluster, identities)
    return replace(found, binding="gateway")
