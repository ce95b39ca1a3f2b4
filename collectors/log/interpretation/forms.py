"""The forms of the server's messages: which kind of line one is, and which of them refuse a session. Pure.

Kinds are those of `collectors.log.interpretation.provenance`, which knows who writes each.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from collectors.log.formats.record import LOCAL, LogRecord
from collectors.log.languages import english

STARTUP_LINES = 4
"""The lines of a session by which at the latest its startup is over: received, authenticated, authorized, one more."""
_STARTUP = ("28", "3D", "42", "53", "55", "08", "22", "57P03")
"""SQLSTATEs and classes that end a startup: refused, no such database, bad setting, full, not accepting, garbled."""
_REFUSING = frozenset({"3D000", "42501", "53300"})
"""SQLSTATEs that end a login besides class 28; a session that has begun does not die of them."""
_REFUSED = re.compile(
    r"(?:password|\S+) authentication failed for user|no pg_hba\.conf entry for|pg_hba\.conf rejects "
    r"|role \".*\" (?:does not exist|is not permitted to log in)|database \".*\" does not exist"
    r"|permission denied for database"
)
_MEASURED = (
    ("statement", "  statement: "),
    ("execute", "  execute "),
    ("plan", "  plan:"),
    ("parse", "  parse "),
    ("bind", "  bind "),
    ("fastpath", "  fastpath function call: "),
)
_OF_SESSIONS = (
    ("authenticated", "connection authenticated: "),
    ("authorized", "connection authorized: "),
    ("authorized", "replication connection authorized: "),
    ("disconnection", "disconnection: "),
    ("received", "connection received: "),
    ("ready", "connection ready: "),
)
ORDINARY = (
    "checkpoint", "restartpoint", "automatic ", "database system ", "starting ", "listening on ", "received ",
    "parameter ", "redo ", "logical ", "temporary file", "process ", "archive", "background worker ", "could not ",
    "connection ", "replication ", "shutting down", "aborting ", "terminating ", "recovery", "entering standby",
    "consistent recovery", "streaming replication", "invalid record length", "started streaming", "selected new ",
    "unexpected EOF on client connection", "incomplete startup packet", "all server processes terminated",
    "reloading configuration", "skipping ", "slot ", "released logical ", "acquired logical ", "begin ",
    "disconnection: ", "duration: ", "ending log output", "configuration file ", "server process ",
)  # fmt: skip
"""How lines of the server begin in English that witness nothing."""


def of_duration(message: str, at: int) -> str | None:
    """Say of what a line tells the duration, by what stands at `at` behind it; None for a form that nobody knows."""
    if at == len(message):
        return "duration"
    for kind, begin in _MEASURED:
        if message.startswith(begin, at):
            return kind
    return None


def of_session(message: str) -> str | None:
    """Say which kind of line about a session a message is."""
    for kind, begin in _OF_SESSIONS:
        if message.startswith(begin):
            return kind
    return None


def refused(record: LogRecord) -> bool:
    """Return whether a FATAL refuses a login."""
    if record.sqlstate is None:
        return _REFUSED.match(english(record.message) or record.message) is not None
    return record.sqlstate.startswith("28") or record.sqlstate in _REFUSING


def ends_startup(record: LogRecord) -> bool:
    """Return whether a FATAL of a session that was authorized and has done nothing else refuses it."""
    return record.sqlstate.startswith(_STARTUP) if record.sqlstate is not None else refused(record)


def never_began(record: LogRecord) -> bool:
    """Return whether a FATAL is of a startup packet that nobody could read."""
    early = record.line is None or record.line <= STARTUP_LINES
    return record.sqlstate == "08P01" and record.statement is None and early


def named(message: str) -> str | None:
    """Return the role that a refusal names, in any language."""
    message = english(message) or message
    word = "user" if "user" in message else "role"
    found = re.search(rf'{word} "([^"]*)"', message)
    return found[1] if found is not None else None


@lru_cache(maxsize=4096)
def address(host: str | None) -> str | None:
    """Return a client's address: `local`, an address, or None for a name (log_hostname), which proves nothing."""
    if host is None or host == LOCAL:
        return host
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
