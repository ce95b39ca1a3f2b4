"""The judgement on *Now*: which light, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sinks.console.now import Seal, by_severity, light

AT = datetime(2026, 9, 22, 12, tzinfo=UTC)
GOOD: dict[str, Any] = {"cluster": "shop", "last_captured": AT, "changes": 10, "exact": 10, "shadow": 0, "gaps": 0}


@pytest.mark.parametrize(
    ("more", "colour", "words"),
    [
        ({}, "green", "all 10 changed rows"),
        ({"changes": 0, "exact": 0}, "green", "no row was changed"),
        ({"exact": 9}, "yellow", "90.0 % of 10"),
        ({"gaps": 2}, "yellow", "2 gaps"),
        ({"shadow": 1, "exact": 9}, "red", "1 changed rows bypassed"),
        ({"last_captured": AT - timedelta(minutes=30)}, "red", "no evidence for 30 minutes"),
    ],
)
def test_a_light_has_the_worst_of_its_reasons(more: dict[str, Any], colour: str, words: str) -> None:
    """What bypassed the beacon is in nobody's share."""
    found = light(GOOD | more, AT)
    assert found.colour == colour
    assert words in found.reasons[0]
    assert len(found.reasons) == 1


def test_a_seal_is_green_only_where_it_covers_the_last_entry() -> None:
    """None is grey where none is wanted, and red where one is; trouble is red in its words."""
    seals = [Seal(7, 7), Seal(6, 7), Seal(), Seal(wanted=False), Seal(7, 7, "torn")]
    assert [seal.light().colour for seal in seals] == ["green", "yellow", "red", "grey", "red"]
    assert seals[-1].light().reasons == ("torn",)


def test_a_severity_of_another_name_is_counted() -> None:
    """What is not known comes last."""
    rows = [{"severity": "Fatal", "alerts": 2}, {"severity": "High", "alerts": 1}, {"severity": None, "alerts": 3}]
    assert by_severity(rows)[1] == ("High", 1)
    assert by_severity(rows)[5:] == [("Fatal", 2), ("unknown", 3)]
