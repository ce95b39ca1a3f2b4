"""What the server's log adds to what can be captured, where a cluster has one configured. Pure.

Judged by the settings as the collectors' role sees them; another role or a database may have others. How sure the log
is stands in docs/explanation/attribution.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.installation.capabilities import Capability
    from pgwitness.core.config import Log

KINDS = frozenset({"statement", "session"})
"""The kinds of events that come of a log, whatever it holds: errors and refused logins are always in it."""
ONLY = frozenset({"login_failed", "log_lines_lost", "log_imitated"})
"""Operations of events that only a log gives."""
COUNTED = {"refused_before": "session login_failed"}
"""Numbers that only a log gives, and what they count."""


def added(capabilities: Iterable[Capability], log: Log, settings: Mapping[str, str]) -> list[Capability]:
    """Give the capabilities of a database with what its server's log adds."""
    return [_with_log(item, log, settings) for item in capabilities]


def _with_log(item: Capability, log: Log, settings: Mapping[str, str]) -> Capability:
    from msgspec.structs import replace

    audited = {word.strip() for word in settings.get("pgaudit.log", "").lower().split(",")}
    ended = settings.get("log_min_duration_statement") == "0"
    announced = settings.get("log_statement", "none")
    every = ended or announced == "all"
    verbose = settings.get("log_error_verbosity") == "verbose"
    line = _sure(log, verbose)
    if item.subject == "reads":
        if every or audited & {"all", "read"}:
            return replace(item, captured=True, certainty=line, how="the server's log: each statement, by session")
        return replace(item, how=f"{item.how}; the log does not have every statement")
    if item.subject == "role changes":
        if every:
            certainty = "weak" if line == "weak" or log.format == "stderr" else "strong"
        elif announced in ("ddl", "mod") or audited & {"all", "ddl", "role"}:
            certainty = "weak"
        else:
            return replace(item, how="snapshots: what, not who; the log does not have statements")
        return replace(item, certainty=certainty, how="snapshots: what; who, by the statement in the log")
    if item.subject == "logins":
        if settings.get("log_connections", "off") not in ("off", "false", "no", "0", ""):
            return replace(item, captured=True, certainty=line, how="the server's log: refused ones, too")
        how = "pg_stat_activity: short ones may be missed; refused ones by the log (log_connections is off)"
        return replace(item, how=how) if item.captured else item
    return item


def _sure(log: Log, verbose: bool) -> str:
    """Say how sure a line of the log is, as docs/how-to/server-log.md has it, where no other language is installed."""
    from collectors.log.formats.prefix import escapes

    if log.format != "stderr":
        return "exact" if verbose else "strong"
    return "weak" if not escapes(log.line_prefix).isdisjoint("ud") else "strong"
