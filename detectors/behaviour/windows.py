"""Windows of a principal's time: what it did in an hour, and in a day, counted.

Windows lie on the epoch's grid, so that the same events fall into the same windows wherever a stream is cut. Actions
are counted into the hour only; when that closes it is poured into the day. Sets are bounded: of more
values than are kept only their number goes on. The state is a list of JSON values.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from detectors.behaviour.habits import Unusual, short
from pgwitness.core.events import Event

VALUES_MAX = 64
EVENT_IDS_MAX = 12
COUNT_MAX = 10**9
"""The most rows or calls that one action counts for."""
MINUTE_US = 60_000_000


class Length(Struct, frozen=True):
    """How long a window is. `trees` is the generation of half-space trees that suits how often such windows come."""

    name: str
    us: int
    words: str
    trees: int


LENGTHS = (
    Length("1h", 60 * MINUTE_US, "an hour", 250),
    Length("1d", 24 * 60 * MINUTE_US, "a day", 50),
)


class Window:
    """Counts of one principal in one window.

    `new` is what the principal never did before, `foreign` the part of it that its peers never did either, and
    `strange` sums how surprising each foreign action was; `rows_read_new` are rows read by queries of which the same is
    true: neither the principal nor its peers ever ran them. `elsewhere` counts actions from an address or by an
    application that is new. `sample` are facts of the action that moved the most rows, from which an alert is made.
    `best` is the highest score of the window so far and, for a day, of its hours; `reported` the share of
    principal-days that are as strange as what was last found in it, 1 when nothing was. `ask` is the number of actions
    from which on an open window is looked at again, and likewise for rows and errors.
    """

    __slots__ = (
        "actions",
        "addresses",
        "ask",
        "ask_deleted",
        "ask_errors",
        "ask_new",
        "ask_read",
        "ask_written",
        "best",
        "connects",
        "elsewhere",
        "end_us",
        "errors",
        "event_ids",
        "first_us",
        "foreign",
        "kind",
        "last_us",
        "new",
        "relations",
        "reported",
        "rows_deleted",
        "rows_read",
        "rows_read_new",
        "rows_written",
        "sample",
        "sample_rows",
        "statements",
        "strange",
    )

    def __init__(self, end_us: int, now_us: int) -> None:
        self.end_us = end_us
        self.first_us = self.last_us = now_us
        self.kind = ""
        self.actions = self.connects = self.elsewhere = self.errors = 0
        self.rows_read = self.rows_written = self.rows_deleted = self.rows_read_new = 0
        self.strange = 0.0
        self.relations: set[str] = set()
        self.statements: set[str] = set()
        self.addresses: set[str] = set()
        self.new: set[str] = set()
        self.foreign: set[str] = set()
        self.event_ids: list[str] = []
        self.sample: list[Any] = []
        self.sample_rows = -1
        self.best = 0.0
        self.reported = 1.0
        self.ask = self.ask_read = self.ask_written = self.ask_deleted = self.ask_errors = COUNT_MAX
        self.ask_new = COUNT_MAX

    def keep(self, event_id: str) -> None:
        """Remember an event as evidence; of more than are kept, the first and the latest stay."""
        ids = self.event_ids
        if event_id not in ids:
            if len(ids) >= EVENT_IDS_MAX:
                del ids[1]
            ids.append(event_id)

    def add(self, operation: str, relation: str | None, rows: int, statement: str | None, event: Event) -> bool:
        """Count one action; numbers that nobody could mean are cut off. Says whether it is time to look at it again."""
        calls = event.calls
        self.actions += 1 if calls is None or calls < 1 else min(calls, COUNT_MAX)
        place = _MOVES.get(operation)
        if place is not None and rows > 0:
            rows = min(rows, COUNT_MAX)
            if place == "rows_read":
                self.rows_read += rows
            elif place == "rows_written":
                self.rows_written += rows
            else:
                self.rows_deleted += rows
        elif operation == "connect":
            self.connects += 1
        if event.outcome in _FAILED or operation == "login_failed":
            self.errors += 1
        if relation is not None and relation not in self.relations:
            _add(self.relations, relation)
        if statement is not None and statement not in self.statements:
            _add(self.statements, statement)
        address = event.client_addr
        if address is not None and address not in self.addresses:
            _add(self.addresses, address)
        return (
            self.actions >= self.ask
            or self.rows_read >= self.ask_read
            or self.rows_written >= self.ask_written
            or self.rows_deleted >= self.ask_deleted
            or self.errors >= self.ask_errors
        )

    def note(self, unusual: Unusual, touch: str, statement: str | None, rows_read: int, event_id: str) -> None:
        """Write down what the habits found new in an action that read so many rows."""
        if unusual.new_relation or unusual.new_statement:
            _add(self.new, touch if unusual.new_relation else statement or "")
        if unusual.unprecedented and rows_read > 0:
            self.rows_read_new += min(rows_read, COUNT_MAX)
            self.keep(event_id)
        if unusual.foreign > 0:
            _add(self.foreign, touch)
            self.strange += unusual.foreign
            self.keep(event_id)
        if unusual.new_client_addr or unusual.new_application:
            self.elsewhere += 1
            self.keep(event_id)

    def pour(self, other: Window) -> None:
        """Add a shorter window that has closed."""
        self.first_us = min(self.first_us, other.first_us)
        self.last_us = max(self.last_us, other.last_us)
        self.kind = other.kind
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _SETS:
            mine: set[str] = getattr(self, name)
            for value in sorted(getattr(other, name)):
                if len(mine) >= VALUES_MAX:
                    break
                mine.add(value)
        for event_id in other.event_ids:
            self.keep(event_id)
        if other.sample_rows > self.sample_rows:
            self.sample, self.sample_rows = other.sample, other.sample_rows

    def with_poured(self, other: Window) -> Window:
        """Return this window as it will be when an open shorter one has been added."""
        both = Window.of(self.state())
        both.pour(other)
        return both

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [
            [getattr(self, name) for name in _PLAIN],
            [getattr(self, name) for name in _COUNTS],
            [sorted(getattr(self, name)) for name in _SETS],
            list(self.event_ids),
            list(self.sample),
        ]

    @classmethod
    def of(cls, state: list[Any]) -> Window:
        """Make it from `state()`."""
        plain, counts, sets, event_ids, sample = state
        window = cls(0, 0)
        for names, values in ((_PLAIN, plain), (_COUNTS, counts)):
            for name, value in zip(names, values, strict=True):
                setattr(window, name, value)
        for name, values in zip(_SETS, sets, strict=True):
            setattr(window, name, set(values))
        window.event_ids, window.sample = event_ids, sample
        return window


def moved_by(operation: str) -> str:
    """Return the count that the rows of an operation go into."""
    return _MOVES.get(operation, "rows_written")


def _add(values: set[str], value: str) -> None:
    if len(values) < VALUES_MAX:
        values.add(short(value))


_MOVES = {
    **dict.fromkeys(("select", "copy_to", "fetch", "copy"), "rows_read"),
    **dict.fromkeys(("insert", "update", "merge", "copy_from", "create_table_as", "select_into"), "rows_written"),
    **dict.fromkeys(("delete", "truncate"), "rows_deleted"),
}
_FAILED = frozenset({"failure", "denied"})
_PLAIN = (
    "end_us",
    "first_us",
    "last_us",
    "kind",
    "sample_rows",
    "best",
    "reported",
    "ask",
    "ask_read",
    "ask_written",
    "ask_deleted",
    "ask_errors",
    "ask_new",
)
_COUNTS = (
    "actions",
    "connects",
    "elsewhere",
    "errors",
    "rows_read",
    "rows_written",
    "rows_deleted",
    "strange",
    "rows_read_new",
)
_SETS = ("relations", "statements", "addresses", "new", "foreign")
