"""What decides what can happen or be seen, compared with how it was: roles, grants, settings, triggers and the like.

Pure. An object is known by its type, its database (none for what the cluster shares) and its name; what can be said
of it are its attributes. `collectors.posture.source` reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from collectors.installation.sql.templates import TRIGGER
from pgwitness.core.events import Posture
from pgwitness.core.privacy import Tokenizer


class Object(Struct, frozen=True, array_like=True):
    """One object as found."""

    object_type: str
    database: str | None
    name: str
    attributes: dict[str, Any]


LISTED_MAX = 1_000
RELATIONS_MAX = 20_000
"""Relations that are listed of a database at most; of one with more, not all are known to who reads the list."""
_POWERS = ("superuser", "createrole", "createdb", "replication", "bypassrls")
_ALWAYS = {"role_setting", "extension", "publication", "event_trigger", "beacon"}
_TELLING = {
    "archive_command", "archive_mode", "fsync", "hba_file", "listen_addresses", "log_connections",
    "log_disconnections", "log_destination", "log_min_duration_statement", "log_statement",
    "logging_collector", "password_encryption", "row_security",
    "session_preload_libraries", "session_replication_role", "shared_preload_libraries", "ssl", "track_activities",
    "track_commit_timestamp", "wal_level",
}  # fmt: skip
_TELLING_PREFIXES = ("auto_explain.", "pg_stat_statements.", "pgaudit.", "pgwitness.")
_SECRET = {
    "archive_cleanup_command", "archive_command", "primary_conninfo", "recovery_end_command", "restore_command",
    "ssl_passphrase_command",
}  # fmt: skip
_SECRET_WORDS = ("password", "passphrase", "secret", "token", "conninfo", "credential", "apikey", "api_key")
_OPEN_PREFIXES = (*_TELLING_PREFIXES, "plpgsql.")


def compare(before: Iterable[Object] | None, after: Iterable[Object], captured_at_us: int) -> list[Posture]:
    """Tell what was added, removed or changed.

    Without a snapshot before, or of a database that was not watched then: what matters as found, and counts.
    """
    objects = list(after)
    if before is None:
        return _found(objects, captured_at_us)
    before = list(before)
    watched = {item.database for item in before}
    if not any(item.object_type == "database" for item in before):
        # Every cluster has databases: that snapshot is of a version that did not look at them.
        objects = [item for item in objects if item.object_type != "database"]
    found = _found([item for item in objects if item.database not in watched], captured_at_us)
    changes = _changes(before, [item for item in objects if item.database in watched], captured_at_us)
    return changes + found


def within(events: Iterable[Posture], seen_us: Mapping[str, int], end_us: int) -> list[Posture]:
    """Say of changes between which two moments they happened, by the server's clock.

    `seen_us` is when the look began that last read a database (`""` is what the cluster shares), `end_us` when this
    look ended. What was never seen before is as found.
    """
    return [
        replace(event, window_start_us=seen_us[event.database or ""], window_end_us=end_us)
        if event.change != "found" and (event.database or "") in seen_us
        else event
        for event in events
    ]


def lost_beacons(before: Iterable[Object], after: Sequence[Object]) -> list[Object]:
    """Return the beacons of databases whose registry is empty now while the triggers still stand there, in force.

    The registry is unlogged: a crash, a promotion and a restored backup empty it, and the collector that reads the WAL
    makes it anew within seconds. Nobody has switched anything off then.
    """
    registered = {item.database for item in after if item.object_type == "beacon"}
    standing = {
        (item.database, item.name)
        for item in after
        if item.object_type == "trigger" and item.attributes.get("active") is True
    }
    return [
        item
        for item in before
        if item.object_type == "beacon"
        and item.database not in registered
        and (item.database, f"{item.name}.{TRIGGER}") in standing
    ]


def _changes(before: list[Object], after: list[Object], captured_at_us: int) -> list[Posture]:
    objects = {_key(item): item for item in after}
    known = {_key(item): _aged(item, objects) for item in before}
    renamed = _renamed(known, objects)
    left = set(renamed.values())
    dropped = {(key[1], key[2]) for key, item in known.items() if key[0] == "table" and _gone(item, objects.get(key))}
    events: list[Posture] = []
    for key in sorted(known.keys() | objects.keys()):
        old, new = None if key in left else known.get(key), objects.get(key)
        if new is not None and key in renamed:
            old = known[renamed[key]]
            new = replace(new, attributes={**new.attributes, "renamed_from": old.name})
        if old == new or (old is not None and new is not None and _same_membership(old, new)):
            continue
        item = new or old
        assert item is not None
        change: Literal["added", "removed", "changed"] = (
            "added" if old is None else "removed" if new is None else "changed"
        )
        events.append(
            Posture(
                captured_at_us=captured_at_us,
                object_type=item.object_type,
                name=item.name,
                change=change,
                database=item.database,
                before=old.attributes if old is not None else None,
                after=new.attributes if new is not None else None,
                dropped_with=_dropped_with(item, dropped) if new is None else None,
            )
        )
    return events


def _same_membership(old: Object, new: Object) -> bool:
    """What a membership leads to changes by what others do, who are told themselves."""
    mine, now = ({k: v for k, v in item.attributes.items() if k != "leads_to"} for item in (old, new))
    return new.object_type == "membership" and mine == now


def _aged(item: Object, objects: Mapping[tuple[str, str, str], Object]) -> Object:
    """Return an object of a snapshot that did not look at everything what it has now: that is no change.

    So it is with the OIDs of tables, and with what the beacon's triggers run (`posture_queries.TRIGGERS`).
    """
    now = objects.get(_key(item))
    if item.object_type == "trigger" and now is not None and "bodies" in now.attributes.keys() - item.attributes.keys():
        runs = {name: now.attributes[name] for name in ("bodies", "function", "function_md5")}
        return replace(item, attributes={**item.attributes, **runs})
    if item.object_type != "table" or "oid" in item.attributes or now is None or "oid" not in now.attributes:
        return item
    return replace(item, attributes={"oid": now.attributes["oid"], **item.attributes})


def _renamed(
    known: Mapping[tuple[str, str, str], Object], objects: Mapping[tuple[str, str, str], Object]
) -> dict[tuple[str, str, str], tuple[str, str, str]]:
    """Return tables that have another name, or schema, than before, by their OIDs: the new key, and the old one."""
    names = {(key[1], item.attributes["oid"]): key for key, item in known.items() if _has_oid(item)}
    now = {(key[1], item.attributes["oid"]): key for key, item in objects.items() if _has_oid(item)}
    return {key: names[oid] for oid, key in now.items() if names.get(oid, key) != key}


def _gone(table: Object, now: Object | None) -> bool:
    """Return whether a table is there no more; one of its name with another OID is not it."""
    return now is None or (_has_oid(table) and _has_oid(now) and table.attributes["oid"] != now.attributes["oid"])


def _has_oid(item: Object) -> bool:
    return item.object_type == "table" and "oid" in item.attributes


def _dropped_with(item: Object, dropped: set[tuple[str, str]]) -> str | None:
    """Name the dropped table that a removed object stood on: its going is no act of its own."""
    if item.object_type not in ("trigger", "beacon", "grant"):
        return None
    table = str(item.attributes.get("relation", item.name)) if item.object_type == "trigger" else item.name
    return table if (item.database or "", table) in dropped else None


def _found(objects: list[Object], captured_at_us: int) -> list[Posture]:
    if not objects:
        return []
    listed = sorted(objects, key=_key)
    events = [
        Posture(
            captured_at_us=captured_at_us,
            object_type=item.object_type,
            name=item.name,
            change="found",
            database=item.database,
            after=item.attributes,
        )
        for item in listed
        if matters(item)
    ]
    counts: dict[str, object] = dict(sorted(Counter(item.object_type for item in listed).items()))
    summary = Posture(
        captured_at_us=captured_at_us, object_type="summary", name="objects", change="found", after=counts
    )
    return [*events, summary]


def catalogues(objects: Iterable[Object], unread: Iterable[str], captured_at_us: int) -> list[Posture]:
    """List the relations of each database that was read, in parts, and the search path of who has none of his own.

    No event comes of these: they tell what a statement means that names a relation without its schema.
    """
    path, names = None, dict[str, list[str]]()
    for item in objects:
        if item.object_type == "table" and item.database is not None and item.database not in unread:
            names.setdefault(item.database, []).append(item.name)
        elif item.object_type == "setting" and item.name == "search_path":
            path = item.attributes.get("value")
    events = []
    for database, relations in sorted(names.items()):
        parts = [relations[at : at + LISTED_MAX] for at in range(0, min(len(relations), RELATIONS_MAX), LISTED_MAX)]
        for number, part in enumerate(parts, 1):
            after: dict[str, object] = {"relations": part, "part": number, "parts": len(parts), "search_path": path}
            events.append(
                Posture(
                    captured_at_us=captured_at_us,
                    object_type="catalogue",
                    name=f"relations {number}",
                    change="found",
                    database=database,
                    after=after,
                )
            )
    return events


def matters(item: Object) -> bool:
    """Return whether an object gives power or sight, so that it is listed although nothing has changed yet."""
    has = item.attributes
    match item.object_type:
        case "role":
            return any(has.get(power) for power in _POWERS)
        case "membership":
            return bool(has.get("admin")) or str(has.get("role", "")).startswith("pg_")
        case "setting":
            return item.name in _TELLING or item.name.startswith(_TELLING_PREFIXES)
        case "trigger":
            return has.get("enabled") == "disabled"
        case "grant":
            return any(str(entry).startswith("=") for entry in has.get("acl", []))
        case kind:
            return kind in _ALWAYS


def masked_setting(name: str, value: str, token: Tokenizer) -> str:
    """Return a setting's value, or its token where it may hold a secret.

    That is: commands and connection strings, names that speak of secrets, and settings that an application made up.
    """
    lowered = name.lower()
    open_ = "." not in lowered or lowered.startswith(_OPEN_PREFIXES)
    if open_ and lowered not in _SECRET and not any(word in lowered for word in _SECRET_WORDS):
        return value
    # "on", "md5": a word of the server's own is no secret, and masking it would hide how passwords are stored.
    if open_ and lowered == "password_encryption":
        return value
    return token(value.encode()).decode() if value else value


def _key(item: Object) -> tuple[str, str, str]:
    return item.object_type, item.database or "", item.name
