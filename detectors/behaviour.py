"""The behaviour model: how unusual an action is for the one who did it.

Per principal, first-seen and rarity of address, application and (operation, relation), and the volume of rows.
A principal that is not known well enough is learned from and judged by its peer group's habits, if it has a group
with some; without one it is not judged at all. What scores high is not learned. Each part gives a surprise between
0 and 1; they are joined as independent reasons to doubt, 1 - (1-a)(1-b)…, so the score is 0 to 1 and
every part of it can be named in words. Deterministic, bounded, total on any input; state is JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from msgspec import Struct

from detectors.habits import Habits, Known, short, size_of
from pgwitness.config import Behaviour as Settings

MODEL = "habits-1"
"""Name and version of model and state; a state of another version is not read."""

WEIGHTS = {"client_addr": 0.6, "application": 0.4, "relation": 0.5, "volume": 0.95}
"""The most each part can add: how sure a person would be by this alone."""
GATE = 0.5
"""From this score on nothing is learned."""
VOLUME_N_MIN = 10
VOLUME_ROWS_MIN = 50
"""Fewer rows are never unusually many."""
DEVIATIONS = (4.0, 10.0)
"""Standard deviations above the mean where the volume's surprise starts, and where it is complete."""
RARE_N_MIN = 200
GROUP_FACTOR = 5
"""How many times more a peer group must have been seen than a principal before it is borrowed from."""
GROUP_SAMPLE = 15
"""A known principal tells its group every sixteenth action (a mask of bits)."""


class Unusual(Struct, frozen=True):
    """What the model says of one action that was judged and found other than ordinary."""

    score: float
    reasons: list[dict[str, Any]]
    new_client_addr: bool = False
    new_application: bool = False
    new_relation: bool = False


LEARNING = Unusual(-1.0, [])
"""The principal is not known well enough: no score."""
ORDINARY = Unusual(0.0, [])


class Behaviour:
    """All habits of the principals of one stream; `observe` judges, then learns."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._warmup_us = int(self.settings.warmup * 1_000_000)
        self._adopt_us = int(self.settings.adopt_after * 1_000_000)
        self._n_min = self.settings.warmup_observations
        self._known_max = max(1, self.settings.principals_max)
        self._young_max = max(1, self._known_max // 4)
        # Two rooms, so that a flood of names nobody knows cannot push out those that are known.
        self._young: OrderedDict[str, Habits] = OrderedDict()
        self._known: OrderedDict[str, Habits] = OrderedDict()
        self._groups: OrderedDict[str, Habits] = OrderedDict()
        self._first_us: int | None = None

    def __len__(self) -> int:
        """Give the number of principals and groups in memory."""
        return len(self._young) + len(self._known) + len(self._groups)

    def observe(
        self,
        key: str,
        group: str | None,
        now_us: int,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
    ) -> Unusual:
        """Judge one action of the principal `key` at `now_us`, then learn from it; None for what it does not have.

        `LEARNING` and `ORDINARY` are returned themselves, so that a caller can compare by identity.
        """
        if self._first_us is None:
            self._first_us = now_us
        habits = self._known.get(key)
        if habits is None:
            return self._young_one(key, group, now_us, operation, relation, rows, client_addr, application)
        self._known.move_to_end(key)
        habits.n += 1
        # The ordinary case, straight: everything is known and nothing is rare.
        if client_addr is not None:
            known = habits.addresses
            if client_addr in known.counts:
                known.counts[client_addr] += 1
                known.total += 1
            else:
                return self._look(habits, group, now_us, operation, relation, rows, client_addr, application)
            client_addr = None
        if application is not None:
            known = habits.applications
            if application not in known.counts:
                return self._look(habits, group, now_us, operation, relation, rows, None, application)
            known.counts[application] += 1
            known.total += 1
        if relation is not None:
            touch = operation + " " + relation
            known = habits.touches
            count = known.counts.get(touch)
            if count is None or (count * 100 < known.total and known.total > RARE_N_MIN):
                return self._look(habits, group, now_us, operation, relation, rows, None, None)
            known.counts[touch] = count + 1
            known.total += 1
        if rows is not None:
            volume = habits.volumes.get(operation)
            size = size_of(rows)
            if volume is None or (
                rows >= VOLUME_ROWS_MIN and volume.n >= VOLUME_N_MIN and volume.deviation(size) > DEVIATIONS[0]
            ):
                return self._look(habits, group, now_us, operation, None, rows, None, None)
            volume.learn(size)
        if group is not None and not habits.n & GROUP_SAMPLE:
            self._tell(group, now_us, operation, relation, rows)
        return ORDINARY

    def _young_one(
        self,
        key: str,
        group: str | None,
        now_us: int,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
    ) -> Unusual:
        """Learn from who is not known yet, unless its peer group finds the action strange."""
        habits = self._young.get(key)
        if habits is None:
            habits = self._young[key] = Habits(now_us)
            if len(self._young) > self._young_max:
                self._young.popitem(last=False)
        else:
            self._young.move_to_end(key)
        habits.n += 1
        result = LEARNING
        peers = self._groups.get(group) if group is not None else None
        if peers is not None and self._seasoned(peers, now_us, GROUP_FACTOR):
            # An address of one's own is no wonder in a group; what the group never does is.
            result = self._score(peers, now_us, operation, relation, rows, None, None, borrowed=group, hold=False)
        if result.score < GATE:
            self._learn(habits, operation, relation, rows, client_addr, application)
            if group is not None:
                self._tell(group, now_us, operation, relation, rows)
        if self._seasoned(habits, now_us, 1):
            self._known[key] = self._young.pop(key)
            if len(self._known) > self._known_max:
                self._known.popitem(last=False)
        return result

    def _seasoned(self, habits: Habits, now_us: int, factor: int) -> bool:
        assert self._first_us is not None
        return (
            habits.n >= self._n_min * factor
            and now_us - habits.first_us >= self._warmup_us
            and now_us - self._first_us >= self._warmup_us
        )

    def _look(
        self,
        habits: Habits,
        group: str | None,
        now_us: int,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
    ) -> Unusual:
        """Judge with care what the straight way could not pass; learn it only when it is not too strange."""
        result = self._score(habits, now_us, operation, relation, rows, client_addr, application)
        if result.score < GATE:
            self._learn(
                habits,
                operation,
                None if result.new_relation else relation,
                rows,
                None if result.new_client_addr else client_addr,
                None if result.new_application else application,
            )
        return result

    def _score(
        self,
        habits: Habits,
        now_us: int,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
        borrowed: str | None = None,
        hold: bool = True,
    ) -> Unusual:
        whose = f"members of {borrowed}" if borrowed else "this principal"
        reasons: list[dict[str, Any]] = []
        new: dict[str, bool] = {}
        asked: tuple[tuple[str, Known, str | None, str], ...] = (
            ("client_addr", habits.addresses, client_addr, "address"),
            ("application", habits.applications, application, "application"),
            ("relation", habits.touches, None if relation is None else f"{operation} {relation}", "action"),
        )
        for name, known, value, word in asked:
            if value is None:
                continue
            value = short(value)
            if value in known.counts:
                if known.total > RARE_N_MIN and (rare := known.rarity(value)) > 0:
                    seen = f"{known.counts[value]:,} of {known.total:,} times"
                    words = f"{whose} rarely did so: {word} {value or 'local socket'} {seen}"
                    reasons.append(_reason(name, WEIGHTS[name] * rare * 0.5, words))
                continue
            if known.total == 0 or (hold and known.hold(value, now_us, self._adopt_us)):
                continue
            new[name] = True
            words = f"{word} {value or 'local socket'} was never seen of {whose} in {known.total:,} actions"
            reasons.append(_reason(name, WEIGHTS[name] * known.surprise(), words))
        if rows is not None and rows >= VOLUME_ROWS_MIN:
            # Of an operation it hardly uses, a principal's usual volume is that of what it does most.
            volume = habits.volumes.get(operation)
            if volume is None or volume.n < VOLUME_N_MIN:
                volume = max(habits.volumes.values(), key=lambda other: other.n, default=None)
            if volume is not None and volume.n >= VOLUME_N_MIN:
                low, high = DEVIATIONS
                above = min(1.0, max(0.0, (volume.deviation(size_of(rows)) - low) / (high - low)))
                if above > 0:
                    words = f"{rows:,} rows by {operation} are far more than {whose} usually moves"
                    reasons.append(_reason("volume", WEIGHTS["volume"] * above, words))
        if not reasons:
            return ORDINARY
        doubt = 1.0
        for reason in reasons:
            doubt *= 1.0 - reason["score"]
        reasons.sort(key=lambda reason: (-reason["score"], reason["feature"]))
        return Unusual(
            round(1.0 - doubt, 4),
            reasons,
            new_client_addr="client_addr" in new,
            new_application="application" in new,
            new_relation="relation" in new,
        )

    def _learn(
        self,
        habits: Habits,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
    ) -> None:
        if client_addr is not None:
            habits.addresses.learn(short(client_addr))
        if application is not None:
            habits.applications.learn(short(application))
        if relation is not None:
            habits.touches.learn(short(f"{operation} {relation}"))
        if rows is not None and (volume := habits.volume(short(operation))) is not None:
            volume.learn(size_of(rows))

    def _tell(self, group: str, now_us: int, operation: str, relation: str | None, rows: int | None) -> None:
        """Let a group take part in what a member did that was not strange; addresses are each member's own."""
        habits = self._groups.get(group)
        if habits is None:
            habits = self._groups[group] = Habits(now_us)
            if len(self._groups) > self._young_max:
                self._groups.popitem(last=False)
        habits.n += 1
        self._learn(habits, operation, relation, rows, None, None)

    def learn(
        self,
        key: str,
        *,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
    ) -> None:
        """Take in an action that a reviewer calls ordinary; of whom nothing is known here, nothing is learned."""
        habits = self._known.get(key) or self._young.get(key)
        if habits is not None:
            self._learn(habits, operation, relation, rows, client_addr, application)

    def snapshot(self) -> dict[str, Any]:
        """Give the whole state as JSON values; order is part of it, because the oldest is forgotten first."""
        return {
            "model": MODEL,
            "first_us": self._first_us,
            "young": [[key, habits.state()] for key, habits in self._young.items()],
            "known": [[key, habits.state()] for key, habits in self._known.items()],
            "groups": [[key, habits.state()] for key, habits in self._groups.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a snapshot's state; one of another model is ignored, and everybody is learned anew."""
        if state.get("model") != MODEL:
            return
        self._first_us = state["first_us"]
        for name in ("young", "known", "groups"):
            setattr(self, f"_{name}", OrderedDict((key, Habits.of(part)) for key, part in state[name]))


def _reason(feature: str, score: float, words: str) -> dict[str, Any]:
    return {"feature": feature, "score": round(score, 4), "words": words}
