"""What a statement names, in full, and what runs behind its names; pure.

A name without a schema is any relation of that name (`collectors.gateway.judging.catalogue`); where nothing is known of
it, it is taken to be in `public`, as `pgwitness policy try` takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from collectors.gateway.judging.catalogue import EMPTY, FOLLOWED_MAX, Catalogue
from collectors.gateway.judging.standing import Standing
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.collected import worst
from pgwitness.core.sql.tree.facts import Handle, Made


def in_full(known: StatementFacts, catalogue: Catalogue = EMPTY) -> StatementFacts:
    """Return what a statement does with its relations named in full, together with what its functions and views do."""
    return followed(known, catalogue)[0]


def followed(known: StatementFacts, catalogue: Catalogue = EMPTY) -> tuple[StatementFacts, list[Made], bool]:
    """Return what `in_full` does, with the functions that run, and whether all of them were followed."""
    if known.made or known.attached:
        catalogue = catalogue.with_made((*known.made, *(body for body in known.attached if body.name)))
    standing = catalogue.standing
    if known.stands:
        standing = standing.with_stands(known.stands, catalogue.relations)
    ran, whole = list[Made](), True
    called = [*known.functions, *known.perhaps]
    # What something runs by itself runs anew when it is made anew.
    called += [body.name for body in known.made if catalogue.runs_attached(body.name)] if known.made else []
    for body in known.attached:
        ran.append(body)
        called += [*body.functions, *body.perhaps]
    if called and catalogue.functions:
        ran += catalogue.called(called)
        whole = len(ran) < FOLLOWED_MAX
    if ran:
        known = _with_bodies(known, ran)
    full = {name: catalogue.meant(name) for name in known.relations}
    known = replace(
        known,
        relations=_each(known.relations, full),
        columns=tuple(name for column in known.columns for name in _columns(column, full)),
        assigned=tuple(name for column in known.assigned for name in _columns(column, full)),
        whole=_each(known.whole, full),
        written=_each(known.written, full),
    )
    if standing == _STANDING:
        return known, ran, whole
    known, functions, all_of_it = _standing_for(known, standing)
    if functions and catalogue.functions:
        more = [*catalogue.called(functions)]
        known, ran = _with_bodies(known, more), [*ran, *more]
    return known, ran, whole and all_of_it


_STANDING: Final = Standing()


def _standing_for(known: StatementFacts, standing: Standing) -> tuple[StatementFacts, set[str], bool]:
    """Add what the names of a statement stand for: views, parents and parts, and what had another name."""
    assigned = set(known.assigned)
    read = [column for column in known.columns if column not in assigned]
    asked, functions, whole = standing.behind(known.relations, read)
    columns = {f"{name}.{column}" for name, names in asked.items() for column in names}
    if assigned:
        filled, _, all_of_it = standing.behind((), assigned)
        whole = whole and all_of_it
        assigned |= {f"{name}.{column}" for name, names in filled.items() for column in names} - columns
        for name in filled:
            asked.setdefault(name, set())
    wholes = list(known.whole)
    for name in wholes:
        wholes += [other for other in standing.whole(name) if other not in wholes]
    known = replace(
        known,
        relations=_with(known.relations, asked),
        columns=_with(known.columns, sorted(columns | assigned)),
        assigned=tuple(sorted(assigned)),
        whole=tuple(wholes),
    )
    return known, functions, whole


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
