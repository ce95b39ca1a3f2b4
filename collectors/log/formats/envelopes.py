"""What others wrap around lines of the log: operators, container runtimes, cloud services and syslog. Pure.

- CloudNativePG: `{"logger": "postgres", "record": {"log_time": …}}`, the columns of csvlog as keys.
- Container runtimes: `2026-… stdout F LINE`, `{"log": "LINE", "stream": …}`; what is in them may be wrapped again.
- CloudWatch: `{"timestamp": …, "message": "LINE"}`, `@message`, and a subscription's `{"logEvents": [{"message": …}]}`.
- Cloud SQL: `{"textPayload": "LINE"}`, `{"jsonPayload": {"message": …}}`. Azure: `{"properties": {"message": "LINE"}}`,
  under `records` where there are several.
- syslog: a header and `[number-part]` before each line, the tab of further lines as `#011`.

A session writes into none of these: they quote what the server wrote.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

DEPTH_MAX = 6
LINES_MAX = 10_000
_HOLDING = ("log", "message", "@message", "MESSAGE", "textPayload", "msg", "line")
_AROUND = ("record", "jsonPayload", "properties")
_SEVERAL = ("logEvents", "records")
_COLUMNS = {
    "log_time": "timestamp", "user_name": "user", "database_name": "dbname", "process_id": "pid",
    "session_id": "session_id", "session_line_num": "line_num", "command_tag": "ps", "transaction_id": "txid",
    "virtual_transaction_id": "vxid",
    "error_severity": "error_severity", "sql_state_code": "state_code", "message": "message", "detail": "detail",
    "hint": "hint", "context": "context", "query": "statement", "location": "func_name",
    "application_name": "application_name", "backend_type": "backend_type", "query_id": "query_id",
}  # fmt: skip
"""Keys of jsonlog by the names of csvlog's columns."""
_NUMBERS = ("pid", "line_num", "txid", "query_id")
_RUNTIME = re.compile(rb"\d{4}-\d\d-\d\dT[^ ]{1,40} (?:stdout|stderr) [FP] ")
_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:1 )?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[^ ]{1,40}) [^ ]{1,255} "
    rb"[^ \[:]{1,64}(?:\[\d{1,10}\]:?|:| [^ ]{1,32} [^ ]{1,32} (?:-|\[[^\]]{0,255}\])) \[\d{1,19}-(\d{1,9})\] ?"
)


def unframed(line: bytes) -> tuple[bytes, bool]:
    """Return a line without what a container runtime or syslog put before it; nearly always that is the line itself.

    And whether it is known to be no first line of a message: syslog numbers the parts of each, also those that it has
    cut itself, which may begin with anything.
    """
    if line[10:11] == b"T" and (framed := _RUNTIME.match(line)) is not None:
        return line[framed.end() :], False
    if line[:1].isdigit() and line[10:11] != b"T":
        return line, False
    framed = _SYSLOG.match(line)
    if framed is None:
        return line, False
    text = line[framed.end() :]
    return (b"\t" + text[4:] if text.startswith(b"#011") else text), framed[1] != b"1"


def lines(value: object, depth: int = 0) -> list[bytes]:
    """Return the messages that a decoded value holds, each whole, jsonlog's again as JSON; none where it holds none."""
    if depth > DEPTH_MAX:
        return []
    if isinstance(value, str):
        return _of_text(value, depth)
    if isinstance(value, list):
        return [line for item in value[:LINES_MAX] for line in lines(item, depth + 1)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("error_severity"), str):
        return [msgspec.json.encode(_of_columns(value) if "log_time" in value else value)]
    for name in (*_SEVERAL, *_AROUND, *_HOLDING):
        if name in value:
            found = lines(value[name], depth + 1)
            if found:
                return found
    return []


def _of_text(text: str, depth: int) -> list[bytes]:
    plain, _ = unframed(text.rstrip("\r\n").encode("utf-8", "replace"))
    if plain.startswith(b"{"):
        try:
            return lines(msgspec.json.decode(plain), depth + 1)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [plain]
    return [plain] if plain else []


def _of_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Turn csvlog's columns by name, all of them texts, into a line of jsonlog."""
    found = {ours: row[theirs] for theirs, ours in _COLUMNS.items() if row.get(theirs) not in (None, "")}
    for name in _NUMBERS:
        text = str(found.pop(name, "")).strip()
        if text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) <= 20:
            found[name] = int(text)
    host, _, port = str(row.get("connection_from") or "").rpartition(":")
    if host and port.isascii() and port.isdigit() and len(port) <= 5:
        found |= {"remote_host": host, "remote_port": int(port)}
    elif row.get("connection_from"):
        found["remote_host"] = row["connection_from"]
    return found
