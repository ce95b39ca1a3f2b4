"""Says what can be captured from a database, with which certainty, what is in the way and the exact fix.

`inspect` asks the server with the collectors' own role, `assess` judges what it said and is pure; `pgwitness doctor`
prints the result. Fixes are statements or commands that can be pasted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from collectors.installation import source
from collectors.installation.catalogue import Connection
from collectors.installation.publishing import PUBLICATIONS
from collectors.installation.source import BeaconStatus
from collectors.installation.steps import Options
from pgwitness.core.events import Certainty, quote_identifier

SKEW_MS_MAX = 1_000
"""Clocks further apart than this make the order of events from different sources doubtful."""

Subject = Literal["reads", "writes", "ddl", "role changes", "logins"]
Severity = Literal["error", "warning"]


class Capability(Struct, frozen=True):
    """One row of the matrix: what is captured, how sure its session is, and by which means; `none`: not at all, or
    by nobody's name (`how` says which).
    """

    subject: Subject
    captured: bool
    certainty: Certainty
    how: str


class Finding(Struct, frozen=True):
    """What is wrong and the exact fix. An `error` costs evidence now, a `warning` may later."""

    severity: Severity
    subject: str
    problem: str
    fix: str


class SlotFacts(Struct, frozen=True, kw_only=True):
    """One of our replication slots; `lag_bytes` is the WAL it holds back, `safe_bytes` what may still be written."""

    name: str
    active: bool
    wal_status: str | None
    lag_bytes: int | None
    safe_bytes: int | None


class Facts(Struct, frozen=True, kw_only=True):
    """What the server said. `skew_ms` is its clock minus ours, `round_trip_ms` how long the asking took."""

    database: str
    version: int
    user: str
    superuser: bool
    replication: bool
    monitor: bool
    standby: bool
    settings: dict[str, str]
    slots_used: int
    senders_used: int
    statements_extension: bool
    publications: tuple[str, ...]
    slots: tuple[SlotFacts, ...]
    skew_ms: float
    round_trip_ms: float
    beacon: BeaconStatus


class Matrix(Struct, frozen=True, kw_only=True):
    """The answer for one database of one cluster."""

    database: str
    version: int
    capabilities: tuple[Capability, ...]
    findings: tuple[Finding, ...]
    facts: Facts

    @property
    def in_order(self) -> bool:
        """Whether nothing costs evidence now."""
        return all(finding.severity != "error" for finding in self.findings)


_SETTINGS = (
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_slot_wal_keep_size",
    "shared_preload_libraries",
    "track_activities",
    "log_line_prefix",
    "log_timezone",
    "log_statement",
    "log_min_duration_statement",
    "log_connections",
    "log_destination",
    "log_error_verbosity",
    "log_min_messages",
    "logging_collector",
    "lc_messages",
    "pgaudit.log",
    "pg_stat_statements.track",
    "pg_stat_statements.track_utility",
)

_SERVER = """\
SELECT current_database(), current_setting('server_version_num')::int, r.rolname::text, r.rolsuper,
    r.rolreplication OR r.rolsuper OR EXISTS (SELECT FROM pg_roles AS p WHERE p.rolname = 'rds_replication'
        AND pg_has_role(r.oid, p.oid, 'USAGE')),
    pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE') AND pg_has_role(r.oid, 'pg_read_all_settings', 'USAGE'),
    pg_is_in_recovery(),
    (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_get_wal_senders()),
    EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'),
    ARRAY(SELECT pubname::text FROM pg_publication WHERE pubname = ANY (%s) ORDER BY 1)
FROM pg_roles AS r WHERE r.rolname = current_user"""

_SLOTS = """\
SELECT slot_name::text, active, wal_status,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        restart_lsn)::int8,
    safe_wal_size
FROM pg_replication_slots
WHERE database = current_database() AND plugin = 'pgoutput' AND slot_name LIKE 'pgwitness%' ORDER BY 1"""


def inspect(connection: Connection, now_us: Callable[[], int], options: Options | None = None) -> Facts:
    """Ask a database everything `assess` needs; `now_us` is this host's clock, microseconds since the epoch."""
    options = options or Options()
    row = connection.execute(_SERVER, (list(PUBLICATIONS),)).fetchone()
    assert row is not None
    database, version, user, superuser, replication, monitor, standby, slots, senders, extension, publications = row
    settings = connection.execute(
        "SELECT name, setting FROM unnest(%s::text[]) AS name, LATERAL current_setting(name, true) AS setting"
        " WHERE setting IS NOT NULL",
        (list(_readable(connection)),),
    ).fetchall()
    skew_ms, round_trip_ms = _skew(connection, now_us)
    return Facts(
        database=database,
        version=version,
        user=user,
        superuser=superuser,
        replication=replication,
        monitor=monitor,
        standby=standby,
        settings=dict(settings),
        slots_used=slots,
        senders_used=senders,
        statements_extension=extension,
        publications=tuple(publications),
        slots=tuple(
            SlotFacts(name=name, active=active, wal_status=status, lag_bytes=lag, safe_bytes=safe)
            for name, active, status, lag, safe in connection.execute(_SLOTS).fetchall()
        ),
        skew_ms=skew_ms,
        round_trip_ms=round_trip_ms,
        beacon=source.status(connection, options),
    )


def assess(facts: Facts) -> Matrix:
    """Judge what can be captured and what stands in the way."""
    return Matrix(
        database=facts.database,
        version=facts.version,
        capabilities=(_reads(facts), _writes(facts), _ddl(facts), _roles(), _logins(facts)),
        findings=tuple(_server(facts) + _statements(facts) + _slots(facts) + _beacon(facts)),
        facts=facts,
    )


def doctor(connection: Connection, now_us: Callable[[], int], options: Options | None = None) -> Matrix:
    """Inspect and assess in one call."""
    return assess(inspect(connection, now_us, options))


def _readable(connection: Connection) -> list[str]:
    """Name the settings this role may read; the others would be errors."""
    rows = connection.execute("SELECT name FROM pg_settings WHERE name = ANY (%s)", (list(_SETTINGS),)).fetchall()
    return [name for (name,) in rows]


def _skew(connection: Connection, now_us: Callable[[], int]) -> tuple[float, float]:
    """Compare clocks by the fastest of three round trips; the server's answer lies in the middle of it."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = now_us()
        row: Any = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8").fetchone()
        after = now_us()
        trip = (after - before) / 1000
        if best is None or trip < best[1]:
            best = ((row[0] - (before + after) / 2) / 1000, trip)
    assert best is not None
    return best


def _statistics_work(facts: Facts) -> bool:
    loaded = "pg_stat_statements" in facts.settings.get("shared_preload_libraries", "pg_stat_statements")
    tracked = facts.settings.get("pg_stat_statements.track", "top") != "none"
    return loaded and tracked and facts.statements_extension and facts.monitor


def _reads(facts: Facts) -> Capability:
    if _statistics_work(facts):
        return Capability("reads", True, "weak", "pg_stat_statements: per role and statement, not per session")
    return Capability("reads", False, "none", "not captured: pg_stat_statements is not there for this role")


def _writes(facts: Facts) -> Capability:
    if facts.settings.get("wal_level", "logical") != "logical" or not facts.replication or not facts.publications:
        return Capability("writes", False, "none", "not captured: the WAL cannot be read")
    if not facts.beacon.working:
        return Capability("writes", True, "none", "WAL without a beacon: who wrote is known where sampling saw it")
    covered = sum(table.beacon == "installed" for table in facts.beacon.tables)
    every = len(facts.beacon.tables)
    if covered == 0:
        return Capability("writes", True, "none", "no table carries a beacon")
    return Capability("writes", True, "exact", f"WAL with the beacon on {covered} of {every} tables")


def _ddl(facts: Facts) -> Capability:
    readable = facts.settings.get("wal_level", "logical") == "logical" and facts.replication and facts.publications
    if facts.beacon.ddl == "yes" and facts.beacon.working and readable:
        return Capability("ddl", True, "exact", "event triggers; not roles, databases, settings and event triggers")
    utility = facts.settings.get("pg_stat_statements.track_utility", "on") == "on"
    if _statistics_work(facts) and utility:
        return Capability("ddl", True, "weak", "pg_stat_statements: per role and statement, not per session")
    return Capability("ddl", False, "none", "not captured: pg_stat_statements does not see utility statements here")


def _roles() -> Capability:
    return Capability("role changes", True, "none", "snapshots: what, not who; who, only a log tells")


def _logins(facts: Facts) -> Capability:
    if not facts.monitor:
        return Capability("logins", False, "none", "not captured: sessions of other roles are hidden from this one")
    how = "pg_stat_activity: short ones may be missed; refused ones only a log tells"
    return Capability("logins", True, "exact", how)


def _server(facts: Facts) -> list[Finding]:
    found = []
    settings = facts.settings
    if settings.get("wal_level", "logical") != "logical":
        fix = "ALTER SYSTEM SET wal_level = 'logical', then restart the server"
        found.append(Finding("error", "wal_level", f"it is {settings['wal_level']}: row changes cannot be read", fix))
    for name, used in (("max_replication_slots", facts.slots_used), ("max_wal_senders", facts.senders_used)):
        limit = int(settings.get(name, "10"))
        if used >= limit and not facts.slots:
            fix = f"ALTER SYSTEM SET {name} = {limit + 4}, then restart the server"
            found.append(Finding("error", name, f"all {limit} are in use: no slot for pgwitness", fix))
    if settings.get("track_activities", "on") != "on":
        fix = "ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf()"
        found.append(Finding("warning", "track_activities", "what sessions do is not shown", fix))
    if not facts.replication and not facts.standby:
        fix = f'ALTER ROLE "{facts.user}" REPLICATION'
        found.append(Finding("error", f"role {facts.user}", "it may not read the WAL", fix))
    if not facts.monitor:
        fix = f'GRANT pg_monitor TO "{facts.user}"'
        found.append(
            Finding("error", f"role {facts.user}", "it does not see other roles' sessions and statistics", fix)
        )
    if facts.superuser:
        fix = "pgwitness db install makes the role pgwitness; name it in the dsn"
        found.append(Finding("warning", f"role {facts.user}", "it is a superuser, which no collector needs", fix))
    if abs(facts.skew_ms) - facts.round_trip_ms > SKEW_MS_MAX:
        problem = f"the server's clock is {facts.skew_ms:+,.0f} ms from this host's"
        found.append(Finding("warning", "clocks", problem, "run NTP or chrony on both hosts"))
    return found


def _statements(facts: Facts) -> list[Finding]:
    libraries = facts.settings.get("shared_preload_libraries")
    if libraries is not None and "pg_stat_statements" not in libraries:
        kept = ", ".join(f"'{name.strip()}'" for name in [*libraries.split(","), "pg_stat_statements"] if name.strip())
        fix = f"ALTER SYSTEM SET shared_preload_libraries = {kept}; restart; CREATE EXTENSION pg_stat_statements"
        return [Finding("error", "pg_stat_statements", "not loaded: reads and DDL are not captured", fix)]
    found = []
    if not facts.statements_extension:
        fix = "CREATE EXTENSION pg_stat_statements"
        found.append(Finding("error", "pg_stat_statements", f"not created in database {facts.database}", fix))
    if facts.settings.get("pg_stat_statements.track", "top") == "none":
        fix = "ALTER SYSTEM SET pg_stat_statements.track = 'top'; SELECT pg_reload_conf()"
        found.append(Finding("error", "pg_stat_statements.track", "it is none: nothing is counted", fix))
    if facts.settings.get("pg_stat_statements.track_utility", "on") != "on":
        fix = "ALTER SYSTEM SET pg_stat_statements.track_utility = on; SELECT pg_reload_conf()"
        found.append(Finding("warning", "pg_stat_statements.track_utility", "it is off: DDL is not counted", fix))
    return found


def _slots(facts: Facts) -> list[Finding]:
    found = []
    if facts.slots and facts.settings.get("max_slot_wal_keep_size", "-1") == "-1":
        fix = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()"
        problem = "unlimited: a collector that is down for long can fill the disk"
        found.append(Finding("warning", "max_slot_wal_keep_size", problem, fix))
    for slot in facts.slots:
        if slot.wal_status == "lost":
            fix = f"SELECT pg_drop_replication_slot('{slot.name}'), then restart the collector: it makes a new one"
            found.append(Finding("error", f"slot {slot.name}", "its WAL is gone: a gap in the evidence", fix))
        elif slot.wal_status == "unreserved":
            problem = "the server is about to remove WAL that it needs"
            found.append(Finding("error", f"slot {slot.name}", problem, "start the collector: pgwitness collect wal"))
        elif not slot.active:
            problem = f"nobody reads it; it holds back {(slot.lag_bytes or 0) / 1e6:,.0f} MB of WAL"
            found.append(Finding("warning", f"slot {slot.name}", problem, "start the collector: pgwitness collect wal"))
    return found


def _beacon(facts: Facts) -> list[Finding]:
    found = []
    if facts.beacon.problem is not None:
        found.append(Finding("error", "beacon", facts.beacon.problem, facts.beacon.fix or "pgwitness db install"))
    missing = [name for name in PUBLICATIONS if name not in facts.publications]
    if missing:
        found.append(Finding("error", "publications", f"missing: {', '.join(missing)}", "pgwitness db install"))
    if not facts.beacon.installed:
        return found
    for name in facts.beacon.readers:
        role = quote_identifier(name)
        problem = "it has BYPASSRLS and may read every table, the key of the beacon, too: it can forge beacons"
        fix = f"ALTER ROLE {role} NOBYPASSRLS, or take its right to read; then pgwitness db rotate-key"
        found.append(Finding("warning", f"role {name}", problem, fix))
    if facts.beacon.ddl == "partly" and not facts.beacon.paused:
        problem = "an event trigger of pgwitness, or its function, is off or altered: DDL goes by without its name"
        found.append(Finding("error", "event triggers", problem, "pgwitness db install, as a superuser"))
    found += [
        Finding("warning", limit.subject, f"not here, so not seen: {limit.lost}", limit.fix)
        for limit in facts.beacon.limits
        if not limit.collector  # what the role lacks is an error, and was said
    ]
    for table in facts.beacon.tables:
        if table.problem is not None:
            severity: Severity = "warning" if table.beacon == "installed" else "error"
            found.append(Finding(severity, table.table, table.problem, table.fix or "pgwitness db install"))
    return found
