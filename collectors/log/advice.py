"""What a text log cannot tell with the prefix it has, and where the configuration is not the server's. Pure.

For `pgwitness doctor`: managed services write stderr with a prefix of their own, and often no other format.
"""

from __future__ import annotations

from typing import NamedTuple

from collectors.log.prefix import escapes
from pgwitness.config import Log

PREFIX = "%m [%p] %q%u@%d/%a %r %c %l %x %Q %e "
"""A prefix that tells everything."""

_COSTS = (
    (("u",), "the role: nobody is named"),
    (("d",), "the database"),
    (("x",), "the transaction id: writes are not tied to sessions by the log, only by beacon or sampling"),
    (("c", "s"), "the session's start: events have no session id, and a process id that comes again is not told apart"),
    (("r", "h"), "the client's address"),
    (("a",), "the application"),
    (("e",), "the SQLSTATE: refused and failed statements are not told apart, and errors have no message"),
    (("Q",), "the query id: statements are not found in pg_stat_statements"),
)


class Advice(NamedTuple):
    """Something that costs evidence, and what to do."""

    subject: str
    problem: str
    fix: str


def advice(log: Log, line_prefix: str | None, timezone: str | None) -> list[Advice]:
    """Judge the settings of a log; the other arguments are what the server says, None where that is not known."""
    found: list[Advice] = []
    asked = log.from_ == "sql"  # then the server's own settings are used
    if log.format == "stderr":
        prefix = line_prefix if asked and line_prefix is not None else log.line_prefix
        if line_prefix is not None and prefix != line_prefix:
            problem = f"it is {prefix!r}, the server's log_line_prefix {line_prefix!r}: its lines cannot be read"
            found.append(Advice("log.line_prefix", problem, f"line_prefix = {_toml(line_prefix)} in pgwitness.toml"))
        known = escapes(prefix)
        missing = [what for letters, what in _COSTS if known.isdisjoint(letters)]
        if missing:
            fix = f"ALTER SYSTEM SET log_line_prefix = '{PREFIX}', or the parameter group; or log in csvlog"
            found.append(Advice("log_line_prefix", f"the log does not tell {'; '.join(missing)}", fix))
    if timezone is not None and timezone != log.timezone and not asked:
        problem = f"it is {log.timezone}, the server's log_timezone {timezone}: times are read wrongly"
        found.append(Advice("log.timezone", problem, f"timezone = {_toml(timezone)} in pgwitness.toml"))
    return found


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
