"""Lines that the server's log should have had and did not, found in the stream: statements counted, statements
reported.

pg_stat_statements counts every statement that succeeded; where the server logs them all, the log reports every one. The
fold sees both, so about once an hour of record time it compares them, statement by statement, and what the log lacks
is the gap `log_lines_lost`. The rule of reconciliation holds: a finding is only what nothing ordinary explains.

- Decided only while every statement is logged, for roles without settings of their own for the log, from the first
  line of an instance on, and only when its log has been read five minutes past the last reading of the statistics. A
  collector that pauses, restarts or lags therefore delays the answer and never is one; a loss it reports itself starts
  over.
- Lines too many are carried over, lines too few never are, so where a period is cut does not matter. Texts with
  several statements, texts that cannot be read and EXECUTE are each taken for as many statements as they may be.
- Statistics whose window is not certain, of nested statements, or of a text that nobody knows are not counted.

A loss below `LOST_MIN` lines or `SHARE_MIN` of the calls is not reported. All memory is bounded: an instance with more
statements in a period than `UNITS_MAX` starts over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from pgwitness.core.events import Control, Event, Gap, Posture
from pgwitness.core.sql.statements import CUT

PERIOD_US = 3_600_000_000
SETTLED_US = 300_000_000
"""How far beyond a reading of the statistics the log must have been read; its lines are roughly in order."""
LOST_MIN = 20
SHARE_MIN = 0.01
UNITS_MAX = 20_000
INSTANCES_MAX = 100
REASON = "log_lines_lost"
_SETTINGS = ("log_statement", "log_min_duration_statement", "pgaudit.log")
_OVERRIDES = re.compile(r"log_\w+|pgaudit\.\w+")
_RESTARTS = ("log_", "stats_", "collector_state_lost", "raw_", "state_rebuilt")


class Instance(Struct):
    """What was counted of one instance since `begun_us`: calls less lines by statement, until the reading `until_us`.

    `later` is the same of what came after `target_us`, up to which the log must have been read for the answer.
    """

    logged_since_us: int
    log_us: int
    begun_us: int = 0
    until_us: int = 0
    target_us: int = 0
    calls: int = 0
    later_calls: int = 0
    credit: int = 0
    balance: dict[str, int] = {}
    later: dict[str, int] = {}
    names: dict[str, str] = {}


class LogCounts(Struct):
    """What stands in a checkpoint."""

    settings: dict[str, str] = {}
    roles: list[str] = []
    instances: dict[str, Instance] = {}


class LogCoverage:
    """Compares what statistics counted with what the log reported, for one cluster."""

    def __init__(self, state: LogCounts | None = None) -> None:
        self.state = state if state is not None else LogCounts()
        self.source = _source(self.state.settings)
        """Which lines report every statement by the server's settings; None when none do."""

    @classmethod
    def load(cls, state: LogCounts | None, log_settings: dict[str, str]) -> LogCoverage:
        """Go on from a checkpoint; from one of an earlier release with what it knew of the settings."""
        if state is None:
            known = {name: value for name, value in log_settings.items() if name == "log_statement"}
            roles = [_role(name.removeprefix("override ")) for name in log_settings if name.startswith("override ")]
            state = LogCounts(known, list(dict.fromkeys(roles)))
        return cls(state)

    def posture(self, event: Posture) -> None:
        """Take up a setting that decides what is logged; when one changes, counting starts over."""
        after = event.after or {}
        state = self.state
        if event.object_type == "setting" and event.name in _SETTINGS:
            before = self.source
            value = "" if event.change == "removed" else str(after.get("value", "")).lower()
            state.settings[event.name] = value
            self.source = _source(state.settings)
            if self.source != before:
                state.instances.clear()
        elif event.object_type == "role_setting":
            role = _role(event.name)
            wrong = event.change != "removed" and any(_OVERRIDES.fullmatch(str(name)) for name in after)
            if wrong != (role in state.roles):
                state.instances.clear()
                if wrong:
                    state.roles.append(role)
                else:
                    state.roles.remove(role)

    def gap(self, event: Gap | Control, instance: str | None) -> None:
        """Start over where a loss is reported already."""
        if isinstance(event, Gap) and event.reason.startswith(_RESTARTS):
            if instance is None:
                self.state.instances.clear()
            else:
                self.state.instances.pop(instance, None)

    def statement(self, event: Event) -> None:
        """Count a line of the log."""
        source = self.source
        if source is None or event.instance is None or "ALL" in self.state.roles:
            return
        known = self.state.instances.get(event.instance)
        if known is None:
            if len(self.state.instances) >= INSTANCES_MAX:
                return
            known = self.state.instances[event.instance] = Instance(event.occurred_at_us, event.occurred_at_us)
        known.log_us = max(known.log_us, event.occurred_at_us)
        if not is_run(source, event) or event.outcome in ("failure", "denied"):
            return
        text = event.statement
        operations = event.detail.get("operations")
        if text is None or text.endswith(CUT):
            known.credit += 1
        elif ";" in text.rstrip("; \n") or (isinstance(operations, list) and "execute" in operations):
            known.credit += text.count(";") + 1
        unit = known.names.get(f"{event.database}\0{event.query_id}") if event.query_id else None
        unit = unit or f"{event.database}\0{event.fingerprint}"
        counts = known.later if known.target_us and event.occurred_at_us > known.target_us else known.balance
        counts[unit] = counts.get(unit, 0) - 1
        self._bound(event.instance, known)

    def query_stats(self, event: Event) -> Gap | None:
        """Count what the statistics report; return the loss when a reading shows that a period is over and short."""
        if self.source is None or event.instance is None or "ALL" in self.state.roles:
            return None
        known = self.state.instances.get(event.instance)
        if known is None:
            return None
        lost = self._over(known, event)
        known.until_us = max(known.until_us, event.occurred_at_us)
        detail = event.detail
        since = detail.get("window_start_us")
        certain = isinstance(since, int) and since >= known.logged_since_us and not detail.get("approximate")
        if certain and detail.get("toplevel") is not False and event.fingerprint and event.role not in self.state.roles:
            unit = f"{event.database}\0{event.fingerprint}"
            if event.query_id:
                known.names[f"{event.database}\0{event.query_id}"] = unit
            known.begun_us = known.begun_us or since  # type: ignore[assignment]  # `certain` says that it is an int
            counts = known.later if known.target_us else known.balance
            counts[unit] = counts.get(unit, 0) + (event.calls or 0)
            if known.target_us:
                known.later_calls += event.calls or 0
            else:
                known.calls += event.calls or 0
            self._bound(event.instance, known)
        return lost

    def _over(self, known: Instance, event: Event) -> Gap | None:
        """End the period when it is over and the log is far enough; `event` is of a later reading then."""
        later = event.occurred_at_us > known.until_us
        if later and not known.target_us and known.begun_us and known.until_us - known.begun_us >= PERIOD_US:
            known.target_us = known.until_us
        if not known.target_us or known.log_us < known.target_us + SETTLED_US:
            return None
        short = {unit: lacking for unit, lacking in known.balance.items() if lacking > 0}
        missing = max(0, sum(short.values()) - known.credit)
        lost = None
        if missing >= LOST_MIN and missing >= SHARE_MIN * known.calls:
            worst = max(short, key=lambda unit: (short[unit], unit))
            database, _, fingerprint = worst.partition("\0")
            lost = Gap(
                captured_at_us=event.captured_at_us,
                reason=REASON,
                database=database if _of_one(short) else None,
                occurred_at_us=known.target_us,
                detail={
                    "since_us": known.begun_us,
                    "until_us": known.target_us,
                    "calls": known.calls,
                    "missing": missing,
                    "statements": len(short),
                    "fingerprint": fingerprint,
                },
            )
        carried = {unit: lacking for unit, lacking in known.balance.items() if lacking < 0}
        for unit, lacking in known.later.items():
            carried[unit] = carried.get(unit, 0) + lacking
        known.balance, known.later, known.begun_us = carried, {}, known.target_us
        known.calls, known.later_calls = known.later_calls, 0
        known.target_us = known.credit = 0
        return lost

    def _bound(self, instance: str, known: Instance) -> None:
        if max(len(known.balance), len(known.later), len(known.names)) > UNITS_MAX:
            del self.state.instances[instance]


def is_run(source: str, event: Event) -> bool:
    """Return whether a line is the one that each run of a statement has, where lines of a source are.

    A session that has its statements announced (`SET log_statement = 'all'`) has their durations in those lines.
    """
    said = event.detail.get("source")
    return said == source or (source == "duration" and said == "statement" and event.duration_ms is not None)


def _source(settings: Mapping[str, str]) -> str | None:
    if settings.get("log_statement") == "all":
        return "statement"
    if settings.get("log_min_duration_statement") == "0":
        return "duration"
    classes = {name.strip() for name in settings.get("pgaudit.log", "").split(",")}
    return "pgaudit" if "all" in classes and not any(name.startswith("-") for name in classes) else None


def _role(name: str) -> str:
    """Read the role out of the name of a setting of its own (`app`, `app IN shop`, `ALL IN shop`)."""
    return name.partition(" IN ")[0].strip('"')


def _of_one(units: Iterable[str]) -> bool:
    return len({unit.partition("\0")[0] for unit in units}) == 1
