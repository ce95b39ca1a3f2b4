"""What a text log cannot tell with the prefix it has, and where the configuration is not the server's. Pure.

For `pgwitness doctor`: managed services write stderr with a prefix of their own, and often no other format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from collectors.log.formats.prefix import escapes
from collectors.log.languages import phrases
from pgwitness.core.config import Log

PREFIX = "%m [%p] %q%u@%d/%a %r %c %l %x %v %Q %e "
"""A prefix that tells everything."""

_COSTS = (
    (("u",), "the role: nobody is named"),
    (("d",), "the database"),
    (("x",), "the transaction id: writes are not tied to sessions by the log, only by beacon or sampling"),
    (("v",), "the virtual transaction id: what is not in the WAL may have been rolled back, and nobody knows"),
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


def advice(
    log: Log, line_prefix: str | None, timezone: str | None, settings: Mapping[str, str] | None = None
) -> list[Advice]:
    """Judge the settings of a log; the other arguments are what the server says, None where that is not known."""
    found: list[Advice] = _of_settings(log, settings) if settings is not None else []
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


def _of_settings(log: Log, settings: Mapping[str, str]) -> list[Advice]:
    """Say what of the server's settings keeps lines out of the log, or from being read or believed."""
    found: list[Advice] = []
    destination = settings.get("log_destination", log.format)
    named = [word.strip().lower() for word in destination.split(",")]
    expected = {log.format, "syslog"} if log.format == "stderr" else {log.format}
    wrapped = log.from_ == "kafka" or log.field != ""  # a shipper may write another format than the server
    if expected.isdisjoint(named) and not (wrapped or (log.format == "jsonlog" and "csvlog" in named)):
        problem = f"it is {destination!r}, log.format is {log.format}: nothing that is written there can be read"
        found.append(Advice("log_destination", problem, _set("log_destination", log.format)))
    if settings.get("logging_collector") == "off" and log.from_ == "sql":
        fix = "ALTER SYSTEM SET logging_collector = on, then restart the server"
        found.append(Advice("logging_collector", "it is off: the server writes no files of its own", fix))
    if settings.get("log_min_messages", "").lower() in ("fatal", "panic"):
        problem = "it is above LOG: neither statements nor sessions nor errors are in the log"
        found.append(Advice("log_min_messages", problem, _set("log_min_messages", "warning")))
    if _tells_nothing(settings):
        problem = "neither statements nor connections are logged: the log tells errors and refused logins, and no more"
        fix = f"{_set('log_min_duration_statement', '0')}; {_set('log_connections', 'on')}"
        found.append(Advice("server log", problem, fix))
    language = settings.get("lc_messages", "")
    if language.partition(".")[0] not in _ENGLISH and not language.startswith("en"):
        read = _code(language)
        how = (
            f"read by PostgreSQL 15's translations into {read}; what a later server says otherwise is not"
            if read is not None
            else "in no language that is read"
        )
        found.append(Advice("lc_messages", f"it is {language!r}: messages are {how}", _set("lc_messages", "C")))
    verbosity = settings.get("log_error_verbosity")
    if verbosity is not None and verbosity != "verbose":
        sure = "claimed (weak)" if log.format == "stderr" else "likely (strong)"
        problem = f"it is {verbosity}: that lines are the server's own, and no function's, is {sure}, not certain"
        fix = _set("log_error_verbosity", "verbose") + ("; or log in jsonlog" if log.format == "stderr" else "")
        found.append(Advice("log_error_verbosity", problem, fix))
    return found


_ENGLISH = ("", "C", "POSIX")


def _code(language: str) -> str | None:
    """Return the code of a language that is read, by `lc_messages`."""
    code = language.partition(".")[0].partition("@")[0]
    return next((known for known in (code, code.partition("_")[0]) if known in phrases()), None)


def _tells_nothing(settings: Mapping[str, str]) -> bool:
    no = ("off", "false", "no", "0", "")
    return (
        settings.get("log_min_duration_statement") == "-1"
        and settings.get("log_statement") == "none"
        and settings.get("log_connections", "on") in no
        and settings.get("pgaudit.log", "none") in ("none", "")
    )


def _set(name: str, value: str) -> str:
    return f"ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf()"


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
