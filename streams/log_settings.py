"""Whether every session announces its statements in the server's log, by what snapshots of the settings say.

Until it is known, the answer is no. A superuser can take a session of his own out of the log at any time
(`docs/explanation/attribution.md`); what the log then has of that is read by the collector.
"""

from __future__ import annotations

from pgwitness.events import Posture

OVERRIDES_MAX = 1_000
_SILENCING = ("log_statement", "log_min_messages")
_LIBRARIES = "shared_preload_libraries"
_KNOWN = frozenset({"", "pg_stat_statements", "auto_explain", "pgaudit", "pg_prewarm", "pg_wait_sampling"})
"""Libraries whose background processes, if they have any, write no rows; of any other that is not known."""


class LogSettings:
    """The settings of one cluster, by name; an entry `role` or `database` that overrides one has its own name."""

    def __init__(self, told: dict[str, str] | None = None) -> None:
        self.told = dict(told or {})

    def see(self, event: Posture) -> None:
        """Take up what a snapshot found, or found changed."""
        after = event.after or {}
        if event.object_type == "setting" and event.name in (*_SILENCING, _LIBRARIES):
            self.told[event.name] = str(after.get("value", "")).lower()
        elif event.object_type == "role_setting":
            name = f"override {event.name}"
            if event.change != "removed" and any(setting in after for setting in _SILENCING):
                if len(self.told) < OVERRIDES_MAX:
                    self.told[name] = ""
            else:
                self.told.pop(name, None)

    @property
    def announced(self) -> bool:
        """Whether every statement is announced before it runs, and nothing writes that is no statement."""
        told = self.told
        libraries = {name.strip() for name in told.get(_LIBRARIES, "").split(",")}
        return (
            told.get("log_statement") == "all"
            and told.get("log_min_messages", "warning") not in ("fatal", "panic")
            and libraries <= _KNOWN
            and not any(name.startswith("override ") for name in told)
        )
