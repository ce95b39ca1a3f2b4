"""What `detail` can hold, kind by kind: the names and types that expressions may ask for.

A type is a word of `SCHEMA`, a dict for a map whose names are known, or a list with the type of its items. The table is
data, because those who fill `detail` are many: the fold (`streams.fold.events`), the collectors by their gaps, the
worker by its notes. Tests hold both to each other: what the fold emits in all of its tests is in here with its type,
so is every key that stands in the code of the emitters, and nothing is in here that stands nowhere there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Shape = str | dict[str, "Shape"] | list["Shape"]


def _each(names: Iterable[str], shape: Shape) -> dict[str, Shape]:
    return dict.fromkeys(names, shape)


_AGENT: dict[str, Shape] = {
    **_each(("said_by", "token_id", "iss", "client_id", "traceparent"), "string"),
    **_each(("name", "instance", "model", "tool", "conversation"), "string"),
    **_each(("iat", "exp"), "double"),
    "delegation": ["string"],
    "fields": "map",
}
_TOKEN: dict[str, Shape] = {"verdict": "string", "token_id": "string"}
_WHOSE: dict[str, Shape] = {
    **_each(("finding", "claim", "became", "owner", "network", "join"), "string"),
    "agent": _AGENT,
    "token": _TOKEN,
}
"""What attribution says of a session or transaction, whatever the kind."""
_READ: dict[str, Shape] = {
    **_each(("where", "parse_error", "statement_sha256", "clear_of"), "string"),
    **_each(
        ("operations", "functions", "settings", "names", "defines", "assigned", "whole", "written", "clear"), ["string"]
    ),
    **_each(("utility", "returning", "own", "prepared", "by_effect", "by_snapshot"), "bool"),
    **_each(("unresolved", "not_done"), ["string"]),
    "new_database": "bool",
    "through": [
        {"certain": "bool", **_each(("function", "view"), "string"), **_each(("operations", "relations"), ["string"])}
    ],
    "seen_as": "string",
}
_SHARE: dict[str, Shape] = {
    **_each(("relation", "operation", "window"), "string"),
    **_each(("rows", "of", "counted_at_us"), "int"),
    **_each(("replaced", "usual"), "bool"),
    "part": "double",
}
_DECIDED: dict[str, Shape] = {
    **_each(("effect", "message", "bundle", "approval", "by"), "string"),
    "policies": ["string"],
    "staged": ["string"],
    "rows": "int",
}
_OBJECT: dict[str, Shape] = {"type": "string", "name": "string"}

DETAILS: dict[str, dict[str, Shape]] = {
    "change": {
        **_WHOSE,
        **_each(("origin", "transaction"), "string"),
        **_each(("truncated", "published"), "bool"),
        "oid": "int",
        "counts": "map",
        "shares": [_SHARE],
    },
    "statement": {
        **_WHOSE,
        **_READ,
        **_each(("source", "statement_hash", "error", "error_detail", "settles"), "string"),
        "line": "int",
        "intent": "string",
        "decision": _DECIDED,
        "ran": {"rows": "int", "xid": "int"},
        "audit": dict.fromkeys(("class", "command", "type", "object_type", "object_name"), "string"),
    },
    "query_stats": {
        **_WHOSE,
        **_READ,
        **_each(("toplevel", "approximate"), "bool"),
        "window_start_us": "int",
    },
    "session": {
        **_WHOSE,
        **_each(("backend_type", "identity"), "string"),
        "certificate": {"dn": "string", "issuer": "string", "serial": "string"},
        "claimed": {"name": "string", "principal": "string", "proven": "bool"},
        **_each(("refused_before", "refused_within_s"), "int"),
        "refused_from": ["string"],
    },
    "posture": {
        **_WHOSE,
        **_each(("object_type", "name", "change", "dropped_with", "unnamed", "seen_as"), "string"),
        **_each(("before", "after"), "map"),
        **_each(("statements", "candidates"), ["string"]),
        "own": "bool",
    },
    "ddl": {
        **_WHOSE,
        **_each(("transaction", "statement_sha256", "where"), "string"),
        **_each(("ordinal", "number", "objects_total", "dropped_total", "holds"), "int"),
        **_each(("operations", "names", "beacon_off"), ["string"]),
        **_each(("objects", "dropped"), [_OBJECT]),
        **_each(("utility", "covering", "own"), "bool"),
    },
    "decision": {
        **_WHOSE,
        **_READ,
        **_each(("source", "statement_hash", "decided", "intent"), "string"),
        "decision": _DECIDED,
        **_each(("uid", "verdict", "scope", "why", "finding", "reason"), "string"),
        **_each(("approval", "signed_by", "who", "nonce", "session", "sha256"), "string"),
        **_each(("offset", "signed_us", "rows"), "int"),
        "policies": ["string"],
        "break_glass": "bool",
        "request": "map",
        "checked": "map",
    },
    "control": {
        **_WHOSE,
        **_each(("reason", "transaction", "commit_lsn", "lsn", "first_lsn", "last_lsn"), "string"),
        **_each(("imitates", "format", "token_id", "role", "by", "outcome", "error", "file"), "string"),
        **_each(("sha256", "before_sha256", "refused_sha256", "host", "user", "column", "why", "who"), "string"),
        **_each(("alert", "policy", "how", "slot", "content", "topic", "query", "stage", "uid"), "string"),
        **_each(("since", "until", "policies"), "string"),
        **_each(("session_id", "application", "client_addr", "place", "peer"), "string"),
        **_each(("follow", "raw"), "bool"),
        "limit": "int",
        "client_port": "int",
        **_each(("count", "lines", "xid", "started_us", "pid", "session_start", "offset", "at_us"), "int"),
        **_each(("partition", "records", "rows"), "int"),
        **_each(("claims", "comment", "settings", "reasons", "from"), "map"),
        **_each(("added", "removed", "altered", "contradicts", "collectors"), ["string"]),
        **_each(("approval",), "string"),
        **_each(("drift", "others", "approved_relations"), ["string"]),
        "rows_approved": "int",
        "beacons": ["map"],
        "stronger": {"principal": "string", "on_behalf_of": "string"},
    },
    "gap": {
        **_WHOSE,
        **_each(("reason", "slot", "confirmed", "found_by", "system_id", "before", "now"), "string"),
        **_each(("why", "fix", "error", "problem", "path", "file", "log", "cause", "stage", "topic"), "string"),
        **_each(("fingerprint", "source", "tag", "transaction", "role", "message", "prefix"), "string"),
        **_each(("lsn", "commit_lsn", "from_lsn", "to_lsn", "first_lsn", "last_lsn", "server_end"), "string"),
        **_each(("calls", "missing", "statements", "lines", "bytes", "count", "records", "messages"), "int"),
        "spool": "string",
        **_each(("begin", "end"), "int"),
        **_each(("seconds", "since_us", "until_us", "before_us", "reset_us", "started_us", "until"), "int"),
        **_each(("offset", "first_offset", "next_offset", "partition", "event", "read_to", "taken_to"), "int"),
        **_each(("landed_to", "had_landed_to", "timeline", "xid", "ordinal", "oid", "incarnation"), "int"),
        **_each(("lag_bytes", "max_lag_bytes", "behind_bytes", "tables_total", "dealloc"), "int"),
        **_each(("diverged", "restarted"), "bool"),
        "tables": ["string"],
        "publications": "any",
        "oldest_transaction": "map",
        "resumes": "any",  # an LSN of a server, an offset of a topic
        "reasons": "map",
    },
}


def found(kinds: Iterable[str], name: str) -> Shape | None:
    """Return the type of `detail.NAME` in actions of these kinds; None where none of them has it, `any` if they differ.

    A map whose names are known is one in each kind that has it.
    """
    shapes = [DETAILS[kind][name] for kind in kinds if name in DETAILS.get(kind, {})]
    if not shapes:
        return None
    return shapes[0] if all(shape == shapes[0] for shape in shapes) else "any"


def word(shape: Shape) -> str:
    """Return a type in the words of `SCHEMA`."""
    if isinstance(shape, list):
        return f"list of {word(shape[0])}"
    return "map" if isinstance(shape, dict) else shape


def wrong(kind: str, detail: Mapping[str, object]) -> list[str]:
    """List what an event's `detail` holds that the table does not know, or knows as something else."""
    known: Shape = DETAILS.get(kind, {})
    return _wrong(known, detail, "detail")


def _wrong(shape: Shape, value: object, path: str) -> list[str]:
    if value is None or shape == "any":
        return []
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            return [f"{path} is no map"]
        unknown = [f"{path}.{name} is not known" for name in value if name not in shape]
        inside = [_wrong(shape[name], item, f"{path}.{name}") for name, item in value.items() if name in shape]
        return unknown + [problem for problems in inside for problem in problems]
    if isinstance(shape, list):
        if not isinstance(value, list | tuple):
            return [f"{path} is no list"]
        return [problem for item in value for problem in _wrong(shape[0], item, f"{path}[]")]
    fits = isinstance(value, _SORTS[shape]) and (shape == "bool" or not isinstance(value, bool))
    return [] if fits else [f"{path} is no {shape}"]


_SORTS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "int": int,
    "double": (int, float),
    "bool": bool,
    "map": Mapping,
}
