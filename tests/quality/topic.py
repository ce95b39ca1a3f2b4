"""The deployed form, and what its topic carried: four partitions, defaults, a judge each, told by the clock.

Findings are followed by their uid. One that waits for a digest counts as told when a digest that lists it is. What is
told is right when it is about the victim, speaks of a time in which the attack acted, names its relation where that is
what is wrong, and return one of the right reasons. Everything else that the models tell is false.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from detectors.actions import Action
from detectors.alerts.alert import Alert
from detectors.alerts.findings import Findings
from detectors.alerts.reports import Report
from detectors.alerts.triage import Triage
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Config
from pgwitness.core.events import Event, Position
from pgwitness.core.topics import lane_of, partition_of
from tests.quality.intrusions import Intrusion
from tests.quality.season import DAYS, WARM_DAYS, at

PARTITIONS = 4
LOUD = ("high", "critical")
MODELS, POLICIES, BOTH = frozenset({False}), frozenset({True}), frozenset({False, True})
"""Who told: whether it may be a policy."""


@dataclass
class Reported:
    """One finding of one principal as the topic told it: when by itself (µs), in a crowd or in a digest, and what.

    A crowd is a finding of its own, of nobody.
    """

    uid: str
    principal: str
    policy: bool
    severity: str
    first_us: int
    last_us: int
    text: str
    reasons: frozenset[str]
    alone_us: int | None = None
    digest_us: int | None = None
    crowd_us: int | None = None
    crowd: str = ""

    @property
    def reported_us(self) -> int | None:
        """Return when anybody could have read of it."""
        return min((time for time in (self.soon_us, self.digest_us) if time is not None), default=None)

    @property
    def soon_us(self) -> int | None:
        """Return when it was told without waiting for a digest."""
        return min((time for time in (self.alone_us, self.crowd_us) if time is not None), default=None)


class Fanned(Findings):
    """What a judge reports, told by its own triage and by others with other budgets; models know nothing of triage."""

    def __init__(self, config: Config, budgets: tuple[float, ...]) -> None:
        super().__init__(Triage(config.triage))
        self.others = [Findings(Triage(replace(config.triage, budget=budget))) for budget in budgets]
        self.heard: list[list[Alert]] = [[] for _ in budgets]

    @property
    def due_us(self) -> int:
        """By which time in the records any of them has something to tell."""
        return min(super().due_us, *(other.due_us for other in getattr(self, "others", ())), 1 << 62)

    def report(self, action: Action, report: Report) -> Alert | None:
        """Record an occurrence with all of them."""
        for heard, other in zip(self.heard, self.others, strict=True):
            if alert := other.report(action, report):
                heard.append(alert)
        return super().report(action, report)

    def due(self, now_us: int) -> list[Alert]:
        """Return what is due by a time in the records; what others have to tell is kept for `hear`."""
        for heard, other in zip(self.heard, self.others, strict=True):
            heard += other.due(now_us)
        return super().due(now_us)

    def waiting(self, now_us: int) -> bool:
        """Return whether any of them has something to tell."""
        return super().waiting(now_us) or any(other.waiting(now_us) for other in self.others)

    def hear(self, place: int) -> list[Alert]:
        """Return what the triage of the budget at this place has told since it was asked."""
        heard, self.heard[place] = self.heard[place], []
        return heard


def watch(
    events: list[Event],
    config: Config | None = None,
    bundle: Bundle | None = None,
    budgets: tuple[float, ...] = (0.05,),
) -> list[list[Reported]]:
    """Judge events as a worker with four partitions does; return every finding that the topic carried, by the
    budget."""
    config = config or Config()
    bundle = bundle if bundle is not None else Bundle.packaged()
    judges = [Judge.from_config(bundle, config) for _ in range(PARTITIONS)]
    fans = [Fanned(config, budgets) for _ in judges]
    for judge, fan in zip(judges, fans, strict=True):
        judge._findings = fan
    found: list[dict[str, Reported]] = [{} for _ in budgets]
    places: dict[tuple[str | None, str | None], int] = {}

    def hear(fan: Fanned, now_us: int) -> None:
        for place, heard in enumerate(fan.heard):
            if heard:
                _take(found[place], fan.hear(place), now_us)

    for event in events:
        now_us = event.captured_at_us
        whose = (event.principal, event.role)
        place = places.get(whose)
        if place is None:
            lane = lane_of(event.principal, event.cluster, event.role)
            place = places[whose] = partition_of(lane, PARTITIONS)
        for judge, fan in zip(judges, fans, strict=True):
            if judge.due_us <= now_us:
                judge.note(_clock(now_us))
                hear(fan, now_us)
        judges[place].judge(event)
        hear(fans[place], now_us)
    end_us = at(DAYS + 2, 0)
    for judge, fan in zip(judges, fans, strict=True):
        judge.note(_clock(end_us))
        hear(fan, end_us)
    return [[one for one in each.values() if one.reported_us is not None] for each in found]


def _clock(now_us: int) -> Event:
    return Event(
        kind="control",
        event_id=f"clock-{now_us}",
        at=Position(-2, 0, 0),
        occurred_at_us=now_us,
        captured_at_us=now_us,
        cluster="",
        operation="clock",
    )


def _take(found: dict[str, Reported], alerts: list[Alert], now_us: int) -> None:
    for alert in alerts:
        if alert.staged or alert.suppressed_by or alert.activity == "close":
            continue
        for member in alert.members or ():
            known = found.get(member["uid"])
            if known is None:
                continue
            if alert.detector == "digest":
                known.digest_us = known.digest_us or now_us
            else:
                known.crowd_us, known.crowd = known.crowd_us or now_us, alert.uid
        if alert.members and alert.detector != "digest" and alert.uid not in found:
            found[alert.uid] = Reported(
                alert.uid, "", False, alert.severity, alert.first_seen_us, alert.last_seen_us, "", frozenset(), now_us
            )
        if alert.detector == "digest" or alert.members:
            continue
        known = found.get(alert.uid)
        features = frozenset(str(reason["feature"]) for reason in alert.reasons)
        text = " ".join((alert.message, *alert.action.relations))
        if known is None:
            known = found[alert.uid] = Reported(
                alert.uid,
                alert.action.principal,
                alert.policy is not None,
                alert.severity,
                alert.first_seen_us,
                alert.last_seen_us,
                text,
                features,
            )
        known.first_us, known.last_us = min(known.first_us, alert.first_seen_us), max(known.last_us, alert.last_seen_us)
        known.reasons |= features
        known.text += f" {text}"
        known.severity = alert.severity
        if not alert.lake_only:
            known.alone_us = known.alone_us or now_us


@dataclass
class Figures:
    """What a detector found of attacks, and what it told besides, over any number of seeds."""

    found: Counter[str] = field(default_factory=Counter)
    planted: Counter[str] = field(default_factory=Counter)
    by_seed: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    chance: int = 0
    chance_of: int = 0
    false: int = 0
    loud: int = 0
    principal_days: float = 0.0
    minutes: list[float] = field(default_factory=list)
    crossed: list[float] = field(default_factory=list)

    def recall(self, kinds: Iterable[str]) -> float:
        """Return the share of the attacks of these kinds that was found."""
        names = list(kinds)
        planted = sum(self.planted[name] for name in names)
        return sum(self.found[name] for name in names) / planted if planted else 0.0

    def interval(self, kinds: Iterable[str], rounds: int = 1_000) -> tuple[float, float]:
        """Return the middle 90 % of that share when seeds and kinds are drawn anew (a bootstrap over both)."""
        names, random = list(kinds), Random("interval")
        seeds = sorted({seed for seed, _ in self.by_seed})
        shares = []
        for _ in range(rounds):
            drawn = random.choices(names, k=len(names))
            found = planted = 0
            for seed in random.choices(seeds, k=len(seeds)):
                for name in drawn:
                    one, of = self.by_seed.get((seed, name), (0, 0))
                    found, planted = found + one, planted + of
            shares.append(found / planted if planted else 0.0)
        shares.sort()
        return shares[rounds // 20], shares[-rounds // 20]

    @property
    def false_a_day(self) -> float:
        """Return the false alerts of models a principal and day."""
        return self.false / self.principal_days if self.principal_days else 0.0

    @property
    def loud_a_day_1000(self) -> float:
        """Return the false alerts of severity high or critical, those of policies too, a day and 1,000 principals."""
        return 1_000 * self.loud / self.principal_days if self.principal_days else 0.0

    @property
    def median_minutes(self) -> float | None:
        """Return the median from an attack's first event to its first alert, of those found."""
        return sorted(self.minutes)[len(self.minutes) // 2] if self.minutes else None

    @property
    def median_crossed(self) -> float | None:
        """Return the median from the event of an attack with which it could be told to when it was, in minutes."""
        return sorted(self.crossed)[len(self.crossed) // 2] if self.crossed else None

    @property
    def chance_rate(self) -> float:
        """Return the share of attacks that would count as found had they befallen others of the group instead."""
        return self.chance / self.chance_of if self.chance_of else 0.0

    def add(
        self,
        seed: int,
        told: list[Reported],
        planted: list[Intrusion],
        peers: dict[str, list[str]],
        *,
        digest: bool = False,
        reporters: frozenset[bool] = MODELS,
        any_reason: bool = False,
    ) -> None:
        """Count one seed: what models or policies told by themselves, or also by a `digest`."""
        self.principal_days += sum(len(names) for names in peers.values()) * (DAYS - WARM_DAYS)
        spoken = [one for one in told if (digest or one.soon_us is not None) and one.policy in reporters]
        by_who: dict[str, list[Reported]] = {}
        for one in spoken:
            by_who.setdefault(one.principal, []).append(one)
        right: set[str] = set()
        for each in planted:
            hits = [one for one in by_who.get(each.victim, ()) if about(each, one, any_reason)]
            right.update(one.uid for one in hits)
            right.update(one.crowd for one in hits if one.crowd)
            self.planted[each.kind.id] += 1
            self.found[each.kind.id] += bool(hits)
            one, of = self.by_seed.get((seed, each.kind.id), (0, 0))
            self.by_seed[seed, each.kind.id] = (one + bool(hits), of + 1)
            if hits and not each.kind.blind:
                first = min(hit.reported_us if digest else hit.soon_us for hit in hits)  # type: ignore[type-var]
                assert first is not None
                self.minutes.append(max(0.0, (first - each.times_us[0]) / 60e6))
                before = bisect_right(each.times_us, first)
                self.crossed.append(max(0.0, (first - each.times_us[max(0, before - 1)]) / 60e6))
            for name in next((names for names in peers.values() if each.victim in names), []):
                if name != each.victim:
                    self.chance_of += 1
                    self.chance += any(about(each, one, any_reason) for one in by_who.get(name, ()))
        for one in spoken:
            if one.uid in right or one.last_us < at(WARM_DAYS, 0) or (one.alone_us is None and one.digest_us is None):
                continue
            self.false += 1
            self.loud += one.severity in LOUD


def about(each: Intrusion, one: Reported, any_reason: bool = False) -> bool:
    """Return whether a finding is about an attack, for the right reason; whose it is has been asked.

    A policy is its own reason.
    """
    place = bisect_left(each.times_us, one.first_us)
    if place == len(each.times_us) or each.times_us[place] > one.last_us:
        return False
    if any_reason:
        return True
    if each.kind.relations and not any(relation in one.text for relation in each.kind.relations):
        return False
    return one.policy or bool({reason.removeprefix("own_") for reason in one.reasons} & each.kind.reasons)


def peers_of(events: list[Event]) -> dict[str, list[str]]:
    """Return the principals of each group that acted in the days that count."""
    groups: dict[str, set[str]] = {}
    for event in events:
        if event.principal and event.occurred_at_us >= at(WARM_DAYS, 0):
            groups.setdefault(event.peer_group or "", set()).add(event.principal)
    return {group: sorted(names) for group, names in sorted(groups.items())}
