"""What the views of a database read, so that a statement on a view is known by the tables and columns behind it.

The server itself keeps which relations and columns a view's rule depends on: these are sent as they change, and whether
the view may leave rows out (a condition, a LIMIT). No text is read and no lock taken, and no event comes of it. Not
told are the views of the system and of pgwitness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pgwitness.core.events import Posture

LISTED_MAX = 200
NAMES_MAX, CHARS_MAX = 100, 4_000
"""What is told of one view: names, and their characters; of one with more nothing is."""

Entry = list[object]
"""Whether all rows come through, relations, their columns as `schema.table.column`, and the view's own columns."""


class Views:
    """What was sent last, by database."""

    def __init__(self) -> None:
        self._sent: dict[str, dict[str, Entry]] = {}

    def again(self) -> None:
        """Send everything the next time."""
        self._sent.clear()

    def changed(
        self, database: str, found: Iterable[tuple[str, Entry]], clock_us: Callable[[], int], captured_at_us: int
    ) -> Iterator[Posture]:
        """Make the records of what is new and what is gone; `clock_us` is the server's clock."""
        at_us = clock_us()
        told = {name: entry for name, entry in found if _fits(entry)}
        sent = self._sent.get(database, {})
        gone = [name for name in sent if name not in told]
        news = sorted((name, entry) for name, entry in told.items() if sent.get(name) != entry)
        self._sent[database] = told
        for part, begin in enumerate(range(0, max(len(news), len(gone)), LISTED_MAX), 1):
            end = begin + LISTED_MAX
            after: dict[str, object] = {"at_us": at_us, "reads": dict(news[begin:end]), "gone": gone[begin:end]}
            yield Posture(
                captured_at_us=captured_at_us,
                object_type="views",
                name=f"views {part}",
                change="found",
                database=database,
                after=after,
            )


def _fits(entry: Entry) -> bool:
    lists = [names for names in entry[1:] if isinstance(names, list)]
    letters = sum(len(name) for names in lists for name in names)
    return all(len(names) <= NAMES_MAX for names in lists) and letters <= CHARS_MAX
