"""Which tables have no sensitive column, so that `SELECT *` of one is known to have read none.

A table is clear when no pattern of `privacy.sensitive` and no mask means any of its columns; `of` names the patterns,
so that whoever has others does not rely on it. Sent as it changes, with the views, and no event comes of it. Without
patterns nothing is asked of the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from collectors.posture.views import LISTED_MAX
from detectors.sensitive import Sensitive
from pgwitness.core.events import Posture

Columns = dict[str, list[str]]
"""By table, its columns as `schema.table.column`."""


class ClearTables:
    """What was sent last, by database."""

    def __init__(self, sensitive: Sensitive) -> None:
        self._sensitive = sensitive
        self._sent: dict[str, Columns] = {}

    @property
    def asked(self) -> bool:
        """Whether anything is sensitive at all."""
        return bool(self._sensitive.patterns)

    def again(self) -> None:
        """Send everything the next time."""
        self._sent.clear()

    def changed(
        self, database: str, tables: Iterable[tuple[str, list[str]]], at_us: int, captured_at_us: int
    ) -> Iterator[Posture]:
        """Return the records of what is new and what is gone; `at_us` is the server's clock before the look."""
        clear = {name: columns for name, columns in tables if not self._sensitive.among(columns, [])}
        sent = self._sent.get(database, {})
        gone = [name for name in sent if name not in clear]
        news = sorted(name for name, columns in clear.items() if sent.get(name) != columns)
        self._sent[database] = clear
        for part, begin in enumerate(range(0, max(len(news), len(gone)), LISTED_MAX), 1):
            end = begin + LISTED_MAX
            after: dict[str, object] = {
                "at_us": at_us,
                "reads": {},
                "gone": [],
                "clear": news[begin:end],
                "unclear": gone[begin:end],
                "clear_of": self._sensitive.fingerprint,
            }
            yield Posture(
                captured_at_us=captured_at_us,
                object_type="views",
                name=f"clear tables {part}",
                change="found",
                database=database,
                after=after,
            )
