"""How often a principal has run what a policy limits (`max_rate`): counted here, in one process; pure, and bounded."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec.structs import replace

from detectors.gatekeeper import Verdict

WHO_MAX: Final = 10_000
"""Principals and policies of which it is known; of more the one that has run nothing for longest is forgotten."""


class Rates:
    """The times of the statements that each principal has run under each policy."""

    def __init__(self) -> None:
        self._times: dict[tuple[object, ...], deque[int]] = {}

    def admitted(self, verdict: Verdict, who: tuple[str, ...], at_us: int) -> Verdict:
        """Count a statement under each policy; return its verdict, or one that denies where it is one too many."""
        counted: list[deque[int]] = []
        for rate in verdict.rates:
            times = self._of((*who, rate), at_us - int(rate.seconds * 1_000_000))
            if len(times) >= rate.most:
                wait_s = max(1, -(-(times[0] + int(rate.seconds * 1_000_000) - at_us) // 1_000_000))
                most = f"{rate.most} in {rate.seconds:g} s is the most by {rate.policy}"
                message = f"refused by {verdict.message}; {most}, and the next may come in {wait_s} s"
                return replace(verdict, effect="deny", message=message)
            counted.append(times)
        for times in counted:
            times.append(at_us)
        return verdict

    def _of(self, key: tuple[object, ...], since_us: int) -> deque[int]:
        times = self._times.pop(key, None) or deque()
        self._times[key] = times  # the last of them now
        if len(self._times) > WHO_MAX:
            del self._times[next(iter(self._times))]
        while times and times[0] <= since_us:
            times.popleft()
        return times
