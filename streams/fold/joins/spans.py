"""Spans of time that can be asked for a moment: which of them hold it? Fast for many short ones among few long ones.

A span stands in the buckets that it touches, of a width that fits its length: ten at most, plus one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

WIDTHS_US = (10_000, 1_000_000, 100_000_000)
ENDLESS = -1
"""The width of what is longer than any bucket can hold: it is looked at each time."""


class Span(Protocol):
    """Something that has a beginning and an end."""

    @property
    def start_us(self) -> int:
        """When it began."""

    @property
    def end_us(self) -> int:
        """When it ended."""


S = TypeVar("S", bound=Span)
Bucket = tuple[int, int]


class Spans(Generic[S]):
    """Spans, widened by `slack_us` on both sides. What bounds their number is the caller's."""

    def __init__(self, slack_us: int = 0) -> None:
        self._slack_us = slack_us
        self._buckets: dict[Bucket, list[S]] = {}

    def add(self, span: S) -> None:
        """Add a span; it must not change while it is here."""
        for bucket in self._of(span):
            self._buckets.setdefault(bucket, []).append(span)

    def remove(self, span: S) -> None:
        """Take a span out."""
        for bucket in self._of(span):
            kept = [item for item in self._buckets.get(bucket, ()) if item is not span]
            if kept:
                self._buckets[bucket] = kept
            else:
                self._buckets.pop(bucket, None)

    def at(self, at_us: int) -> Iterator[S]:
        """Return the spans that hold a moment, slack included."""
        return self.between(at_us, at_us)

    def between(self, first_us: int, last_us: int) -> Iterator[S]:
        """Return the spans that share a moment with another; that one should not be longer than a second."""
        seen: set[int] = set()
        for width in (*WIDTHS_US, ENDLESS):
            for bucket in _buckets(width, first_us, last_us):
                for span in self._buckets.get(bucket, ()):
                    apart = span.start_us - self._slack_us > last_us or span.end_us + self._slack_us < first_us
                    if not apart and id(span) not in seen:
                        seen.add(id(span))
                        yield span

    def _of(self, span: S) -> list[Bucket]:
        first_us, last_us = span.start_us - self._slack_us, span.end_us + self._slack_us
        width = next((width for width in WIDTHS_US if last_us - first_us <= 10 * width), ENDLESS)
        return _buckets(width, first_us, last_us)


def _buckets(width: int, first_us: int, last_us: int) -> list[Bucket]:
    if width == ENDLESS:
        return [(ENDLESS, 0)]
    return [(width, number) for number in range(first_us // width, last_us // width + 1)]
