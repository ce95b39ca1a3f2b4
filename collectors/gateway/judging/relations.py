"""What a statement names, in full, and what runs behind its names; pure.

A name without a schema is any relation of that name (`collectors.gateway.judging.catalogue`); where nothing is known of
it, it is taken to be in `public`, as `pgwitness policy try` takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from collectors.gateway.judging.catalogue import EMPTY, FOLLOWED_MAX, Catalogue, View
from pgwitness.core.sql.parsetree import Handle, Made, worst
from pgwitness.core.sql.statements import StatementFacts


def in_full(known: StatementFacts, catalogue: Catalogue = EMPTY) -> StatementFacts:
    """Return what a statement does with its relations named in full, together with what its functions and views do."""
    if known.made:
        catalogue = catalogue.with_made(known.made)
    if known.functions and catalogue.functions:
        known = _with_bodies(known, catalogue.called(known.functions))
    full = {name: catalogue.meant(name) for name in known.relations}
    known = replace(
        known,
        relations=_each(known.relations, full),
        columns=tuple(name for column in known.columns for name in _columns(column, full)),
        assigned=tuple(name for column in known.assigned for name in _columns(column, full)),
        whole=_each(known.whole, full),
    )
    return _with_views(known, catalogue.views) if catalogue.views else known


def _with_views(known: StatementFacts, views: Mapping[str, View]) -> StatementFacts:
    """Add what stands behind the views that a statement names, and behind those."""
    waiting, seen = list(known.relations), set[str]()
    while waiting and len(seen) < FOLLOWED_MAX:
        name = waiting.pop(0)
        view = None if name in seen else views.get(name)
        seen.add(name)
        if view is not None:
            asked = {column.rpartition(".")[2] for column in known.columns if column.rpartition(".")[0] == name}
            waiting += view.relations
            known = replace(
                known,
                relations=_with(known.relations, view.relations),
                columns=_with(known.columns, view.behind(asked)),
                whole=_with(known.whole, view.whole if name in known.whole else ()),
            )
    return known


def _with_bodies(known: StatementFacts, bodies: Iterable[Made]) -> StatementFacts:
    for body in bodies:
        known = replace(
            known,
            operations=_with(known.operations, body.operations),
            relations=_with(known.relations, body.relations),
            columns=_with(known.columns, body.columns),
            functions=_with(known.functions, body.functions),
            whole=_with(known.whole, body.whole),
            where=worst([known.where, body.where]),
        )
    return known


def _each(names: Iterable[str], full: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(meant for name in names for meant in full.get(name, (name,))))


def _columns(column: str, full: Mapping[str, tuple[str, ...]]) -> list[str]:
    table, point, last = column.rpartition(".")
    return [f"{meant}.{last}" for meant in full[table]] if point and table in full else [column]


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
