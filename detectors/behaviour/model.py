"""The behaviour model: how unusual an action is for the one who did it.

Per principal, first-seen and rarity of address, application, (operation, relation), statement and set of columns, and
the volume of rows; what it does in windows of time is `detectors.behaviour.rhythm`'s.
A principal that is not known well enough is learned from and judged by its peer group's habits, if it has a group
with some; without one it is not judged at all. What scores high is not learned. Each part gives a surprise between
0 and 1; they are joined as independent reasons to doubt, 1 - (1-a)(1-b)…, so the score is 0 to 1 and
every part of it can be named in words. Deterministic, bounded, total on any input; state is JSON.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from detectors.behaviour.habits import Habits, Observation, Unusual, network_of, short, size_of
from detectors.behaviour.habits_cache import HabitsCache
from detectors.behaviour.rhythm import Rhythm
from detectors.behaviour.scoring import DEVIATIONS, LEARNING, ORDINARY, RARE_N_MIN, VOLUME_N_MIN, VOLUME_ROWS_MIN, score
from pgwitness.core.config import Behaviour as Settings

MODEL = "habits-4"
"""Name and version of model and state."""
OLDER = ("habits-2", "habits-3")
"""Versions of which habits and routines are read; what is ordinary in a group is relearned, which takes days."""

GATE = 0.5
"""From this score on nothing is learned."""
GROUP_FACTOR = 5
"""How many times more a peer group must have been seen than a principal before it is borrowed from."""
GROUP_SAMPLE = 15
"""A known principal teaches its group every sixteenth action (a mask of bits)."""


_CACHES = {"young": "_warming_up", "known": "_known", "groups": "_groups"}
"""Where a checkpoint's habits go, by the name they have in it."""


class Behaviour:
    """All habits of the principals of one stream; `observe` judges, then learns."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._warmup_us = int(self.settings.warmup * 1_000_000)
        self._adopt_us = int(self.settings.adopt_after * 1_000_000)
        self._n_min = self.settings.warmup_observations
        self._known_max = max(1, self.settings.principals_max)
        self._warming_up_max = max(1, self._known_max // 4)
        # Two caches, so that a flood of unknown principals cannot evict those that are known.
        self._warming_up = HabitsCache(self._warming_up_max)
        self._known = HabitsCache(self._known_max)
        self._groups = HabitsCache(self._warming_up_max)
        self._first_us: int | None = None
        self.rhythm = Rhythm(self.settings, lambda key: key in self._known)

    def __len__(self) -> int:
        """Return the number of principals and groups in memory."""
        return len(self._warming_up) + len(self._known) + len(self._groups)

    def observe(  # noqa: C901 - the straight way of every action; calls would cost more than the work
        self,
        key: str,
        group: str | None,
        now_us: int,
        operation: str,
        relation: str | None,
        rows: int | None,
        client_addr: str | None,
        application: str | None,
        statement: str | None = None,
        columns: str | None = None,
        sensitive: bool = False,
    ) -> Unusual:
        """Judge one action of the principal `key` at `now_us`, then learn from it; None for what it does not have.

        `statement` is its fingerprint, `columns` the set of columns it names as one text. `LEARNING` and `ORDINARY` are
        returned themselves, so that a caller can compare by identity.
        """
        if self._first_us is None:
            self._first_us = now_us
        habits = self._known.get(key)
        if habits is None:
            observation = Observation(
                now_us, operation, relation, rows, client_addr, application, statement, columns, sensitive
            )
            return self._observe_new(key, group, observation)
        self._known.move_to_end(key)
        habits.n += 1
        # The ordinary case, straight: everything is known and nothing is rare. What is not is looked at with care,
        # together with what comes after it.
        if client_addr is not None:
            known = habits.addresses
            if client_addr not in known.counts:
                observation = Observation(
                    now_us, operation, relation, rows, client_addr, application, statement, columns, sensitive
                )
                return self._look(key, habits, group, observation)
            known.counts[client_addr] += 1
            known.total += 1
        if application is not None:
            known = habits.applications
            if application not in known.counts:
                observation = Observation(
                    now_us, operation, relation, rows, None, application, statement, columns, sensitive
                )
                return self._look(key, habits, group, observation)
            known.counts[application] += 1
            known.total += 1
        if relation is not None:
            touch = operation + " " + relation
            known = habits.touches
            count = known.counts.get(touch)
            if count is None or (count * 100 < known.total and known.total > RARE_N_MIN):
                observation = Observation(now_us, operation, relation, rows, None, None, statement, columns, sensitive)
                return self._look(key, habits, group, observation)
            known.counts[touch] = count + 1
            known.total += 1
        if rows is not None:
            volume = habits.volumes.get(operation)
            size = size_of(rows)
            if volume is None or (
                rows >= VOLUME_ROWS_MIN and volume.n >= VOLUME_N_MIN and volume.deviation(size) > DEVIATIONS[0]
            ):
                return self._look(
                    key,
                    habits,
                    group,
                    Observation(now_us, operation, None, rows, None, None, statement, columns, sensitive),
                )
            volume.learn(size)
        if statement is not None or columns is not None:
            if (statement is not None and statement not in habits.statements.counts) or (
                columns is not None and columns not in habits.columns.counts
            ):
                observation = Observation(now_us, operation, None, None, None, None, statement, columns, sensitive)
                return self._look(key, habits, group, observation)
            if statement is not None:
                habits.statements.learn(statement)
            if columns is not None:
                habits.columns.learn(columns)
        if group is not None and not habits.n & GROUP_SAMPLE:
            self._teach(
                group, Observation(now_us, operation, relation, rows, None, None, statement, columns, sensitive)
            )
        return ORDINARY

    def _observe_new(self, key: str, group: str | None, observation: Observation) -> Unusual:
        """Learn from who is not known yet, unless its peer group finds the action strange."""
        habits = self._warming_up.get(key)
        if habits is None:
            habits = Habits(observation.now_us)
            self._warming_up.enter(key, habits)
        else:
            self._warming_up.move_to_end(key)
        habits.n += 1
        result = LEARNING
        peers = self._groups.get(group) if group is not None else None
        if peers is not None and self._seasoned(peers, observation.now_us, GROUP_FACTOR):
            # An address of one's own is no wonder in a group; what the group never does is.
            result = self._score(key, peers, observation.without(client_addr=True, application=True), borrowed=group)
        if result.score < GATE:
            habits.learn(observation)
            if peers is not None and result.new_relation:
                self._witness(peers, key, result, observation)
            elif group is not None:
                self._teach(group, observation)
        if self._seasoned(habits, observation.now_us, 1):
            self._known.enter(key, self._warming_up.leave(key))
        else:
            self._warming_up.learned(key, habits)
        return result

    def _seasoned(self, habits: Habits, now_us: int, factor: int) -> bool:
        assert self._first_us is not None
        return (
            habits.n >= self._n_min * factor
            and now_us - habits.first_us >= self._warmup_us
            and now_us - self._first_us >= self._warmup_us
        )

    def _look(self, key: str, habits: Habits, group: str | None, observation: Observation) -> Unusual:
        """Judge with care what the straight way could not pass; learn it only when it is not too strange."""
        peers = self._groups.get(group) if group is not None else None
        result = self._score(
            key, habits, observation, peers=peers, off_hours=self.rhythm.unfamiliar(key, observation.now_us)
        )
        if result.score < GATE:
            habits.learn(
                observation.without(
                    relation=result.new_relation,
                    client_addr=result.new_client_addr,
                    application=result.new_application,
                    statement=result.new_statement,
                )
            )
        self._known.weigh(key, habits)
        if peers is not None:
            self._witness(peers, key, result, observation)
        return result

    def _witness(self, peers: Habits, key: str, unusual: Unusual, observation: Observation) -> None:
        """Let a group know what is new when enough of its members have done it; one of them alone teaches nothing.

        Of addresses it knows the networks: members move within them.
        """
        for name, is_new in (
            ("relation", unusual.new_relation),
            ("statement", unusual.new_statement),
            ("application", unusual.new_application),
            ("client_addr", unusual.new_client_addr),
        ):
            value = observation.value(name)
            if name == "client_addr":
                value = network_of(value or "")
            if is_new and value:
                peers.witness(name, short(value), key)

    def _score(self, key: str, habits: Habits, observation: Observation, **further: Any) -> Unusual:
        """Score an observation of a principal; what it moved on its usual days is never unusually much."""
        return score(
            habits, observation, adopt_us=self._adopt_us, has_done=partial(self.rhythm.has_done, key), **further
        )

    def _teach(self, group: str, observation: Observation) -> None:
        """Let a group take part in what a member did that was not strange; addresses are each member's own."""
        habits = self._groups.get(group)
        if habits is None:
            habits = Habits(observation.now_us)
            self._groups.enter(group, habits)
        habits.n += 1
        habits.learn(observation.without(client_addr=True, application=True))
        self._groups.learned(group, habits)

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
        for cache in (self._known, self._warming_up):
            if (habits := cache.get(key)) is not None:
                habits.learn(Observation(0, operation, relation, rows, client_addr, application, None, None))
                cache.weigh(key, habits)
                return

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as JSON values; order is part of it, because the oldest is forgotten first."""
        return {
            "model": MODEL,
            "first_us": self._first_us,
            "young": [[key, habits.state()] for key, habits in self._warming_up.items()],
            "known": [[key, habits.state()] for key, habits in self._known.items()],
            "groups": [[key, habits.state()] for key, habits in self._groups.items()],
            "rhythm": self.rhythm.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a snapshot's state; one of a model that is not known is ignored, and everybody is relearned."""
        if state.get("model") not in (*OLDER, MODEL):
            return
        self._first_us = state["first_us"]
        for name in _CACHES:
            cache = HabitsCache(self._known_max if name == "known" else self._warming_up_max)
            setattr(self, _CACHES[name], cache)
            for key, part in state[name]:
                cache.enter(key, Habits.of(part))
        if state["model"] == MODEL:
            self.rhythm.restore(state["rhythm"])
        else:
            self.rhythm.adopt(state["rhythm"]["routines"])
