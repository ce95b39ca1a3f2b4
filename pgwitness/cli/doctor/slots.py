"""The doctor on replication slots: whether each database gets its own, or another's stands in its place.

Each database needs a slot and a walsender of the server; what is there already does not need them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, line
from pgwitness.core.errors import PgwitnessError

if TYPE_CHECKING:
    from pgwitness.core.config import Cluster

OURS = "pgoutput"
_ASK = """
SELECT slot_name::text, plugin::text, database::text, slot_type, active,
    current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int,
    (SELECT count(*) FROM pg_stat_get_wal_senders())::int
FROM (SELECT 1) AS one LEFT JOIN pg_replication_slots ON true"""


@dataclass(frozen=True)
class Slot:
    """A slot as the server has it; a physical one has neither plugin nor database."""

    name: str
    plugin: str | None
    database: str | None
    active: bool


def examine(name: str, cluster: Cluster, findings: list[Line]) -> None:
    """Ask the primary and say what is wrong."""
    from collectors.connection import connect
    from collectors.wal.database.slot import slot_name

    wanted = {slot_name(cluster.slot.name, database): database for database in cluster.databases}
    try:
        with connect(cluster, application_name="pgwitness doctor") as connection:
            rows = connection.execute(_ASK).fetchall()
    except PgwitnessError:
        return  # that the server cannot be reached is said already
    slots = [Slot(row[0], row[1], row[2], row[4]) for row in rows if row[0] is not None]
    findings += judge(name, wanted, slots, rows[0][5], rows[0][6], rows[0][7])


def judge(
    where: str, wanted: Mapping[str, str], slots: list[Slot], slots_max: int, senders_max: int, senders_used: int
) -> list[Line]:
    """Say what keeps a database from its slot. `wanted` are the databases by the names of their slots. Pure."""
    found = []
    there = {slot.name: slot for slot in slots}
    for name, database in wanted.items():
        slot = there.get(name)
        if slot is not None and (slot.plugin, slot.database) != (OURS, database):
            of = f"plugin {slot.plugin} in database {slot.database}" if slot.plugin else "a physical one"
            fix = f"set slot.name of the cluster, or SELECT pg_drop_replication_slot('{name}') if nobody needs it"
            found.append(line(f"{where}/{database}", f"slot {name}", "error", f"the name is taken: {of}", fix))
    missing = [name for name in wanted if name not in there]
    idle = [name for name in wanted if name not in there or not there[name].active]
    for setting, limit, used, needed in (
        ("max_replication_slots", slots_max, len(slots), len(missing)),
        ("max_wal_senders", senders_max, senders_used, len(idle)),
    ):
        if needed > limit - used:
            said = (
                f"{needed} more needed ({', '.join(sorted(wanted.values()))}), {max(0, limit - used)} of {limit} free"
            )
            fix = f"ALTER SYSTEM SET {setting} = {used + needed + 2}; then restart the server"
            found.append(line(where, setting, "error", said, fix))
    return found
