"""A chart of an answer, where it has the form of one: names or times in its first column, a number in another. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from pgwitness.core.printable import visible
from sinks.console.rendering import text
from sinks.report import charts

BARS_MAX, NAMES_MAX = 400, 30
SERIES_MAX = len(charts.COLOURS)
VALUE_MAX = 2**53


def drawn(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup | None:
    """Draw bars over time, or by name; none where the answer is no such thing."""
    if not 2 <= len(rows) <= BARS_MAX or len(columns) < 2:
        return None
    first = [row[0] for row in rows]
    numbers = [place for place in range(1, len(columns)) if all(_counts(row[place]) for row in rows)][:SERIES_MAX]
    if not numbers:
        return None
    series = [(visible(columns[place]), [round(_number(row[place])) for row in rows]) for place in numbers]
    labels = [visible(text(value)) for value in first]
    if all(isinstance(value, datetime) for value in first):
        return Markup(charts.over_time(labels, series, label="the answer over time"))  # noqa: S704  # it escapes
    if len(rows) > NAMES_MAX or not all(isinstance(value, str) for value in first):
        return None
    return Markup(charts.by_name(labels, series))  # noqa: S704


def _counts(value: object) -> bool:
    """Say whether a value can be the length of a bar."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= VALUE_MAX


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
