"""The doctor on `identities.yaml`: rules that never win, rules that named nobody, sessions that nobody names.

Sessions are those of the last hour in the lake and those that are there now, on every instance that can be reached;
the rules are the file's as it is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, line
from pgwitness.core.errors import ConfigurationError, NotInOrder, Unreachable

if TYPE_CHECKING:
    import duckdb

    from collectors.sessions.activity import Ourselves
    from pgwitness.core.config import Cluster, Config
    from streams.identity.identities import Identities
    from streams.identity.unnamed import Seen

UNNAMED_MAX = 100
"""Kinds of sessions that are listed; how many more there are is said."""
IDS_MAX = 20

_HOUR = "captured_at >= now() - INTERVAL 1 HOUR AND dt >= (now() - INTERVAL 1 HOUR)::DATE"

_SESSIONS = f"""
SELECT cluster, database, role, application, coalesce(client_addr, 'local'), auth_method,
    detail ->> '$.certificate.dn', detail ->> '$.certificate.issuer', detail ->> '$.certificate.serial', binding,
    count(DISTINCT session_id)
FROM sessions
WHERE operation <> 'login_failed' AND {_HOUR} AND list_contains($clusters, cluster)
    AND NOT list_contains($here, session_id)
GROUP BY ALL"""

_RULES = f"SELECT DISTINCT identity_rule FROM events WHERE identity_rule IS NOT NULL AND {_HOUR}"


def examine(config: Config, findings: list[Line]) -> list[Line]:
    """Read the file and hold sessions against it; gives those without a name, what is wrong goes into `findings`."""
    from streams.identity.file import IdentityFile
    from streams.identity.reach import unreachable
    from streams.identity.unnamed import sort_out

    file = str(config.identities.file)
    try:
        identities = IdentityFile(config.identities.file).load()
    except ConfigurationError as error:
        findings.append(line("files", "identities", "error", str(error)))
        return []
    findings.append(line("files", "identities", "ok", f"{file}: {len(identities.rules)} rules"))
    never = unreachable(identities)
    findings += [line("identities", f"rule {rule.rule}", "warning", rule.why, rule.fix) for rule in never]
    here, ids, ours = _here(config)
    past, used = _past(config, ids, ours)
    answer = sort_out(identities, [*here, *past])
    if used is not None:
        idle = _idle(identities, used | answer.rules | {rule.rule for rule in never})
        findings += [line("identities", "rules", "info", idle)] if idle else []
    rows: list[Line] = [
        {
            "cluster": item.cluster,
            "sessions": item.sessions,
            "role": item.role,
            "application": item.application,
            "client_addr": item.client_addr,
            "rule": item.rule,
        }
        for item in answer.unnamed
    ]
    if rows:
        sessions = sum(item.sessions for item in answer.unnamed)
        more = f", of which {UNNAMED_MAX} are listed" if len(rows) > UNNAMED_MAX else ""
        found = f"no rule names {sessions} sessions of the last hour, of {len(rows)} kinds{more}"
        findings.append(line("identities", "sessions", "warning", found, f"append rules for them to {file}"))
    return rows[:UNNAMED_MAX]


def _idle(identities: Identities, used: set[str] | frozenset[str]) -> str:
    idle = [rule.id for rule in identities.rules if rule.id not in used]
    if not idle:
        return ""
    more = f" and {len(idle) - IDS_MAX} more" if len(idle) > IDS_MAX else ""
    return f"named nobody in the last hour: {', '.join(idle[:IDS_MAX])}{more}"


def _here(config: Config) -> tuple[list[Seen], list[str], list[tuple[str, Ourselves]]]:
    """Give the sessions of this moment, their ids, and how each cluster knows the collectors' own.

    An instance that cannot be reached was told of already.
    """
    seen: list[Seen] = []
    ids: list[str] = []
    ours: list[tuple[str, Ourselves]] = []
    for name, cluster in config.clusters.items():
        for dsn in (cluster.dsn, *cluster.replicas):
            with contextlib.suppress(Unreachable):
                ours.append((name, _look(name, cluster, dsn, seen, ids)))
    return seen, ids, ours


def _look(name: str, cluster: Cluster, dsn: str, seen: list[Seen], ids: list[str]) -> Ourselves:
    from collectors.connection import connect, instance_name
    from collectors.sessions.activity_source import look, ourselves
    from pgwitness.core.events import session_id
    from streams.identity.identities import NO_CERTIFICATE, Facts
    from streams.identity.unnamed import Seen

    with connect(cluster, dsn, application_name="pgwitness doctor") as connection:
        own = ourselves(connection)
        answer = look(connection, own)
    for one in answer.look.backends:
        facts = Facts(
            name, one.database, one.role, one.application, one.client_addr or "local", one.auth_method,
            certificate=one.certificate or NO_CERTIFICATE,
        )  # fmt: skip
        seen.append(Seen(facts, 1))
        ids.append(session_id(instance_name(dsn), one.backend_start_us, one.pid))
    return own


def _past(config: Config, here: list[str], ours: list[tuple[str, Ourselves]]) -> tuple[list[Seen], set[str] | None]:
    """Give the sessions of the last hour but those that are still there, and the rules that named; None: no lake."""
    from sinks.lake.opening import lake_store
    from sinks.sql.catalogue import connect

    try:
        connection = connect(lake_store(config))
    except (NotInOrder, Unreachable):
        return [], None
    try:
        used = {str(rule) for (rule,) in connection.execute(_RULES).fetchall()}
        return _sessions(connection, sorted(config.clusters), here, ours), used
    finally:
        connection.close()


def _sessions(
    connection: duckdb.DuckDBPyConnection, clusters: list[str], here: list[str], ours: list[tuple[str, Ourselves]]
) -> list[Seen]:
    """Give sessions of the lake by their facts, without the collectors' own, which the server's log tells too."""
    from collectors.sessions.activity import Backend
    from pgwitness.core.events import Certificate
    from streams.identity.identities import NO_CERTIFICATE, Facts
    from streams.identity.unnamed import Seen

    found: list[Seen] = []
    rows = connection.execute(_SESSIONS, {"clusters": clusters, "here": here}).fetchall()
    for cluster, database, role, application, address, method, dn, issuer, serial, binding, number in rows:
        backend = Backend(0, 0, role, database, application or "", None if address == "local" else address)
        if any(own.is_own(backend) for name, own in ours if name == cluster):
            continue
        certificate = Certificate(dn, issuer, serial) if (dn, issuer, serial) != (None, None, None) else NO_CERTIFICATE
        unseen = binding == "log" and address != "local"  # the log does not tell certificates
        facts = Facts(
            cluster, database, role, application, address, method, certificate=None if unseen else certificate
        )
        found.append(Seen(facts, number))
    return found
