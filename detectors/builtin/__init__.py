"""Detectors that are code, beside policies and behaviour: what a policy cannot say, or must not be switched off with.

Each is a file and a line in `DETECTORS`, by the name under which its state stands in the judge's checkpoint. The judge
asks them about every action of their kinds (`pgwitness.core.contracts.detector`).
"""

from __future__ import annotations

from collections.abc import Callable

from detectors.actions import Action
from detectors.alerts.reports import Report
from detectors.builtin.found import Found
from detectors.builtin.policies_refused import PoliciesRefused
from pgwitness.core.contracts.detector import Detector

AnyDetector = Detector[Action, Found, Report]

DETECTORS: dict[str, Callable[[], AnyDetector]] = {
    "policies_refused": PoliciesRefused,
}


def make() -> dict[str, AnyDetector]:
    """Make one of each, for one partition."""
    return {name: detector() for name, detector in DETECTORS.items()}
