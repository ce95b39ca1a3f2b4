"""Drift: river's ADWIN over the scores of one group's windows, with a state that is data.

ADWIN keeps a window of the latest scores whose length it chooses, and says when its newer part has another mean than
its older one (A. Bifet and R. Gavaldà, Learning from time-changing data with adaptive windowing, 2007). River's is
written in Rust; its state is a flat record of numbers, which travels as base64 with its hash. Nothing in it is
executed when it is read, what does not carry its hash is refused, and of another version of river nothing is read,
because the layout of the record is that version's own: then the window begins anew.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import version

from detectors.behaviour.learners import ADWIN

DELTA = 0.002
RIVER = version("river")
STATE_CHARS_MAX = 64 * 1024


class Drift:
    """Says when the mean of what it is fed has risen for good."""

    def __init__(self) -> None:
        self._adwin = ADWIN(delta=DELTA)

    @property
    def mean(self) -> float:
        """Give the mean of the window that ADWIN holds now."""
        return float(self._adwin.estimation)

    def update(self, score: float) -> bool:
        """Take a score in; true when the mean has just changed and is higher than it was."""
        before = self.mean
        self._adwin.update(score)
        return bool(self._adwin.drift_detected) and self.mean > before

    def state(self) -> list[str | bool]:
        """Give everything as JSON values."""
        data: bytes = self._adwin._helper.__getstate__()
        text, digest = base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest()
        return [RIVER, text, digest, bool(self._adwin.drift_detected)]

    @classmethod
    def of(cls, state: list[str | bool]) -> Drift:
        """Make it from `state()`. Raises `ValueError` when it is not what was written."""
        written_by, text, digest, detected = state
        if written_by != RIVER:
            return cls()
        if not isinstance(text, str) or len(text) > STATE_CHARS_MAX:
            raise ValueError("the state of ADWIN is no text of a sensible length")
        data = base64.b64decode(text, validate=True)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("the state of ADWIN does not match its hash")
        drift = cls()
        drift._adwin._helper.__setstate__(data)
        drift._adwin._drift_detected = bool(detected)
        return drift
