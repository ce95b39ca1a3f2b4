"""What was read from the server: snapshots of its posture, and what its statistics counted.

Both know what, and not who. The server's log does, so both wait until it was read past them
(`streams.fold.joins.log_wait`), if there is something to wait for, and are then told with the session that it gives: by
what a statement says (`streams.fold.joins.posture_join`), or by how often one ran (`streams.fold.joins.stats_join`).
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Event, Posture, QueryStats, RawHeader
from pgwitness.core.sql.statements import facts
from streams.fold.cluster import Cluster
from streams.fold.events.observed import observed_event, posture_event
from streams.fold.events.statistics import statistics_event
from streams.fold.joins.log_wait import PATIENCE_US
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.statements import HeldReading
from streams.fold.sessions.attribution import NOBODY, by_log, by_role, by_role_in_force
from streams.fold.shares import by_effect
from streams.fold.told import SEEN_AS
from streams.identity.identities import Identities


def take(cluster: Cluster, header: RawHeader, raw: Posture | QueryStats, grace_us: int) -> HeldReading | None:
    """Take up a reading that was not told yet; gives it back when it need not wait."""
    if isinstance(raw, Posture):
        whole = cluster.log_settings.transactions
        wait = raw.change != "found" and raw.window_start_us is not None
    else:
        whole = wait = cluster.coverage.source is not None
    held = HeldReading(header, raw, raw.captured_at_us + grace_us + PATIENCE_US, whole)
    waits = wait and grace_us > 0 and cluster.log.followed and cluster.readings.hold(held)
    return None if waits else held


def tell(cluster: Cluster, held: HeldReading, identities: Identities) -> list[Event]:
    """Make the events of a reading, with who did it where the log says so."""
    if isinstance(held.raw, Posture):
        return [_posture(cluster, held, held.raw, identities)]
    told = _query_stats(cluster, held.header, held.raw, identities)
    lost = cluster.coverage.query_stats(told)
    return [told] if lost is None else [told, observed_event(held.header, lost)]


def _posture(cluster: Cluster, held: HeldReading, raw: Posture, identities: Identities) -> Event:
    name = held.header.cluster
    found = cluster.posture.decide(
        raw,
        held.instance,
        lambda session: by_log(session, name, identities, "statement"),
        is_read=cluster.readings.is_read(held),
        whole=held.whole,
    )
    whose = NOBODY
    if found.session is not None:
        whose = by_log(found.session, name, identities, found.how)
        if found.several:
            whose = _of_several(whose)
    told = posture_event(held.header, raw, whose, found)
    cluster.told.posture(told, raw)
    return told


def _query_stats(cluster: Cluster, header: RawHeader, raw: QueryStats, identities: Identities) -> Event:
    fingerprint = facts(raw.statement, freed=True).fingerprint if raw.statement is not None else None
    found = cluster.stats.count(raw, header.instance, fingerprint)
    if found.session is None:
        whose = by_role(header.cluster, raw.database, raw.role, identities)
        if cluster.coverage.source is not None and cluster.log.followed and (found.another or not found.told):
            whose = by_role_in_force(raw.role)  # whoever had logged in as that role would stand in the log
    else:
        whose = by_log(found.session, header.cluster, identities, found.how)
        if found.several:
            whose = _of_several(whose)
        elif raw.calls > 1:
            whose = replace(whose, trace_id=None, agent=None)  # which are those of the last run
    told = statistics_event(header, raw, whose)
    cluster.through(told)
    if found.temporary:
        told.relations = [_temporary(name) for name in told.relations]
        told.columns = [_temporary(name) for name in told.columns]
    cluster.relations.resolve(told)
    cluster.views.ran(told)
    by_effect(cluster.shares, told)
    cluster.told.query_stats(told)
    if found.told:
        told.detail[SEEN_AS] = "statement"
    if found.undone:
        told.outcome = "rolled_back"
    return told


def _of_several(whose: Attribution) -> Attribution:
    """Leave the principal, and take away what only one of its sessions has."""
    return replace(whose, pid=None, client_port=None, session_id=None, trace_id=None, agent=None)


def _temporary(name: str) -> str:
    """Name a temporary relation, or a column of one."""
    return name if name.startswith("pg_temp.") else f"pg_temp.{name}"
