"""How many rows the tables of a database hold, so that the worker can say how much of one a transaction took.

Only what has changed since the last look is sent, and everything again when relations are listed anew. No event comes
of it. Losing one costs nothing but a number that is older: the worker counts on by the WAL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pgwitness.core.events import Posture

EVERY_S = 30.0
LISTED_MAX = 1_000
RELATIONS_MAX = 20_000


class Sizes:
    """What was sent last, by database."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, int]] = {}

    def again(self) -> None:
        """Send everything the next time."""
        self._sent.clear()

    def changed(self, database: str, rows: Mapping[str, int], at_us: int, captured_at_us: int) -> Iterator[Posture]:
        """Make the records of what has another size than it was sent with; `at_us` is the server's clock before."""
        known = self._sent.get(database, {})
        news = sorted((name, number) for name, number in rows.items() if known.get(name) != number)[:RELATIONS_MAX]
        self._sent[database] = {**{name: known[name] for name in known if name in rows}, **dict(news)}
        for part, begin in enumerate(range(0, len(news), LISTED_MAX), 1):
            after: dict[str, object] = {"at_us": at_us, "rows": dict(news[begin : begin + LISTED_MAX])}
            yield Posture(
                captured_at_us=captured_at_us,
                object_type="sizes",
                name=f"sizes {part}",
                change="found",
                database=database,
                after=after,
            )
