"""How long to wait before something is tried again: exponential back-off with jitter.

A pause doubles with each failure in a row, so that a server that is coming up is left in peace; half of it is left
to chance, so that all who lost the same server do not come back at the same moment.
"""

from __future__ import annotations

import random

FIRST_S = 0.5
DOUBLINGS_MAX = 16


def pause_s(failures: int, max_s: float) -> float:
    """Return the pause after so many failures in a row (from 1), in seconds, at most `max_s`."""
    longest = min(max_s, FIRST_S * 2.0 ** min(failures - 1, DOUBLINGS_MAX))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
