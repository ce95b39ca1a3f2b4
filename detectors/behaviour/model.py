"""The behaviour model: how unusual an action is for the one who did it.

Per principal, first-seen and rarity of address, application, (operation, relation), statement and set of columns, and
the volume of rows; what it does in windows of time is `detectors.behaviour.rhythm`'s.
A principal that is not known well enough is learned from and judged by its peer group's habits, if it has a group
with some; without one it is not judged at all. What scores high is not learned. Each part gives a surprise between
0 and 1; they are joined as independent reasons to doubt, 1 - (1-a)(1-b)…, so the score is 0 to 1 and
every part of it can be named in words. Deterministic, bounded, total on any input; state is JSON.
"""

from __future__ import annotations

from typing import Any

from detectors.behaviour.habits import NEVER_US, Deed, Habits, Known, Unusual, network_of, short, size_of
from detectors.behaviour.rhythm import Rhythm
from detectors.behaviour.rooms import Room
from pgwitness.core.config import Behaviour as Settings

MODEL = "habits-4"
"""Name and version of model and state."""
OLDER = ("habits-2", "habits-3")
"""Versions of which habits and routines are read; what is ordinary in a group is learned anew, which takes days."""

WEIGHTS = {
    "client_addr": 0.6,
    "application": 0.4,
    "relation": 0.5,
    "statement": 0.3,
    "columns": 0.2,
    "off_hours": 0.4,
    "volume": 0.95,
}
"""The most each part can add: how sure a person would be by this alone."""
GATE = 0.5
"""From this score on nothing is learned."""
VOLUME_N_MIN = 10
VOLUME_ROWS_MIN = 50
"""Fewer rows are never unusually many."""
DEVIATIONS = (4.0, 10.0)
"""Standard deviations above the mean where the volume's surprise starts, and where it is complete."""
RARE_N_MIN = 200
NETWORK_KNOWN_MIN = 3
"""Known addresses of one /24 (or /64), or of two in one /16 (or /48), from which on a further one there is no new
place: pods move."""
PEERS_KNOW = 0.4
"""What is left of the surprise when the principal's peers do the same."""
SURPRISE_MIN = 0.8
"""Whose every fifth query is a new one makes them up as its work: that another is new says nothing of it."""
GROUP_FACTOR = 5
"""How many times more a peer group must have been seen than a principal before it is borrowed from."""
GROUP_SAMPLE = 15
"""A known principal tells its group every sixteenth action (a mask of bits)."""


ASKED = (
    ("client_addr", "address"),
    ("application", "application"),
    ("relation", "action"),
    ("statement", "statement"),
    ("columns", "set of columns"),
)
"""What is asked of a deed, in this order, and its word."""


WITH_DATA = ("relation", "statement", "columns")
"""What of a deed says which data it touched."""

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
        self._young = Room(self._young_max)
        self._known = Room(self._known_max)
        self._groups = Room(self._young_max)
        self._first_us: int | None = None
        self.rhythm = Rhythm(self.settings, lambda key: key in self._known)

    def __len__(self) -> int:
        """Give the number of principals and groups in memory."""
        return len(self._young) + len(self._known) + len(self._groups)

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
            deed = Deed(now_us, operation, relation, rows, client_addr, application, statement, columns, sensitive)
            return self._young_one(key, group, deed)
        self._known.move_to_end(key)
        habits.n += 1
        # The ordinary case, straight: everything is known and nothing is rare. What is not is looked at with care,
        # together with what comes after it.
        if client_addr is not None:
            known = habits.addresses
            if client_addr not in known.counts:
                deed = Deed(now_us, operation, relation, rows, client_addr, application, statement, columns, sensitive)
                return self._look(key, habits, group, deed)
            known.counts[client_addr] += 1
            known.total += 1
        if application is not None:
            known = habits.applications
            if application not in known.counts:
                deed = Deed(now_us, operation, relation, rows, None, application, statement, columns, sensitive)
                return self._look(key, habits, group, deed)
            known.counts[application] += 1
            known.total += 1
        if relation is not None:
            touch = operation + " " + relation
            known = habits.touches
            count = known.counts.get(touch)
            if count is None or (count * 100 < known.total and known.total > RARE_N_MIN):
                deed = Deed(now_us, operation, relation, rows, None, None, statement, columns, sensitive)
                return self._look(key, habits, group, deed)
            known.counts[touch] = count + 1
            known.total += 1
        if rows is not None:
            volume = habits.volumes.get(operation)
            size = size_of(rows)
            if volume is None or (
                rows >= VOLUME_ROWS_MIN and volume.n >= VOLUME_N_MIN and volume.deviation(size) > DEVIATIONS[0]
            ):
                return self._look(
                    key, habits, group, Deed(now_us, operation, None, rows, None, None, statement, columns, sensitive)
                )
            volume.learn(size)
        if statement is not None or columns is not None:
            if (statement is not None and statement not in habits.statements.counts) or (
                columns is not None and columns not in habits.columns.counts
            ):
                deed = Deed(now_us, operation, None, None, None, None, statement, columns, sensitive)
                return self._look(key, habits, group, deed)
            if statement is not None:
                habits.statements.learn(statement)
            if columns is not None:
                habits.columns.learn(columns)
        if group is not None and not habits.n & GROUP_SAMPLE:
            self._tell(group, Deed(now_us, operation, relation, rows, None, None, statement, columns, sensitive))
        return ORDINARY

    def _young_one(self, key: str, group: str | None, deed: Deed) -> Unusual:
        """Learn from who is not known yet, unless its peer group finds the action strange."""
        habits = self._young.get(key)
        if habits is None:
            habits = Habits(deed.now_us)
            self._young.enter(key, habits)
        else:
            self._young.move_to_end(key)
        habits.n += 1
        result = LEARNING
        peers = self._groups.get(group) if group is not None else None
        if peers is not None and self._seasoned(peers, deed.now_us, GROUP_FACTOR):
            # An address of one's own is no wonder in a group; what the group never does is.
            result = self._score(key, peers, deed.without(client_addr=True, application=True), borrowed=group)
        if result.score < GATE:
            habits.learn(deed)
            if peers is not None and result.new_relation:
                self._witness(peers, key, result, deed)
            elif group is not None:
                self._tell(group, deed)
        if self._seasoned(habits, deed.now_us, 1):
            self._known.enter(key, self._young.leave(key))
        else:
            self._young.learned(key, habits)
        return result

    def _seasoned(self, habits: Habits, now_us: int, factor: int) -> bool:
        assert self._first_us is not None
        return (
            habits.n >= self._n_min * factor
            and now_us - habits.first_us >= self._warmup_us
            and now_us - self._first_us >= self._warmup_us
        )

    def _look(self, key: str, habits: Habits, group: str | None, deed: Deed) -> Unusual:
        """Judge with care what the straight way could not pass; learn it only when it is not too strange."""
        peers = self._groups.get(group) if group is not None else None
        result = self._score(key, habits, deed, peers=peers, off_hours=self.rhythm.unfamiliar(key, deed.now_us))
        if result.score < GATE:
            habits.learn(
                deed.without(
                    relation=result.new_relation,
                    client_addr=result.new_client_addr,
                    application=result.new_application,
                    statement=result.new_statement,
                )
            )
        self._known.weigh(key, habits)
        if peers is not None:
            self._witness(peers, key, result, deed)
        return result

    def _witness(self, peers: Habits, key: str, unusual: Unusual, deed: Deed) -> None:
        """Let a group know what is new when enough of its members have done it; one of them alone teaches nothing.

        Of addresses it knows the networks: members move within them.
        """
        for name, is_new in (
            ("relation", unusual.new_relation),
            ("statement", unusual.new_statement),
            ("application", unusual.new_application),
            ("client_addr", unusual.new_client_addr),
        ):
            value = deed.value(name)
            if name == "client_addr":
                value = network_of(value or "")
            if is_new and value:
                peers.witness(name, short(value), key)

    def _score(
        self,
        key: str,
        habits: Habits,
        deed: Deed,
        borrowed: str | None = None,
        peers: Habits | None = None,
        off_hours: float = 0.0,
    ) -> Unusual:
        """Score a deed by somebody's habits, or by those `borrowed` from a group of that name.

        Of one's own habits something new is held apart until it was there for long, and counts less when `peers` do it.
        """
        whose = f"members of {borrowed}" if borrowed else "this principal"
        reasons: list[dict[str, Any]] = []
        new: set[str] = set()
        foreign = 0.0
        unprecedented = False
        for name, word in ASKED:
            value = deed.value(name)
            if value is None or (name in ("statement", "columns") and "relation" in new):
                # In a relation that is new every statement is.
                continue
            value = short(value)
            known = habits.known(name)
            if value in known.counts:
                reasons += _rare(name, word, value, known, whose)
                continue
            if known.total == 0 or self._is_adopted(known, name, value, deed, peers, borrowed):
                continue
            new.add(name)
            words = f"{word} {value or 'local socket'} was never seen of {whose} in {known.total:,} actions"
            weight = WEIGHTS[name] * known.surprise()
            if peers is not None and value in peers.known(name).counts:
                weight *= PEERS_KNOW
                words += ", though of its peers"
            elif name == "relation":
                foreign = known.surprise()
                unprecedented = foreign >= SURPRISE_MIN
            elif name == "statement":
                unprecedented = known.surprise() >= SURPRISE_MIN
            reasons.append(_reason(name, weight, words))
        reasons += self._volume(key, habits, deed, whose)
        if not reasons:
            return ORDINARY
        if off_hours > 0:
            words = f"{whose} is not active at this hour of the week"
            reasons.append(_reason("off_hours", WEIGHTS["off_hours"] * off_hours, words))
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
            new_statement="statement" in new,
            foreign=foreign,
            unprecedented=unprecedented,
        )

    def _is_adopted(
        self, known: Known, name: str, value: str, deed: Deed, peers: Habits | None, borrowed: str | None
    ) -> bool:
        """Say whether a value that is not known is none that is new: where it moves, or there for long enough."""
        if _moved(name, value, known, peers):
            known.learn(value)
            return True
        # What is sensitive does not become ordinary by time alone: a reviewer says so, or its peers do it, too.
        adopt_us = NEVER_US if deed.sensitive and name in WITH_DATA else self._adopt_us
        return borrowed is None and known.hold(value, deed.now_us, adopt_us)

    def _volume(self, key: str, habits: Habits, deed: Deed, whose: str) -> list[dict[str, Any]]:
        """Give the reason that lies in far more rows than usual, unless days like that are the principal's routine."""
        operation, rows = deed.operation, deed.rows
        if rows is None or rows < VOLUME_ROWS_MIN or self.rhythm.has_done(key, operation, rows):
            return []
        # Of an operation it hardly uses, a principal's usual volume is that of what it does most.
        volume = habits.volumes.get(operation)
        if volume is None or volume.n < VOLUME_N_MIN:
            volume = max(habits.volumes.values(), key=lambda other: other.n, default=None)
        if volume is None or volume.n < VOLUME_N_MIN:
            return []
        low, high = DEVIATIONS
        above = min(1.0, max(0.0, (volume.deviation(size_of(rows)) - low) / (high - low)))
        words = f"{rows:,} rows by {operation} are far more than {whose} usually moves"
        return [_reason("volume", WEIGHTS["volume"] * above, words)] if above > 0 else []

    def _tell(self, group: str, deed: Deed) -> None:
        """Let a group take part in what a member did that was not strange; addresses are each member's own."""
        habits = self._groups.get(group)
        if habits is None:
            habits = Habits(deed.now_us)
            self._groups.enter(group, habits)
        habits.n += 1
        habits.learn(deed.without(client_addr=True, application=True))
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
        for room in (self._known, self._young):
            if (habits := room.get(key)) is not None:
                habits.learn(Deed(0, operation, relation, rows, client_addr, application, None, None))
                room.weigh(key, habits)
                return

    def snapshot(self) -> dict[str, Any]:
        """Give the whole state as JSON values; order is part of it, because the oldest is forgotten first."""
        return {
            "model": MODEL,
            "first_us": self._first_us,
            "young": [[key, habits.state()] for key, habits in self._young.items()],
            "known": [[key, habits.state()] for key, habits in self._known.items()],
            "groups": [[key, habits.state()] for key, habits in self._groups.items()],
            "rhythm": self.rhythm.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a snapshot's state; one of a model that is not known is ignored, and everybody is learned anew."""
        if state.get("model") not in (*OLDER, MODEL):
            return
        self._first_us = state["first_us"]
        for name in ("young", "known", "groups"):
            room = Room(self._known_max if name == "known" else self._young_max)
            setattr(self, f"_{name}", room)
            for key, part in state[name]:
                room.enter(key, Habits.of(part))
        if state["model"] == MODEL:
            self.rhythm.restore(state["rhythm"])
        else:
            self.rhythm.adopt(state["rhythm"]["routines"])


def _rare(name: str, word: str, value: str, known: Known, whose: str) -> list[dict[str, Any]]:
    """Give the reason that lies in a value which is known, but hardly ever used."""
    if known.total <= RARE_N_MIN or (rare := known.rarity(value)) <= 0:
        return []
    seen = f"{known.counts[value]:,} of {known.total:,} times"
    words = f"{whose} rarely did so: {word} {value or 'local socket'} {seen}"
    return [_reason(name, WEIGHTS[name] * rare * 0.5, words)]


def _moved(name: str, value: str, known: Known, peers: Habits | None) -> bool:
    """Say whether a new address or application is where the principal moves, or where several of its peers have."""
    if name == "application":
        return peers is not None and value in peers.applications.counts
    if name != "client_addr":
        return False
    # With a slash it is a network that identities.yaml lists.
    near = "/" in value or known.is_near(value, NETWORK_KNOWN_MIN)
    return near or (peers is not None and peers.addresses.has_network_of(value))


def _reason(feature: str, score: float, words: str) -> dict[str, Any]:
    return {"feature": feature, "score": round(score, 4), "words": words}
