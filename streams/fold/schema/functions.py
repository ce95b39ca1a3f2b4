"""What functions run: a statement that calls one carries the relations of its body, where that is known.

The collector reads bodies from the catalogue (`FUNCTIONS`) and says what PostgreSQL's parser says of them, and whether
all of it runs whenever the function does. A call is looked up by its name in full, or through the schemas of its
session's path; what a body calls itself is looked up likewise. After DDL on a function nothing is known of it until it
was read again. What is not read (other languages, functions of extensions, text made at run time) adds nothing:
`detail.through` names what did.

Bounded, and in the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from pgwitness.core.events import Ddl, Event, Posture
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.statements import FunctionBody
from streams.fold.schema.bodies import take_up

FUNCTIONS = "functions"
"""The type of a posture record that reports what functions run; no event comes of it."""
FUNCTIONS_MAX = 10_000
NAMES_MAX, CHARS_MAX = 100, 4_000
"""What is remembered of one function: names, and their characters."""
CALLS_MAX = 50
"""Functions looked into for one statement."""
THROUGH = "through"

_TYPES = ("function", "procedure", "routine")
_NAME = re.compile(r'((?:"(?:[^"]|"")*"|[^".(])+\.(?:"(?:[^"]|"")*"|[^".(])+)\(')


class Functions:
    """The functions of one cluster, by database and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], FunctionBody] = {}

    # -- what is there -----------------------------------------------------------------------------------------

    def posture(self, event: Posture) -> bool:
        """Take up what was read of functions; return whether the record was about that, of which no event comes."""
        if event.object_type != FUNCTIONS:
            return False
        take_up(self._known, event, "runs", _body, FUNCTIONS_MAX)
        return True

    def ddl(self, database: str, commands: Iterable[Ddl], committed_at_us: int) -> None:
        """Forget what commands changed, unless it was read since."""
        if not self._known:
            return
        for command in commands:
            for item in (*command.objects, *command.dropped):
                found = _NAME.match(item.identity) if item.type in _TYPES else None
                known = self._known.get((database, found[1])) if found is not None else None
                if found is not None and known is not None and known.at_us <= committed_at_us:
                    del self._known[database, found[1]]
            if command.tag == "ALTER SCHEMA":
                for key in [key for key in self._known if key[0] == database]:
                    del self._known[key]

    # -- statements --------------------------------------------------------------------------------------------

    def ran(self, event: Event, path: Iterable[str]) -> None:
        """Put the relations and columns of the functions that a statement calls into its event."""
        called = event.detail.get("functions")
        if not self._known or not isinstance(called, list) or not called:
            return
        steps: list[dict[str, object]] = []
        for name, body in self._bodies(event.database or "", [str(name) for name in called], tuple(path)):
            event.relations = list(dict.fromkeys([*event.relations, *body.relations]))
            event.columns = list(dict.fromkeys([*event.columns, *body.columns]))
            if body.relations or body.operations:
                steps.append(
                    {
                        "function": name,
                        "operations": list(body.operations),
                        "relations": list(body.relations),
                        "certain": body.certain,
                    }
                )
        if steps:
            event.detail[THROUGH] = steps

    def _bodies(self, database: str, names: list[str], path: tuple[str, ...]) -> Iterator[tuple[str, FunctionBody]]:
        """Return the functions that are known of those called, and of those that these call."""
        seen: set[str] = set()
        certain = dict.fromkeys(names, True)
        while names and len(seen) < CALLS_MAX:
            called = names.pop(0)
            name = self._find(database, called, path)
            if name is None or name in seen:
                continue
            seen.add(name)
            body = self._known[database, name]
            sure = certain[called] and body.certain
            for inner in body.functions:
                certain[inner] = certain.get(inner, False) or sure
                names.append(inner)
            yield name, body if sure == body.certain else msgspec.structs.replace(body, certain=sure)

    def _find(self, database: str, name: str, path: tuple[str, ...]) -> str | None:
        if (database, name) in self._known:
            return name
        if "." in name:
            return None
        return next((full for schema in path if (database, full := f"{schema}.{name}") in self._known), None)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.functions = list(self._known.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._known = {(database, name): body for (database, name), body in state.functions}


def _body(at_us: int, entry: object) -> FunctionBody | None:
    try:
        certain, *lists = msgspec.convert(entry, tuple[bool, list[str], list[str], list[str], list[str]])
    except msgspec.ValidationError:
        return None
    if (
        any(len(names) > NAMES_MAX for names in lists)
        or sum(len(name) for names in lists for name in names) > CHARS_MAX
    ):
        return None
    operations, relations, columns, functions = map(tuple, lists)
    return FunctionBody(at_us, certain, operations, relations, columns, functions)
