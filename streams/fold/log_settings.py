"""Whether every session has its statements in the server's log, announced or ended, by snapshots of the settings.

Until it is known, the answer is no. A superuser can take a session of his own out of the log at any time
(`docs/explanation/attribution.md`); what the log then has of that is read by the collector.
"""

from __future__ import annotations

from pgwitness.core.events import Posture

OVERRIDES_MAX = 1_000
_SILENCING = ("log_statement", "log_min_messages")
_DURATION = "log_min_duration_statement"
_LIBRARIES = "shared_preload_libraries"
_KNOWN = frozenset({"", "pg_stat_statements", "auto_explain", "pgaudit", "pg_prewarm", "pg_wait_sampling"})
"""Libraries whose background processes, if they have any, write no rows; of any other that is not known."""


class LogSettings:
    """The settings of one cluster, by name; what overrides one for a role or database has its own name."""

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def see(self, event: Posture) -> None:
        """Take up what a snapshot found, or found changed."""
        after = event.after or {}
        if event.object_type == "setting" and event.name in (*_SILENCING, _DURATION, _LIBRARIES):
            self.values[event.name] = str(after.get("value", "")).lower()
        elif event.object_type == "role_setting":
            for word, settings in (("override", _SILENCING), ("shorten", (_DURATION,))):
                name = f"{word} {event.name}"
                if event.change != "removed" and any(setting in after for setting in settings):
                    if len(self.values) < OVERRIDES_MAX:
                        self.values[name] = ""
                else:
                    self.values.pop(name, None)

    @property
    def transactions(self) -> bool:
        """Whether every session's statements are reported, its COMMIT and ROLLBACK too."""
        values = self.values
        if any(name.startswith("override ") for name in values):
            return False
        ended = values.get(_DURATION) == "0" and not any(name.startswith("shorten ") for name in values)
        return ended or values.get("log_statement") == "all"

    @property
    def sees_ends(self) -> bool | None:
        """Whether the log has every COMMIT, ROLLBACK and error of every session; None without known settings."""
        values = self.values
        if _DURATION not in values and "log_statement" not in values:
            return None
        return self.transactions and values.get("log_min_messages", "warning") not in ("log", "fatal", "panic")

    @property
    def announced(self) -> bool:
        """Whether every statement is announced before it runs, and nothing writes that is no statement."""
        values = self.values
        libraries = {name.strip() for name in values.get(_LIBRARIES, "").split(",")}
        return (
            values.get("log_statement") == "all"
            and values.get("log_min_messages", "warning") not in ("fatal", "panic")
            and libraries <= _KNOWN
            and not any(name.startswith("override ") for name in values)
        )
