"""What an EXECUTE runs, by the server's own DETAIL behind it: `prepare: PREPARE p AS DELETE FROM pay`.

The server adds the text with which a statement was prepared to each line that tells of an EXECUTE, unless
`log_error_verbosity` is `terse`. Of several in one text it is that of the first.
"""

from __future__ import annotations

from functools import lru_cache

from pgwitness.core.events import Parsed
from pgwitness.core.messages import translations
from pgwitness.core.sql.statements import StatementFacts, facts
from pgwitness.core.sql.tree.collected import worst
from pgwitness.core.sql.tree.facts import Handle

_MESSAGE = "prepare: %s"


def ran(statement: str, detail: str) -> Parsed | None:
    """Return what a statement does that executes a prepared one; None where the detail does not say it."""
    source = _source(detail)
    known = facts(statement, freed=True)
    name = next((handle.name for handle in known.handles if handle.verb == "execute"), None)
    if source is None or name is None:
        return None
    behind = _behind(facts(source), name)
    if behind is None:
        return None
    return Parsed(
        operations=_union(behind.operations, known.operations),
        relations=_union(known.relations, behind.relations),
        columns=_union(known.columns, behind.columns),
        functions=_union(known.functions, behind.functions),
        settings=list(known.settings),
        objects=list(known.objects),
        where=worst([known.where, behind.where]),
        utility=True,
        whole=_union(known.whole, behind.whole),
        returning=known.returning or behind.returning,
        written=_union(known.written, behind.written),
    )


def _behind(known: StatementFacts, name: str) -> StatementFacts | Handle | None:
    """Find what stands behind a name: the PREPARE of that name, or a text that a driver has prepared."""
    prepares = [handle for handle in known.handles if handle.verb == "prepare"]
    if prepares:
        named = [handle for handle in prepares if handle.name == name]
        return named[-1] if named else None
    return known if known.parse_error is None else None


def _source(detail: str) -> str | None:
    for before, after in _around():
        if detail.startswith(before) and detail.endswith(after):
            return detail[len(before) : len(detail) - len(after)]
    return None


@lru_cache(maxsize=1)
def _around() -> tuple[tuple[str, str], ...]:
    forms = [form for language in translations(_MESSAGE)[_MESSAGE].values() for form in language]
    return tuple((before, after) for before, _, after in (form.partition("%s") for form in forms))


def _union(names: tuple[str, ...], more: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys([*names, *more]))
