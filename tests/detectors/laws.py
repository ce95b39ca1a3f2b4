"""The laws of detectors: what holds for every one of them, whatever it looks for.

A detector judges events in their order, return its state as bytes and takes it back. `test_laws.py` applies every law
to every detector there is; a new one is added to its list and to nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from detectors.judge import STATE_VERSION
from detectors.judgement import Judgement
from pgwitness.core.events import Event
from tests.detectors.material import START_US, change, day, hostile, week


class Detector(Protocol):
    """What the laws are about."""

    def judge(self, event: Event) -> Judgement: ...

    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...


Make = Callable[[], Detector]
SHARE = 10
"""The laws are held against bounds that are this much lower than the real ones: a smaller crowd reaches them."""
CROWD = 12_000
STATE_BYTES_MAX = 8 * 1024**2 // SHARE


def plain(judgement: Judgement) -> bytes:
    """Return everything a judgement says, as it leaves the process."""
    findings = [alert.ocsf() for alert in judgement.alerts]
    return msgspec.json.encode([judgement.policies, judgement.anomaly, judgement.reasons, findings])


def judged(detector: Detector, events: Iterable[Event]) -> list[bytes]:
    """Judge events and give what was said of each."""
    return [plain(detector.judge(event)) for event in events]


def inputs_are_not_changed(make: Make) -> None:
    """An event is the same after it was judged."""
    detector = make()
    for event in day(1) + hostile(1):
        before = msgspec.json.encode(event)
        plain(detector.judge(event))
        assert msgspec.json.encode(event) == before


def same_input_gives_same_verdicts(make: Make) -> None:
    """Two detectors of the same kind say the same of the same events, and end in the same state."""
    one, other = make(), make()
    assert judged(one, day(2)) == judged(other, day(2))
    assert one.snapshot() == other.snapshot()


def goes_on_after_a_snapshot(make: Make) -> None:
    """A detector restored in mid-stream says of the rest what the first one says, and its state stays the same."""
    events = day(3)
    for middle in (0, 1, 250, 599):
        first, second = make(), make()
        for event in events[:middle]:
            first.judge(event)
        state = first.snapshot()
        second.restore(state)
        assert second.snapshot() == state
        assert judged(second, events[middle:]) == judged(first, events[middle:])
        assert second.snapshot() == first.snapshot()


def goes_on_after_a_snapshot_while_windows_close(make: Make) -> None:
    """Likewise in a week in which models learn windows: restored twice on the way, it says what the first one says."""
    events = week(5)
    first, second = make(), make()
    said = judged(first, events)
    restored = judged(second, events[:1_201])
    for start, end in ((1_201, 1_900), (1_900, len(events))):
        state = second.snapshot()
        second = make()
        second.restore(state)
        restored += judged(second, events[start:end])
    assert restored == said
    assert second.snapshot() == first.snapshot()


def repeating_teaches_nothing(make: Make) -> None:
    """The same misdeed a thousand times is judged the thousandth time as the second."""
    detector = make()
    for one in week(6, 800):
        detector.judge(one)
    scores = []
    for number in range(1_000):
        at_us = START_US + 800 * 240_000_000 + number * 1_000_000
        facts = {"peer_group": "team", "occurred_at_us": at_us, "captured_at_us": at_us}
        scores.append(detector.judge(change(number, "d", 60_000, "vault.cards", principal="member-1", **facts)).anomaly)
    assert len(set(scores[1:])) == 1


def first_windows_do_not_alert(make: Make) -> None:
    """Until anything is known of anybody, only policies speak."""
    detector = make()
    for one in week(7, 250):
        titles = {alert.title for alert in detector.judge(one).alerts}
        assert "Unusual activity of a principal" not in titles


def state_is_json(make: Make) -> None:
    """The state is JSON with a version; nothing in it is executed when it is read."""
    detector = make()
    for event in day(4):
        detector.judge(event)
    state: Any = msgspec.json.decode(detector.snapshot())
    assert state["version"] == STATE_VERSION


def hostile_input_is_judged(make: Make) -> None:
    """Texts, numbers and structures that an enemy chose are judged; scores stay within 0 and 1."""
    detector = make()
    for seed in range(3):
        for event in hostile(seed):
            verdict = detector.judge(event)
            assert verdict.anomaly is None or 0.0 <= verdict.anomaly <= 1.0
            for alert in verdict.alerts:
                assert len(msgspec.json.encode(alert.ocsf())) < 256 * 1024
    detector.restore(detector.snapshot())


def a_crowd_does_not_fill_the_memory(make: Make) -> None:
    """However many names come, each with values of its own, the state stops growing."""
    detector = make()
    sizes = []
    for number in range(CROWD):
        detector.judge(stranger(number))
        if number in (CROWD // 2, CROWD - 1):
            sizes.append(len(detector.snapshot()))
    assert sizes[1] < sizes[0] * 1.1
    assert sizes[1] < STATE_BYTES_MAX


def stranger(number: int) -> Event:
    """Make the change of somebody who comes once, with everything about them new."""
    name = f"user-{number}-{'x' * (number % 50)}"
    facts = {"application": name, "client_addr": name, "peer_group": name, "last": number % 3 > 0}
    return change(number, "d", 60, f"public.{name}", principal=name, principal_kind="agent", **facts)


LAWS = [
    inputs_are_not_changed,
    same_input_gives_same_verdicts,
    goes_on_after_a_snapshot,
    goes_on_after_a_snapshot_while_windows_close,
    repeating_teaches_nothing,
    first_windows_do_not_alert,
    state_is_json,
    hostile_input_is_judged,
    a_crowd_does_not_fill_the_memory,
]
