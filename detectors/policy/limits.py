"""What a policy with `effect: limit` or `approve` allows of what it matches, read from its document; pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from detectors.policy.document import Document
from pgwitness.core.units import Duration, Size

RATE_MAX: Final = 10_000
"""Statements in a time of which each is remembered."""
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/(\S+)")
_TOGETHER: Final = (
    "max_rows, max_bytes, max_duration, max_rate: "
    "they go with effect: limit or with approve, and those with one of them"
)
_APPROVED: Final = "max_rows: it goes with approve, so that who decides knows of how much"


class Limits(NamedTuple):
    """How much one statement may change or answer, how long it may run, and how many a principal may run in a time."""

    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    rate: int | None = None
    rate_s: float = 0.0

    def by_name(self) -> dict[str, float]:
        """Return what one statement is limited in, and how tightly: the less the tighter."""
        found = {"rows": self.rows, "bytes": self.bytes, "time": self.seconds}
        return {name: most for name, most in found.items() if most is not None}

    @classmethod
    def of(cls, document: Document) -> Limits:
        """Read a document's. Raise `ValueError` for what cannot be meant."""
        written = (document.max_rows, document.max_bytes, document.max_duration, document.max_rate)
        limits = any(one is not None for one in written)
        if limits != (document.effect == "limit" or document.approve is not None):
            raise ValueError(_TOGETHER)
        if document.approve is not None and document.max_rows is None:
            raise ValueError(_APPROVED)
        if document.max_rows is not None and document.max_rows < 0:
            raise ValueError("max_rows: zero or more")
        size = None if document.max_bytes is None else _read("max_bytes", Size.parse, document.max_bytes)
        seconds = (
            None if document.max_duration is None else _read("max_duration", Duration.parse, document.max_duration)
        )
        if seconds is not None and seconds <= 0:
            raise ValueError("max_duration: greater than zero")
        rate, rate_s = (None, 0.0) if document.max_rate is None else _rate(document.max_rate)
        return cls(
            document.max_rows,
            None if size is None else int(size),
            None if seconds is None else float(seconds),
            rate,
            rate_s,
        )


def _read(name: str, parse: Callable[[object], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _rate(text: str) -> tuple[int, float]:
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) > RATE_MAX:
        raise ValueError(f"max_rate: a number up to {RATE_MAX} and a time, such as 60/1m; got {text!r}")
    try:
        seconds = float(Duration.parse(match[2]))
    except ValueError as error:
        raise ValueError(f"max_rate: {error}") from None
    if seconds <= 0:
        raise ValueError("max_rate: a time greater than zero")
    return int(match[1]), seconds
