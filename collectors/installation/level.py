"""The level of an installation: what it cannot see, and the statement with which a more powerful role lifts it. Pure.

Who may not do everything (the administrator of a managed service, an owner of tables) installs what it may; nothing of
that is an error. What a more powerful role ran in the meantime is found there and used by the next installation.
"""

from __future__ import annotations

from msgspec import Struct

from collectors.installation.catalogue import State
from collectors.installation.sql import covering, ddl_templates, emission
from collectors.installation.sql.emission import GUARD
from collectors.installation.sql.templates import OWNER, SCHEMA
from pgwitness.core.events import quote_identifier

AGAIN = "pgwitness db install"


class Limit(Struct, frozen=True):
    """One thing that this level lacks: what is `lost` by it, and the `fix`, SQL for a more powerful role.

    `collector`: it is about the collectors' own role.
    """

    subject: str
    lost: str
    fix: str
    collector: bool = False


def limits(state: State, role: str) -> tuple[Limit, ...]:
    """List what an installation lacks; `role` is the collectors'. Nothing where nothing is installed."""
    if "beacon" not in state.functions:
        return ()
    found: list[Limit] = []
    if state.functions["beacon"] == emission.beacon_body(False):
        lost = "nothing is unseen; the beacon speaks with each statement instead of once a transaction, in more WAL"
        grant = f"GRANT SET ON PARAMETER {GUARD} TO {OWNER}"
        fix = grant if state.guard_setting == "" else f"ALTER SYSTEM RESET {GUARD}; SELECT pg_reload_conf()"
        found.append(Limit("guard", lost, f"{fix}; then {AGAIN}"))
    if not state.owner_monitor:
        lost = (
            "when a session of another role began, so that its id is not unique over time; and who is behind a"
            " superuser's SET SESSION AUTHORIZATION"
        )
        found.append(Limit("sight of sessions", lost, f"GRANT pg_read_all_stats TO {OWNER}"))
    if not state.event_triggers:
        found.append(Limit("event triggers", _NO_DDL, event_triggers_sql(state)))
    found += _of_the_collectors(state, role)
    if any(state.event_triggers.get(name) != "A" for name in covering.EVENTS):
        found.append(Limit("keys that go", _NO_KEEPING, f"{AGAIN}, as a superuser"))
    if not state.kept and state.keeper is None:
        found.append(Limit("dumps", _IN_DUMPS, f"{AGAIN}, as a superuser"))
    return tuple(found)


_IN_DUMPS = (
    "nothing, but pg_dump of who may not read the key fails, and others' dumps hold it: this role owns no extension"
    " that keeps it out; pg_dump --exclude-schema pgwitness does"
)
_NO_DDL = (
    "DDL is known by role from statistics, not by session; what a drop took along from snapshots only; new tables, also"
    " one that takes a covered table's name or inherits from it, are not read before the next installation"
)
_NO_KEEPING = (
    "nothing, but updates of a table fail from where its owner drops its primary key until the collector has taken it"
    " out of the publication, some seconds after the commit; who migrates sets REPLICA IDENTITY FULL before it; new"
    " tables wait for the next installation"
)


def event_triggers_sql(state: State) -> str:
    """Write what a role that may make event triggers runs; `ddl` must be there, whoever installed it."""
    if "ddl" not in state.functions:
        return f"{AGAIN}, as a superuser"
    return "; ".join(
        sql for name in ddl_templates.EVENT_TRIGGERS for sql in ddl_templates.create_event_trigger(name)[1:]
    )


def _of_the_collectors(state: State, role: str) -> list[Limit]:
    if state.collector is None or state.collector.superuser:
        return []
    found: list[Limit] = []
    subject, quoted = f"role {role}", quote_identifier(role)
    if not state.collector.replication:
        lost = "row changes, and with them who made them: the role may not read the WAL"
        found.append(Limit(subject, lost, replication_sql(state, role), collector=True))
    if not state.collector.monitor:
        lost = "other roles' sessions and statistics: logins and reads"
        found.append(Limit(subject, lost, f"GRANT pg_monitor TO {quoted}", collector=True))
    if not {"key", "covered"} <= set(state.grants):
        lost = f"whose transactions are: the role may not read {SCHEMA}.key"
        found.append(Limit(subject, lost, AGAIN, collector=True))
    return found


def replication_sql(state: State, role: str) -> str:
    """Write how the role gets to read the WAL here; Amazon RDS has a role of its own for it."""
    quoted = quote_identifier(role)
    return f"GRANT rds_replication TO {quoted}" if state.rds else f"ALTER ROLE {quoted} REPLICATION"
