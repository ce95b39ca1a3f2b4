"""One name for a relation in every source: `schema.table`, where a statement writes `table` alone.

WAL, DDL and snapshots name relations in full. What a statement writes is looked up as the server does: in the schemas
of the search path, which is the session's own SET, else that of its role and database, else `"$user", public`. What is
there is known from a snapshot's list (`CATALOGUE`), which is complete, and from what DDL, snapshots and the WAL have
named since. With a complete list a name that one schema alone has needs no path. Temporary tables are `pg_temp.table`.
What is not known stays as it is written, and `detail.unresolved` says so: nothing is guessed. A name of which DDL
moved one relation, nobody knows which, means nothing until the next list. Names of the system (`pg_…`) stay as they are
written too.

Bounded, and in the checkpoint; what is forgotten stays unqualified.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pgwitness.core.events import Ddl, Event, Posture, Transaction, quote_identifier
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession, Place, Places
from streams.fold.schema.moves import FULL as _FULL
from streams.fold.schema.moves import moved, schema_renamed

CATALOGUE = "catalogue"
"""The type of a posture record that lists the relations of a database, in parts; no event comes of it."""
RELATIONS_MAX = 20_000
PATHS_MAX = 2_000
SESSIONS_MAX = 2_000
TEMPORARY_MAX = 200
DOUBTFUL_MAX = 1_000
LISTS_MAX = 10
"""Databases whose list is not whole yet."""
NAME_CHARS_MAX = 300
"""Two names of 63 bytes, quoted, with a point between."""
PATH_CHARS_MAX = 2_000
UNRESOLVED = "unresolved"
BY_SNAPSHOT = "by_snapshot"
"""In the detail of a statement whose effect a snapshot tells."""

_PATHS = ("search_path=", "all=", "?=")
"""Settings that are the path, all of them, or one that nobody knows."""
_ROLES = ("role=", "session_authorization=")
_DEFAULT = ('"$user"', "public")
_TEMP = "pg_temp"
_TABLES = ("table", "view", "materialized view", "foreign table")
_Session = tuple[str | None, int, int | None]


class Relations:
    """The relations of one cluster by database, the search paths of its roles, and what its sessions changed."""

    def __init__(self) -> None:
        self._full: dict[tuple[str, str], None] = {}
        self._schemas: dict[tuple[str, str], set[str]] = {}
        self._complete: set[str] = set()
        self._doubtful: set[tuple[str, str]] = set()
        self._listed: dict[str, list[str]] = {}
        self._paths: dict[str, tuple[str, ...]] = {}
        self._sessions: dict[_Session, Place] = {}
        self._temporary: dict[tuple[str, str, str], None] = {}

    # -- what is there -----------------------------------------------------------------------------------------

    def change(self, part: Transaction) -> None:
        """Take up the relations of a transaction."""
        for relation in part.relations:
            key = (part.database, relation.name)
            if key not in self._full:
                self._add(*key)

    def ddl(self, database: str, command: Ddl) -> list[tuple[str, str]]:
        """Take up what a command made, renamed and dropped; return what it moved, as it was and as it is called now."""
        for item in command.dropped:
            if item.relation is not None and item.type in _TABLES:
                self._drop(database, item.relation)
        if command.tag == "ALTER SCHEMA":
            return self._renamed_schema(database, command)
        names = moved(command, partial(self.schemas, database))
        for old, _ in names.pairs:
            self._drop(database, old)
        self._doubt(database, names.doubtful)
        for item in command.objects:
            if item.relation is not None and item.type in _TABLES:
                self._add(database, item.relation)
        return names.pairs

    def schemas(self, database: str, name: str) -> set[str]:
        """Return the schemas in which there is a relation of this name, as far as they are known."""
        return self._schemas.get((database, name), set())

    def _renamed_schema(self, database: str, command: Ddl) -> list[tuple[str, str]]:
        if command.operations and all(word in ("alter_schema", "change_owner") for word in command.operations):
            return []
        names = schema_renamed(command)
        if names is None:
            self._drop_all(database)
            return []
        pairs = []
        for known, full in list(self._full):
            found = _FULL.fullmatch(full)
            if known == database and found is not None and found[1] == names[0]:
                pairs.append((full, f"{names[1]}.{found[2]}"))
        for old, new in pairs:
            self._drop(database, old)
            self._add(database, new)
        return pairs

    def _doubt(self, database: str, names: Iterable[str]) -> None:
        """A relation of this name is somewhere else now; which of several it was, nobody knows."""
        for name in names:
            if len(self._doubtful) >= DOUBTFUL_MAX:
                self._drop_all(database)  # with so many doubts nothing is known
            self._doubtful.add((database, name))

    def _drop_all(self, database: str) -> None:
        for name in [name for known, name in self._full if known == database]:
            self._drop(database, name)
        self._complete.discard(database)
        self._doubtful = {doubt for doubt in self._doubtful if doubt[0] != database}

    def posture(self, event: Posture) -> bool:
        """Take up what a snapshot found; return whether it was a list of relations, of which no event comes."""
        after = event.after or {}
        if event.object_type == CATALOGUE:
            self._list(event, after)
            return True
        if event.object_type == "table" and event.database is not None:
            if event.change == "removed":
                self._drop(event.database, event.name)
            else:
                if isinstance(before := after.get("renamed_from"), str):
                    self._drop(event.database, before)
                    self._doubtful.discard((event.database, before.rpartition(".")[2]))
                self._add(event.database, event.name)
        elif event.object_type == "role_setting":
            self._path(event.name, after.get("search_path") if event.change != "removed" else None)
        elif event.object_type == "setting" and event.name == "search_path":
            self._path("ALL IN ALL SERVERS", after.get("value"))
        return False

    def _list(self, event: Posture, after: dict[str, object]) -> None:
        database, names = event.database or "", after.get("relations")
        part, parts = after.get("part"), after.get("parts")
        if not isinstance(names, list) or not isinstance(part, int) or not isinstance(parts, int):
            return
        self._path("ALL IN ALL SERVERS", after.get("search_path"))
        listed = [] if part == 1 else self._listed.pop(database, [])
        listed += [str(name) for name in names if len(str(name)) <= NAME_CHARS_MAX]
        if part < parts:
            evict_oldest(self._listed, LISTS_MAX)
            self._listed[database] = listed[:RELATIONS_MAX]
            return
        self._drop_all(database)
        for name in listed:
            self._add(database, name)
        if listed and len(self._full) < RELATIONS_MAX:
            self._complete.add(database)

    def _path(self, name: str, value: object) -> None:
        self._paths.pop(name, None)
        if isinstance(value, str) and len(name) <= NAME_CHARS_MAX and len(value) <= PATH_CHARS_MAX:
            evict_oldest(self._paths, PATHS_MAX)
            self._paths[name] = tuple(_normal(word) for word in value.split(",") if word.strip())

    def _add(self, database: str, full: str) -> None:
        if len(full) + len(database) > 2 * NAME_CHARS_MAX or (database, full) in self._full:
            return
        found = _FULL.fullmatch(full)
        if found is None:
            return
        for gone in evict_oldest(self._full, RELATIONS_MAX):
            self._forget(*gone)
            self._complete.discard(gone[0])
        self._full[database, full] = None
        self._schemas.setdefault((database, found[2]), set()).add(found[1])

    def _drop(self, database: str, full: str) -> None:
        if self._full.pop((database, full), self) is None:
            self._forget(database, full)

    def _forget(self, database: str, full: str) -> None:
        found = _FULL.fullmatch(full)
        if found is not None:
            schemas = self._schemas.get((database, found[2]), set())
            schemas.discard(found[1])
            if not schemas:
                self._schemas.pop((database, found[2]), None)

    # -- statements --------------------------------------------------------------------------------------------

    def resolve(self, event: Event, session: LogSession | None = None) -> None:
        """Return an event's relations and columns their full names, where that is certain."""
        role = event.role if session is None or session.role is None else session.role
        place = self._sessions.get(_key(session)) if session is not None else None
        if any(setting.startswith(_PATHS) for setting in _texts(event.detail.get("settings"))):
            place = Place((), place.temporary if place is not None else {})  # of which part of the text, who knows
        self._look_up(event, role, place)

    def _look_up(self, event: Event, role: str | None, place: Place | None) -> None:
        names: dict[str, str] = {}
        unresolved = []
        for name in event.relations:
            full = self._resolve(name, event.database or "", role, place)
            if full is None and place is None and self._was_temporary(event.database or "", role or "", name):
                full = f"{_TEMP}.{name}"
            if full is None:
                unresolved.append(name)
            elif full != name:
                names[name] = full
        if names:
            event.relations = list(dict.fromkeys(names.get(name, name) for name in event.relations))
            event.columns = list(dict.fromkeys(_column(column, names) for column in event.columns))
            for said in ("assigned", "whole", "written"):
                if said in event.detail:
                    event.detail[said] = [
                        names.get(name) or _column(name, names) for name in _texts(event.detail[said])
                    ]
        if unresolved:
            event.detail[UNRESOLVED] = unresolved

    def again(self, event: Event) -> bool:
        """Look up once more what was not known of an event that has waited; return whether it is now.

        A name that its session may have given to a temporary table stays.
        """
        unresolved = set(_texts(event.detail.pop(UNRESOLVED, None)))
        if not unresolved:
            return False
        mine = (event.instance, event.pid)
        place = next((place for key, place in self._sessions.items() if key[:2] == mine), None)
        if place is None or unresolved.isdisjoint(place.temporary):
            self._look_up(event, event.role, place)
        else:
            event.detail[UNRESOLVED] = sorted(unresolved)
        return UNRESOLVED not in event.detail

    def by_snapshot(self, event: Event) -> None:
        """Mark a statement that says who owns relations which snapshots look at: they tell whether that changed."""
        words, database = _texts(event.detail.get("operations")), event.database or ""
        if "change_owner" not in words or not event.relations or database not in self._complete:
            return
        if all((database, name) in self._full for name in event.relations):
            event.detail[BY_SNAPSHOT] = True

    def path(self, event: Event, session: LogSession | None = None) -> tuple[str, ...]:
        """Return the schemas in which an event's names are looked up, the first one first."""
        role = event.role if session is None or session.role is None else session.role
        place = self._sessions.get(_key(session)) if session is not None else None
        known = None if place is None else place.path
        path = self._path_of(role, event.database or "") if known is None else known
        user = quote_identifier(role) if role else ""
        return tuple(user if schema == '"$user"' else schema for schema in path)

    def _resolve(self, name: str, database: str, role: str | None, place: Place | None) -> str | None:
        if name.startswith(("pg_", '"pg_')) or _FULL.fullmatch(name) is not None:
            return name
        if place is not None and name in place.temporary:
            return f"{_TEMP}.{name}" if place.temporary[name] else None
        if (database, name) in self._doubtful:
            return None
        schemas = self._schemas.get((database, name), set())
        if database in self._complete and len(schemas) == 1:
            return f"{next(iter(schemas))}.{name}"
        path = self._path_of(role, database) if place is None or place.path is None else place.path
        user = quote_identifier(role) if role else ""
        for schema in path:
            schema = user if schema == '"$user"' else schema
            if schema in schemas:
                return f"{schema}.{name}"
        return None

    def _path_of(self, role: str | None, database: str) -> tuple[str, ...]:
        who, where = quote_identifier(role) if role else "", quote_identifier(database)
        for name in (f"{who} IN {where}", f"{who} IN ALL", f"ALL IN {where}", "ALL IN ALL", "ALL IN ALL SERVERS"):
            path = self._paths.get(name)
            if path is not None:
                return path
        return _DEFAULT

    def ran(self, event: Event, session: LogSession) -> None:
        """Take up what a statement did to its session's path and temporary tables."""
        if event.outcome in ("failure", "denied"):
            return
        settings, operations = _texts(event.detail.get("settings")), _texts(event.detail.get("operations"))
        made = [name[len(_TEMP) + 1 :] for name in event.relations if name.startswith(_TEMP + ".")]
        made = [name for name in made if len(name) <= NAME_CHARS_MAX]
        for name in made[:TEMPORARY_MAX]:
            self._note(event.database or "", session.role or "", name)
        paths = [setting for setting in settings if setting.startswith(_PATHS)]
        roles = [setting for setting in settings if setting.startswith(_ROLES)]
        ends = not {"commit", "rollback", "discard"}.isdisjoint(operations)
        key = _key(session)
        place = self._sessions.pop(key, None)
        if place is None and not (made or paths or roles):
            return
        place = place or Place()
        for setting in roles:  # that of a SET LOCAL is taken for one of the session until it is set again
            place.another = not setting.endswith("=default")
        for setting in paths:
            place.path = _set(setting)
        if "discard" in operations:
            place = Place()
        elif ends:  # a table may have gone with its transaction
            place.temporary = dict.fromkeys(place.temporary, False)
        if any(word.startswith(("create", "select")) for word in operations):
            place.temporary |= dict.fromkeys(made[:TEMPORARY_MAX], True)
        if "drop_table" in operations:
            for name in made:
                place.temporary.pop(name, None)
        if len(place.temporary) <= TEMPORARY_MAX:
            evict_oldest(self._sessions, SESSIONS_MAX)
            self._sessions[key] = place

    def _was_temporary(self, database: str, role: str, name: str) -> bool:
        """Return whether a name that nothing in a database has was that of a temporary table of a role."""
        return (
            database in self._complete
            and not self._schemas.get((database, name))
            and (database, role, name) in self._temporary
        )

    def _note(self, database: str, role: str, name: str) -> None:
        self._temporary.pop((database, role, name), None)
        evict_oldest(self._temporary, SESSIONS_MAX)
        self._temporary[database, role, name] = None

    def is_another(self, session: LogSession) -> bool:
        """Return whether another role than the one that logged in may be in force in a session."""
        place = self._sessions.get(_key(session))
        return place is not None and place.another

    def ends(self, session: LogSession) -> None:
        """A session has ended."""
        self._sessions.pop(_key(session), None)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.relations = Places(
            list(self._full),
            sorted(self._complete),
            list(self._listed.items()),
            list(self._paths.items()),
            list(self._sessions.items()),
            sorted(self._doubtful),
            list(self._temporary),
        )

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        known = state.relations
        for database, full in known.full:
            self._add(database, full)
        self._complete = set(known.complete)
        self._listed = dict(known.listed)
        self._paths = dict(known.paths)
        self._sessions = dict(known.sessions)
        self._doubtful = set(known.doubtful)
        self._temporary = dict.fromkeys(known.temporary)


def _key(session: LogSession) -> _Session:
    return session.instance, session.pid, session.start_us


def _normal(word: str) -> str:
    """Write a schema of a path as SQL would."""
    word = word.strip()
    if word.startswith('"') and word.endswith('"'):
        name = word[1:-1].replace('""', '"')
        return word if name == "$user" else quote_identifier(name)
    return '"$user"' if word == "$user" else quote_identifier(word.lower())


def _set(setting: str) -> tuple[str, ...] | None:
    """Return the path that a SET leaves: None for none of its own, empty where nobody knows it."""
    value = setting.partition("=")[2]
    if value == "default":
        return None
    return () if value == "?" or len(value) > PATH_CHARS_MAX else tuple(_normal(word) for word in value.split(","))


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _column(column: str, names: dict[str, str]) -> str:
    for name, full in names.items():
        if column.startswith(name + "."):
            return full + column[len(name) :]
    return column
