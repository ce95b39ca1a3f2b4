"""Every law on every detector, with bounds a tenth of the real ones: to fill those takes a crowd some minutes.

What the real bounds hold at most is measured by `make flood`.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from detectors.alerts import ledger
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy import evaluator
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.units import Duration
from tests.detectors import laws
from tests.detectors.test_bounds import LIMITS

SETTINGS = Settings(warmup=Duration(2.0), warmup_observations=10, principals_max=1_000 // laws.SHARE, alert_at=0.5)

BROKEN = """
id: broken
title: a policy that fails on most actions
description: it asks for what is not there
severity: low
kinds: [change, query_stats, session, posture, control, gap, ddl, statement]
when: labels.nothing == principal.name
message: "{who} {labels.nothing}"
runbook: correct it
tests:
  - {name: a, match: true, action: {labels: {nothing: x}, principal: {name: x}}}
  - {name: b, match: false, action: {labels: {nothing: x}, principal: {name: y}}}
"""


def packaged() -> Judge:
    """The packaged policies and the behaviour model together."""
    return Judge(Bundle.packaged(), labels={"shop": {"owner": "payments"}}, behaviour=Behaviour(SETTINGS))


def policies_alone() -> Judge:
    """The packaged policies without the model."""
    return Judge(Bundle.packaged(), labels={}, behaviour=None)


def behaviour_alone() -> Judge:
    """The model without policies."""
    return Judge(Bundle([]), labels={}, behaviour=Behaviour(SETTINGS))


def broken_policy() -> Judge:
    """A policy that cannot be evaluated."""
    policies: list[Policy] = parse(BROKEN, "broken.yaml")
    return Judge(Bundle(policies), labels={}, behaviour=Behaviour(SETTINGS))


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower every bound."""
    for module, name in (*LIMITS, (ledger, "KEPT_BYTES_MAX")):
        monkeypatch.setattr(module, name, getattr(module, name) // laws.SHARE)


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", [packaged, policies_alone, behaviour_alone, broken_policy], ids=lambda m: m.__name__)
def test_laws(law: Callable[[laws.Make], None], make: laws.Make) -> None:
    """Every detector keeps every law."""
    law(make)


def test_eight_thousand_unknown_principals_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a judge keeps besides its state (answers by shape, findings) is bounded too, measured as memory."""
    monkeypatch.setattr(evaluator, "SHAPES_MAX", 50)
    monkeypatch.setattr(ledger, "FINDINGS_MAX", 50)
    judge = packaged()
    for number in range(6_000):
        judge.judge(laws.stranger(number))
    tracemalloc.start()
    try:
        for number in range(6_000, 8_000):
            judge.judge(laws.stranger(number))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # As much was let go as came; what was kept of the last ones is what the bounds allow.
    assert grown < 12 * 1024**2 // laws.SHARE
