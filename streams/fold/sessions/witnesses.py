"""Which settings of a session keep others from seeing what it does; pure.

The beacon names what a superuser's session has set for itself (`collectors.installation.sql.emission.SETTINGS`). That
is a finding where it shows less than the server's own setting would; a session logged in more detail is none.
"""

from __future__ import annotations

from collections.abc import Mapping

_LEVELS = (
    "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "info", "notice", "warning", "error", "log", "fatal",
    "panic",
)  # fmt: skip
_LESS_IS_SEEN: dict[str, tuple[str, ...]] = {
    "compute_query_id": ("off", "auto", "regress", "on"),
    "log_error_verbosity": ("terse", "default", "verbose"),
    "log_min_error_statement": _LEVELS[::-1],
    "log_min_messages": _LEVELS[::-1],
    "log_statement": ("none", "ddl", "mod", "all"),
    "pg_stat_statements.track": ("none", "top", "all"),
    "pg_stat_statements.track_utility": ("off", "on"),
    "session_replication_role": ("local", "replica", "origin"),
    "track_activities": ("off", "on"),
}
"""Values from that which shows least to that which shows most; `replica` and `local` switch triggers off."""
_DEFAULTS = {
    "compute_query_id": "auto",
    "log_error_verbosity": "default",
    "log_min_error_statement": "error",
    "log_min_messages": "warning",
    "log_statement": "none",
    "pg_stat_statements.track": "top",
    "pg_stat_statements.track_utility": "on",
    "session_replication_role": "origin",
    "track_activities": "on",
}
_DURATIONS = ("log_min_duration_statement", "auto_explain.log_min_duration")


def blinding(settings: Mapping[str, str], servers: Mapping[str, str]) -> dict[str, str]:
    """Return those of a session's settings by which less is seen of it than of others.

    `servers` are the server's own as far as snapshots reported them; what is not among them has PostgreSQL's default,
    but for durations, of which the default shows nothing: there the session's own word counts.
    """
    return {name: value for name, value in sorted(settings.items()) if _shows_less(name, value, servers.get(name))}


def _shows_less(name: str, value: str, server: str | None) -> bool:
    value = value.lower()
    if name in _DURATIONS:
        return _duration(value) > _duration(server if server is not None else "0")
    order = _LESS_IS_SEEN.get(name)
    if order is None:  # pgaudit.log lists classes
        return value in ("", "none") and server not in ("", "none")
    own = server if server in order else _DEFAULTS[name]
    return value in order and order.index(value) < order.index(own)


def _duration(value: str) -> float:
    """Read milliseconds from which on something is logged; never, where it is off."""
    try:
        number = float(value)
    except ValueError:
        return 0.0
    return number if number >= 0 else float("inf")
