"""What goes into a session and what comes out of it: the time, settings, a decision on a statement, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.gateway.records import Record, Said
from collectors.gateway.wire.violation import ProtocolViolation


class Moment(NamedTuple):
    """Now: `us` by the wall clock, `ns` by one that only goes forward."""

    us: int
    ns: int


class Settings(NamedTuple):
    """What decides how the server reads a text: as it has reported it."""

    encoding: str
    standard_strings: bool


class Decision(NamedTuple):
    """What is to become of a statement, and what may be said of it."""

    said: Said


Judge = Callable[[bytes, Settings], Decision]


@dataclass
class Actions:
    """What is to be done, in this order: write the records, then send. `close` ends the session with its last words."""

    records: list[Record] = field(default_factory=list)
    to_server: list[bytes] = field(default_factory=list)
    to_client: list[bytes] = field(default_factory=list)
    close: ProtocolViolation | None = None
    ended: bool = False
