"""What the page *Now* shows: what flows, how well it is covered, what is open, missing, late and sealed.

The questions read the days of capture that they need, and no others. The judgement (`light`) is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sinks.console.reader import Reader, Row
from sinks.lake.views.reconciliation import NAMED

MINUTES = 60
DAY = timedelta(days=1)
LATE_S = 600.0
"""Evidence of a cluster that is older than this is late; collectors send ticks far more often."""
SEVERITIES = ("Critical", "High", "Medium", "Low", "Informational")
GAPS_SHOWN = 20
OWN = "pgwitness"
"""The cluster of what pgwitness says of itself."""
Colour = Literal["green", "yellow", "red", "grey"]

SOURCE = (
    "CASE WHEN binding = 'gateway' AND kind = 'statement' THEN 'gateway' WHEN kind IN ('change', 'ddl') THEN 'WAL'"
    " WHEN kind = 'statement' THEN 'server log' WHEN kind = 'query_stats' THEN 'statistics'"
    " WHEN kind = 'session' THEN 'sessions' WHEN kind = 'posture' THEN 'catalogue'"
    " WHEN kind IN ('control', 'decision') THEN 'pgwitness' ELSE kind END"
)
_FLOW = f"""
SELECT {SOURCE} AS source, date_trunc('minute', captured_at) AS minute, count(*) AS events
FROM events WHERE dt >= $1::DATE AND captured_at >= $2::TIMESTAMPTZ GROUP BY ALL ORDER BY ALL"""
_COVERAGE = f"""
SELECT cluster, max(captured_at) AS last_captured, count(*) FILTER (kind = 'change') AS changes,
    count(*) FILTER (kind = 'change' AND certainty = 'exact') AS exact,
    count(*) FILTER (kind = 'change' AND covered AND NOT {NAMED}) AS shadow,
    count(*) FILTER (kind = 'gap') AS gaps
FROM events WHERE dt >= $1::DATE AND captured_at >= $2::TIMESTAMPTZ AND cluster <> '{OWN}'
GROUP BY cluster ORDER BY cluster"""
_GAPS = f"""
SELECT cluster, database, reason, missing_from, missing_until FROM gaps
WHERE dt >= $1::DATE AND captured_at >= $2::TIMESTAMPTZ
ORDER BY occurred_at DESC, event_id LIMIT {GAPS_SHOWN}"""
UNDECIDED = "status_id = 1 AND suppressed_by IS NULL AND coalesce(mode, '') <> 'staged'"
"""Of a finding: it was told, and nobody has decided on it. That its window has passed does not decide it."""
_OPEN = f"SELECT severity, count(*) AS alerts FROM findings WHERE {UNDECIDED} GROUP BY ALL"


@dataclass(frozen=True)
class Light:
    """How it is with a cluster, as a colour, and in words why."""

    cluster: str
    colour: Colour
    reasons: tuple[str, ...]
    last_captured: datetime | None = None


@dataclass(frozen=True)
class Seal:
    """How far the lake is sealed: the last entry of the seal and of the lake; or what is wrong, or that none is."""

    sealed: int = -1
    entries: int = -1
    trouble: str = ""
    wanted: bool = True

    def light(self) -> Light:
        """Return how it is with the seal."""
        if self.trouble:
            return Light("", "red", (self.trouble,))
        if self.sealed < 0:
            wanted = "the lake is to be sealed and is not" if self.wanted else "no sealer is set up"
            return Light("", "red" if self.wanted else "grey", (f"{wanted}: `pgwitness seal`",))
        behind = self.entries - self.sealed
        if behind > 0:
            return Light("", "yellow", (f"sealed to entry {self.sealed}; {behind} newer ones are not sealed yet",))
        return Light("", "green", (f"sealed to entry {self.sealed}, the last one",))


@dataclass(frozen=True)
class Facts:
    """Everything on the page."""

    at: datetime
    minutes: Sequence[datetime]
    flow: Sequence[tuple[str, Sequence[int]]]
    lights: Sequence[Light]
    open: Sequence[tuple[str, int]]
    gaps: Sequence[Row]
    seal: Light
    waiting: int | None = None
    """Requests that wait for approval; None where that is not known here."""


def gather(
    reader: Reader, seal: Callable[[], Seal], at: datetime, waiting: Callable[[], int | None] = lambda: None
) -> Facts:
    """Ask for everything. Raise `NotInOrder` and `Unreachable` as the reader does."""
    day = at - DAY
    minutes = [at.replace(second=0, microsecond=0) - timedelta(minutes=n) for n in range(MINUTES - 1, -1, -1)]
    flow = reader.rows(_FLOW, minutes[0].date(), minutes[0], rows_max=10_000)
    lights = [light(row, at) for row in reader.rows(_COVERAGE, day.date(), day)]
    return Facts(
        at=at,
        minutes=minutes,
        flow=by_source(flow, minutes),
        lights=lights or [Light("no cluster", "grey", ("no evidence was captured in the last 24 hours",))],
        open=by_severity(reader.rows(_OPEN)),
        gaps=reader.rows(_GAPS, day.date(), day),
        seal=seal().light(),
        waiting=waiting(),
    )


def by_source(rows: Sequence[Row], minutes: Sequence[datetime]) -> list[tuple[str, list[int]]]:
    """Count by source and minute, with the minutes in which there was nothing."""
    place = {minute: n for n, minute in enumerate(minutes)}
    found: dict[str, list[int]] = {}
    for row in rows:
        counts = found.setdefault(row["source"], [0] * len(minutes))
        if (n := place.get(row["minute"].astimezone(UTC))) is not None:
            counts[n] += row["events"]
    return sorted(found.items())


def by_severity(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Give a figure for each severity, the worst first; what has a name that is not known comes last."""
    counts = {str(row["severity"] or "unknown"): int(row["alerts"]) for row in rows}
    known = [(name, counts.pop(name, 0)) for name in SEVERITIES]
    return known + sorted(counts.items())


def light(row: Row, at: datetime) -> Light:
    """Judge the last day of a cluster: `red` where somebody wrote past the beacon or nothing comes any more."""
    red, yellow = [], []
    changes, shadow, last = row["changes"], row["shadow"], row["last_captured"].astimezone(UTC)
    if (at - last).total_seconds() > LATE_S:
        red.append(f"no evidence for {_span((at - last).total_seconds())}: is a collector or the worker down?")
    if shadow:
        red.append(f"{shadow} changed rows bypassed the beacon")
    if row["gaps"]:
        yellow.append(f"{row['gaps']} gaps in the last 24 hours")
    named = changes - shadow
    if named and row["exact"] < named:
        share = 100 * row["exact"] / named
        yellow.append(f"{share:.1f} % of {named} changed rows are tied to a session exactly")
    good = f"all {changes} changed rows are tied to a session exactly" if changes else "no row was changed"
    colour: Colour = "red" if red else "yellow" if yellow else "green"
    return Light(row["cluster"], colour, tuple(red + yellow) or (f"{good}; no gap in the last 24 hours",), last)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
