"""What somebody sees who looks at a session: how it stands, and what it runs."""

from __future__ import annotations

from typing import NamedTuple


class Seen(NamedTuple):
    """A session at a moment. `since_ns` is when its state began, by the clock of `Moment.ns`; 0: at its beginning.

    `statement` is what it runs, without literals, or what it ran last; `rows` those of all answers so far.
    """

    status: str
    active: bool
    since_ns: int
    statement: str | None
    statements: int
    rows: int
    application: str
