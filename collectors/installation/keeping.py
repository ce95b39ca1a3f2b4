"""Decides what an installation does for the key: its table, who reads it, a new one, and that no dump holds it; pure.

Each function gives statements with the reason of each, in order; `planning` puts them into its plan.
"""

from __future__ import annotations

from collectors.installation.catalogue import State
from collectors.installation.sql import key_templates, templates
from collectors.installation.sql.templates import OWNER, SCHEMA
from pgwitness.core.events import quote_identifier

Step = tuple[str, str]
"""A statement, and why it is run."""

GROUP = "members"
"""The transaction in which what is ours goes into an extension, or out of it."""

_OWNED = "so that it runs with nobody else's rights"


def moves(state: State) -> bool:
    """Say whether the key lies where dumps hold it, as earlier versions left it, and is to be changed."""
    return "key" in state.relations and "key" not in state.hidden


def generation(state: State) -> int:
    """Give the generation that the functions are to be of."""
    return state.generation + 1 if moves(state) else state.generation


def tables(state: State) -> list[Step]:
    """Plan the tables of the key and of what is covered, in the form that only their owner and the collectors read.

    A table that is there in another form is locked first, at once or not at all: nobody is to wait behind us.
    """
    plan: list[Step] = []
    if "key" not in state.hidden:
        if moves(state):
            plan.append((f"LOCK TABLE {SCHEMA}.key IN ACCESS EXCLUSIVE MODE NOWAIT", "it gets another form"))
            plan.append((f"ALTER TABLE {SCHEMA}.key RENAME TO key_before", "it may stand in dumps"))
            plan.append((f"ALTER INDEX {SCHEMA}.key_pkey RENAME TO key_before_pkey", "likewise"))
        plan.append((key_templates.CREATE_KEY, "the key of the beacon's MAC, in no dump and no WAL"))
        plan.append((f"ALTER TABLE {SCHEMA}.key OWNER TO {OWNER}", _OWNED))
        plan.append((key_templates.hide("key"), "also from pg_read_all_data and pg_write_all_data"))
        if moves(state):
            plan.append((key_templates.COPY_KEY, "what it has signed is still to be verified"))
            plan.append((f"DROP TABLE {SCHEMA}.key_before", "nothing reads it any more"))
    if "covered" not in state.relations:
        plan.append((templates.CREATE_COVERED, "which tables carry a beacon: a write without one is a finding there"))
        plan.append((f"ALTER TABLE {SCHEMA}.covered OWNER TO {OWNER}", _OWNED))
    elif "covered" not in state.hidden:
        plan.append((f"LOCK TABLE {SCHEMA}.covered IN ACCESS EXCLUSIVE MODE NOWAIT", "it gets another form"))
        plan.append((f"ALTER TABLE {SCHEMA}.covered SET UNLOGGED", "no subscriber of somebody else has that table"))
    if "covered" not in state.hidden:
        plan.append((key_templates.hide("covered"), "nobody else takes a table out of it"))
    return plan


def key(state: State) -> list[Step]:
    """Plan a key where there is none, or none of this cluster and generation; after the functions."""
    fresh = (f"SELECT {SCHEMA}.fresh_key({generation(state)})", "made here; only the collectors' role reads it")
    if "key" not in state.relations:
        return [fresh]
    if moves(state):
        return [fresh, (f"SELECT {SCHEMA}.control('rotate_key')", "the change is evidence, too")]
    if state.key_whole:
        return []
    return [(f"SELECT {SCHEMA}.renew_key()", "it was lost, or of another cluster: pg_upgrade, a restore")]


def grants(state: State, role: str) -> list[Step]:
    """Plan what lets the collectors' role read the key and the registry, and have a lost key made anew."""
    plan: list[Step] = []
    quoted = quote_identifier(role)
    missing = [name for name in ("key", "covered") if name not in state.grants or name not in state.hidden]
    if missing or "renew_key" not in state.grants:
        plan.append((f"GRANT USAGE ON SCHEMA {SCHEMA} TO {quoted}", "for the collectors"))
        plan.append((f"GRANT EXECUTE ON FUNCTION {SCHEMA}.renew_key() TO {quoted}", "to have a lost key made anew"))
    for name in missing:
        plan.append((f"GRANT SELECT ON {SCHEMA}.{name} TO {quoted}", "to verify beacons, and to miss them"))
        plan += [(sql, "its rows are hidden from everybody else") for sql in key_templates.show(name, role)]
    return plan


def members(state: State, changed: bool) -> list[Step]:
    """Plan the membership in an extension, which keeps all of it out of every dump; `changed`: more is made before."""
    if state.keeper is None or (state.kept and not changed):
        return []
    return [(key_templates.keep(state.keeper), "no dump holds what an extension brought")]


def rotate(state: State, speaking: list[Step]) -> list[Step]:
    """Plan a new key; `speaking` are the functions that speak, written for the generation after this one."""
    return [
        (f"SELECT {SCHEMA}.fresh_key({state.generation + 1})", "made here; only the collectors' role reads it"),
        *speaking,
        (f"SELECT {SCHEMA}.control('rotate_key')", "the change is evidence, too"),
    ]
