"""What functions run: a statement that calls one carries the relations of its body, where that is known.

The collector reads bodies from the catalogue (`FUNCTIONS`) and says what PostgreSQL's parser says of them, and whether
all of it runs whenever the function does. A call is looked up by its name in full, or through the schemas of its
session's path; what a body calls itself is looked up likewise. After DDL on a function nothing is known of it until it
was read again, but what the log's CREATE FUNCTION says: a function may be called at once by the one who made it, and be
gone before the collector looks. What is not read (other languages, functions of extensions, text made at run time) adds
nothing: `detail.through` names what did.

Bounded, and in the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from pgwitness.core.events import Ddl, Event, MadeFunction, Posture
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.statements import FunctionBody
from streams.fold.schema.bodies import take_up

FUNCTIONS = "functions"
"""The type of a posture record that reports what functions run; no event comes of it."""
FUNCTIONS_MAX = 10_000
NAMES_MAX, CHARS_MAX = 100, 4_000
"""What is remembered of one function: names, and their characters."""
MADE_MAX = 500
"""Functions remembered as the log names them: until the collector has read them, and those that it never will."""
CALLS_MAX = 50
"""Functions looked into for one statement."""
THROUGH = "through"
_TEMPORARY = "pg_temp:"
_Names = list[str]
_Entry = tuple[bool, _Names, _Names, _Names, _Names, _Names]
"""What a collector says of one; an older one says nothing of relations that are read whole."""

_TYPES = ("function", "procedure", "routine")
_NAME = re.compile(r'((?:"(?:[^"]|"")*"|[^".(])+\.(?:"(?:[^"]|"")*"|[^".(])+)\(')


class Functions:
    """The functions of one cluster, by database and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], FunctionBody] = {}
        self._made: dict[tuple[str, str], FunctionBody] = {}
        """Those of the log, by database and name as it stood there; a temporary one's with its session."""

    # -- what is there -----------------------------------------------------------------------------------------

    def posture(self, event: Posture) -> bool:
        """Take up what was read of functions; return whether the record was about that, of which no event comes."""
        if event.object_type != FUNCTIONS:
            return False
        take_up(self._known, event, "runs", _body, FUNCTIONS_MAX)
        for name in _gone(event) if self._made else ():
            self._made.pop((event.database or "", str(name)), None)
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

    def made(self, event: Event, functions: Iterable[MadeFunction]) -> None:
        """Take up the functions that a statement of the log makes; it may be rolled back, then nobody can call them."""
        if event.outcome in ("failure", "denied"):
            return
        for item in functions:
            lists = (item.operations, item.relations, item.columns, item.functions, item.whole)
            names = [name for listed in lists for name in listed]
            if len(names) <= NAMES_MAX and sum(map(len, (item.name, *names))) <= CHARS_MAX:
                key = (event.database or "", _place(item.name, event.pid))
                self._made.pop(key, None)
                evict_oldest(self._made, MADE_MAX)
                self._made[key] = FunctionBody(event.occurred_at_us, True, *map(tuple, lists))

    def ran(self, event: Event, path: Iterable[str]) -> None:
        """Put the relations and columns of the functions that a statement calls into its event."""
        called = event.detail.get("functions")
        if not (self._known or self._made) or not isinstance(called, list) or not called:
            return
        steps: list[dict[str, object]] = []
        names = [_place(str(name), event.pid) for name in called]
        for name, body in self._bodies(event.database or "", names, tuple(path)):
            event.relations = list(dict.fromkeys([*event.relations, *body.relations]))
            event.columns = list(dict.fromkeys([*event.columns, *body.columns]))
            if body.whole and body.certain and "select" in _words(event):
                event.detail["whole"] = list(dict.fromkeys([*_whole(event), *body.whole]))
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
            body = self._body(database, name)
            sure = certain[called] and body.certain
            for inner in body.functions:
                certain[inner] = certain.get(inner, False) or sure
                names.append(inner)
            yield name, body if sure == body.certain else msgspec.structs.replace(body, certain=sure)

    def _find(self, database: str, name: str, path: tuple[str, ...]) -> str | None:
        if (database, name) in self._known:
            return name
        found = None
        if "." not in name:
            found = next((full for schema in path if (database, full := f"{schema}.{name}") in self._known), None)
        made = self._find_made(database, name)
        if made is None or (found is not None and not self._newer(database, made, found)):
            return found
        return made

    def _newer(self, database: str, made: str, known: str) -> bool:
        return self._made[database, made].at_us > self._known[database, known].at_us

    def _find_made(self, database: str, name: str) -> str | None:
        """Find a function as the log names it: with its schema or without, however the call does."""
        if (database, name) in self._made or name.startswith(_TEMPORARY):
            return name if (database, name) in self._made else None
        alone = name.rpartition(".")[2]
        if "." in name:
            return alone if (database, alone) in self._made else None
        return next((known for where, known in self._made if where == database and known.endswith(f".{alone}")), None)

    def _body(self, database: str, name: str) -> FunctionBody:
        known, made = self._known.get((database, name)), self._made.get((database, name))
        both = [body for body in (known, made) if body is not None]
        return max(both, key=lambda body: body.at_us)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.functions = list(self._known.items())
        state.made_functions = list(self._made.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._known = {(database, name): body for (database, name), body in state.functions}
        self._made = {(database, name): body for (database, name), body in state.made_functions}


def _place(name: str, pid: int | None) -> str:
    """Give the name under which a function is known: a temporary one is its session's alone."""
    return f"{_TEMPORARY}{pid}.{name[len('pg_temp.') :]}" if name.startswith("pg_temp.") else name


def _gone(event: Posture) -> list[object]:
    gone = (event.after or {}).get("gone")
    return gone if isinstance(gone, list) else []


def _words(event: Event) -> list[object]:
    words = event.detail.get("operations")
    return words if isinstance(words, list) else []


def _whole(event: Event) -> list[object]:
    whole = event.detail.get("whole")
    return whole if isinstance(whole, list) else []


def _body(at_us: int, entry: object) -> FunctionBody | None:
    try:
        said = [*entry, []] if isinstance(entry, list) and len(entry) == 5 else entry
        certain, *lists = msgspec.convert(said, _Entry)
    except msgspec.ValidationError:
        return None
    if (
        any(len(names) > NAMES_MAX for names in lists)
        or sum(len(name) for names in lists for name in names) > CHARS_MAX
    ):
        return None
    return FunctionBody(at_us, certain, *map(tuple, lists))
