"""The contract of a detector: code that looks at one action after the other, beside policies and behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pgwitness.core.events import Kind

ActionT = TypeVar("ActionT", contravariant=True)
FoundT = TypeVar("FoundT", contravariant=True)
ReportT = TypeVar("ReportT", covariant=True)


class Detector(Protocol[ActionT, FoundT, ReportT]):
    """Looks at the actions of one partition in their order. Each partition of `events` has one of its own.

    It is a function of what it was given: without clock, randomness, files or threads, so that a replay reports the
    same. What it keeps is bounded, whatever names come. Changes pass by the ten thousand a second: a
    detector that takes kind `change` is paid for with each of them.

    It decides what a finding is, not whether somebody is told: reports of the same `detector` and `key` within a window
    become one alert that counts, and what is suppressed stays so.
    """

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of events it is asked about; never changes."""

    def look(self, action: ActionT, found: FoundT) -> Sequence[ReportT]:
        """Return what is to be reported of an action; usually nothing. `found` is what policies and behaviour found.

        Changes neither of them. Takes an action of any content and raises nothing: an exception makes the event land
        unjudged, with a gap that says so, and what was kept of the action up to then stays.
        """

    def snapshot(self) -> object:
        """Return the state as JSON values, or None when there is none; it goes into the judge's checkpoint."""

    def restore(self, state: object) -> None:
        """Take a snapshot's state, of this version or an older one, and go on as if nothing had happened.

        Raise `ValueError`, `TypeError` or `KeyError` for what is no snapshot; the checkpoint is then damaged.
        """
