"""What views read: a statement on a view carries the tables and columns behind it, where they are known.

The collector reads from the catalogue on which relations and columns a view depends (`VIEWS`). A column of a view that
is called as one behind it is that one; one that is called otherwise may be any of those that are shown under no name of
their own, or, where there is none, any. Rows of a view are all rows of its tables only where it leaves none out. Views
on views are followed. After DDL on a view nothing is known of it until it was read again; a materialized view holds
what was there when it was refreshed, and counts alike. `detail.through` names the views.

Bounded, and in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pgwitness.core.events import Ddl, Event, Posture
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.statements import ViewBody
from streams.fold.schema.bodies import take_up
from streams.fold.schema.clear import ClearTables
from streams.fold.schema.functions import THROUGH

VIEWS = "views"
"""The type of a posture record that reports what views read; no event comes of it."""
VIEWS_MAX = 10_000
NAMES_MAX, CHARS_MAX = 100, 4_000
"""What is remembered of one view: names, and their characters."""
FOLLOWED_MAX = 50
"""Views looked into for one statement."""
ROWS = frozenset({"select", "copy_to", "fetch", "declare_cursor", "insert", "update", "delete", "merge", "execute"})
"""Operations that reach the rows behind a view; what is done to the view itself touches nothing behind it."""

_TYPES = ("view", "materialized view")


class Views:
    """The views of one cluster, by database and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], ViewBody] = {}
        self._clear = ClearTables()

    def posture(self, event: Posture) -> bool:
        """Take up what was read of views; return whether the record was about that, of which no event comes."""
        if event.object_type != VIEWS:
            return False
        take_up(self._known, event, "reads", _body, VIEWS_MAX)
        self._clear.posture(event)
        return True

    def ddl(self, database: str, commands: Iterable[Ddl], committed_at_us: int) -> None:
        """Forget what commands changed, unless it was read since; a name behind a view may have changed by any."""
        self._clear.ddl(database, commands, committed_at_us)
        if not self._known:
            return
        for command in commands:
            changed = {item.relation for item in (*command.objects, *command.dropped) if item.relation is not None}
            moved = command.tag == "ALTER SCHEMA" or any(word.startswith("rename_") for word in command.operations)
            for key in [key for key in self._known if key[0] == database and (moved or key[1] in changed)]:
                if self._known[key].at_us <= committed_at_us:
                    del self._known[key]

    def ran(self, event: Event) -> None:
        """Put the relations and columns behind the views that a statement reads into its event."""
        self._clear.ran(event)
        if not self._known or ROWS.isdisjoint(_texts(event.detail.get("operations"))):
            return
        steps: list[dict[str, object]] = []
        names, seen = list(event.relations), set[str]()
        while names and len(seen) < FOLLOWED_MAX:
            name = names.pop(0)
            body = self._known.get((event.database or "", name))
            if body is None or name in seen:
                continue
            seen.add(name)
            names += body.relations
            _through(event, name, body)
            steps.append({"view": name, "relations": list(body.relations), "certain": body.whole})
        if steps:
            through = event.detail.get(THROUGH)
            event.detail[THROUGH] = [*(through if isinstance(through, list) else []), *steps]

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.views = list(self._known.items())
        self._clear.save(state)

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._known = {(database, name): body for (database, name), body in state.views}
        self._clear.load(state)


def _through(event: Event, view: str, body: ViewBody) -> None:
    asked = {column.rpartition(".")[2] for column in event.columns if column.rpartition(".")[0] == view}
    event.relations = list(dict.fromkeys([*event.relations, *body.relations]))
    event.columns = list(dict.fromkeys([*event.columns, *_columns(body, asked)]))
    whole = _texts(event.detail.get("whole"))
    if view in whole and body.whole:
        event.detail["whole"] = list(dict.fromkeys([*whole, *body.relations]))


def _columns(body: ViewBody, asked: set[str]) -> list[str]:
    """Return the columns behind those of a view that a statement asks for."""
    by_name = {column.rpartition(".")[2] for column in body.columns}
    if "*" in asked or not asked:
        return list(body.columns) if asked else []
    named = [column for column in body.columns if column.rpartition(".")[2] in asked]
    if asked <= by_name:
        return named
    hidden = [column for column in body.columns if column.rpartition(".")[2] not in body.shown]
    return [*named, *(hidden or body.columns)]


def _body(at_us: int, entry: object) -> ViewBody | None:
    try:
        whole, *lists = msgspec.convert(entry, tuple[bool, list[str], list[str], list[str]])
    except msgspec.ValidationError:
        return None
    letters = sum(len(name) for names in lists for name in names)
    if any(len(names) > NAMES_MAX for names in lists) or letters > CHARS_MAX:
        return None
    relations, columns, shown = map(tuple, lists)
    return ViewBody(at_us, whole, relations, columns, shown)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
