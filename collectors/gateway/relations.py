"""What a statement names, in full, and what runs behind its names; pure.

A name without a schema is taken to be in `public`, as `pgwitness policy try` takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from pgwitness.core.sql.parsetree import Handle, worst
from pgwitness.core.sql.statements import StatementFacts


def in_full(known: StatementFacts) -> StatementFacts:
    """Return what a statement does with its relations named in full; names of the system stay as they are written."""
    full = {name: f"public.{name}" for name in known.relations if "." not in name and not name.startswith("pg_")}
    if not full:
        return known

    def column(name: str) -> str:
        table, point, last = name.rpartition(".")
        return f"{full[table]}.{last}" if point and table in full else name

    return replace(
        known,
        relations=tuple(full.get(name, name) for name in known.relations),
        columns=tuple(map(column, known.columns)),
        assigned=tuple(map(column, known.assigned)),
        whole=tuple(full.get(name, name) for name in known.whole),
    )


def running(known: StatementFacts, targets: Sequence[Handle]) -> StatementFacts:
    """Return what a statement does together with what the names stand for that it runs."""
    if not targets:
        return known
    ran = [word for handle in targets for word in handle.operations]
    return replace(
        known,
        operations=_with(ran, known.operations),
        relations=_with(known.relations, (name for handle in targets for name in handle.relations)),
        columns=_with(known.columns, (name for handle in targets for name in handle.columns)),
        functions=_with(known.functions, (name for handle in targets for name in handle.functions)),
        whole=_with(known.whole, (name for handle in targets for name in handle.whole)),
        where=worst([known.where, *(handle.where for handle in targets)]),
        returning=known.returning or any(handle.returning for handle in targets),
    )


def _with(names: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*names, *more]))
