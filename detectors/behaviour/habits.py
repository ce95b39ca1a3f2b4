"""What is known of one principal (or peer group): which values it used, and how many rows it moves.

A few KiB each, bounded, plain JSON. `Known` learns values and keeps what is new apart until it has been new for a
while, so that an intruder does not become ordinary by coming twice. `Volume` is the exponentially weighted mean
of log1p(rows) and of its square, to the last bit as river's `EWMean` computes it, in a third of the memory: there are
dozens for each principal. log1p with a fixed limit, because one extreme value would ruin any scale for ever.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Any

from msgspec import Struct

VALUES_MAX = 64
"""Distinct values kept of one kind; beyond, the rarest are evicted."""
TOUCHES_MAX = 2_000
"""Operations on relations that are kept: a thousand relations, each read and written."""
NEVER_US = 1 << 62
PENDING_MAX = 16
"""New values that wait to be adopted."""
OPERATIONS_MAX = 12
WITNESSES_MIN = 3
"""Members who must have done something before their group knows it."""
WITNESSED_MAX = 32
FOLLOW_N_MIN = 3
VALUE_CHARS_MAX = 160
ROWS_MAX = 1e9
FADING = 0.05
DEVIATION_MIN = 0.5
"""The least standard deviation, in log units: rows within a factor of 1.6 are the same volume."""


class Known:
    """The values of one kind that were seen, each with its count."""

    __slots__ = ("counts", "distinct", "pending", "total", "values_max")

    def __init__(self, values_max: int = VALUES_MAX) -> None:
        self.values_max = values_max
        self.counts: dict[str, int] = {}
        self.pending: dict[str, int] = {}
        self.total = 0
        self.distinct = 0

    def learn(self, value: str) -> bool:
        """Count a value; when there are too many, the rarest quarter goes, by name among equals. Says if it was new."""
        self.total += 1
        if value in self.counts:
            self.counts[value] += 1
            return False
        if len(self.counts) >= self.values_max:
            for rare in sorted(self.counts, key=lambda known: (self.counts[known], known))[: self.values_max // 4]:
                del self.counts[rare]
        self.counts[value] = 1
        self.distinct += 1
        return True

    def hold(self, value: str, now_us: int, adopt_after_us: int) -> bool:
        """Keep a new value apart; true when it has been there for so long that it was adopted."""
        since = self.pending.get(value)
        if since is None:
            if len(self.pending) >= PENDING_MAX:
                del self.pending[next(iter(self.pending))]
            self.pending[value] = now_us
            return False
        if now_us - since < adopt_after_us:
            return False
        del self.pending[value]
        self.learn(value)
        return True

    def surprise(self) -> float:
        """Return how unexpected any new value is, 0 to 1: one minus Witten and Bell's chance of a novelty, T / (n + T).

        Who always came from one address surprises with a second; who comes from many does not (I. H. Witten and
        T. C. Bell, The zero-frequency problem, 1991).
        """
        return self.total / (self.total + self.distinct) if self.total else 0.0

    def rarity(self, value: str) -> float:
        """Return how rare a known value is: 0 from one in a hundred on, 1 at one in ten thousand."""
        share = self.counts.get(value, 0) / self.total if self.total else 1.0
        return min(1.0, max(0.0, (-math.log10(share) - 2.0) / 2.0)) if share > 0 else 1.0

    def neighbours(self, address: str) -> int:
        """Count the known addresses in the network of this one: the same /24, or /64 of IPv6."""
        network = network_of(address)
        return sum(1 for known in self.counts if network_of(known) == network) if network else 0

    def is_near(self, address: str, least: int) -> bool:
        """Return whether an address is where the principal is known to move, of addresses.

        So many known addresses are in its network or, in at least two of its networks, in the /16 (or /48) around it:
        pods are put wherever there is room.
        """
        if self.neighbours(address) >= least:
            return True
        around = prefix_of(address)
        if not around:
            return False
        there = [network_of(known) for known in self.counts if prefix_of(known) == around]
        return len(there) >= least and len(set(there)) > 1

    def has_network_of(self, address: str) -> bool:
        """Return whether an address is where the members of a group are known to move, of networks: theirs or
        between."""
        network = network_of(address)
        if not network:
            return False
        around = _around(network)
        return network in self.counts or sum(1 for known in self.counts if _around(known) == around) > 1

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [self.total, self.distinct, self.counts, self.pending]

    @classmethod
    def of(cls, state: list[Any], values_max: int = VALUES_MAX) -> Known:
        """Make it from `state()`."""
        known = cls(values_max)
        known.total, known.distinct, known.counts, known.pending = state
        return known


class Volume:
    """How many rows an operation usually moves."""

    __slots__ = ("fading", "mean", "n", "square")

    def __init__(self, fading: float = FADING) -> None:
        self.n = 0
        self.fading = fading
        self.mean = 0.0
        self.square = 0.0

    def deviation(self, size: float, least: float = DEVIATION_MIN) -> float:
        """Return how many standard deviations, each at least `least`, a size (log1p of rows) lies above the mean."""
        mean = self.mean
        return (size - mean) / max(least, math.sqrt(max(0.0, self.square - mean * mean)))

    def follow(self, size: float, least: float) -> None:
        """Take a size in, but rise by no more than one deviation: who climbs a little each day lags behind."""
        if self.n >= FOLLOW_N_MIN and (off := self.deviation(size, least)) > 1.0:
            size = self.mean + (size - self.mean) / off
        self.learn(size)

    def learn(self, size: float) -> None:
        """Take a size in."""
        self.n += 1
        if self.n == 1:
            self.mean, self.square = size, size * size
            return
        fading, rest = self.fading, 1.0 - self.fading
        self.mean = fading * size + rest * self.mean
        self.square = fading * (size * size) + rest * self.square

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [self.n, self.mean, self.square]

    @classmethod
    def of(cls, state: list[Any], fading: float = FADING) -> Volume:
        """Make it from `state()`."""
        volume = cls(fading)
        volume.n, volume.mean, volume.square = state
        return volume


class Unusual(Struct, frozen=True):
    """What the habits say of one action that was judged and found other than ordinary.

    `foreign` is how surprising its relation is when neither the principal nor its peers ever touched it so, else 0;
    `unprecedented` says that this is true of its relation or its statement, of somebody who seldom does anything new.
    """

    score: float
    reasons: list[dict[str, Any]]
    new_client_addr: bool = False
    new_application: bool = False
    new_relation: bool = False
    new_statement: bool = False
    foreign: float = 0.0
    unprecedented: bool = False


class Observation(Struct, frozen=True, gc=False):
    """What habits are asked of one action; None for what it does not have. `sensitive`: it reads what is said to be."""

    now_us: int
    operation: str
    relation: str | None
    rows: int | None
    client_addr: str | None
    application: str | None
    statement: str | None
    columns: str | None
    sensitive: bool = False

    def value(self, name: str) -> str | None:
        """Return what the habit of this name knows it by."""
        if name == "relation":
            return None if self.relation is None else f"{self.operation} {self.relation}"
        value: str | None = getattr(self, name)
        return value

    def without(
        self, relation: bool = False, client_addr: bool = False, application: bool = False, statement: bool = False
    ) -> Observation:
        """Leave some of it out."""
        return Observation(
            self.now_us,
            self.operation,
            None if relation else self.relation,
            self.rows,
            None if client_addr else self.client_addr,
            None if application else self.application,
            None if statement else self.statement,
            None if statement else self.columns,
            self.sensitive,
        )


class Habits:
    """Everything known of one principal's single actions. `grown`: it may hold more than when it was last weighed."""

    __slots__ = (
        "addresses",
        "applications",
        "columns",
        "first_us",
        "grown",
        "n",
        "statements",
        "touches",
        "volumes",
        "witnesses",
    )

    def __init__(self, first_us: int) -> None:
        self.n = 0
        self.first_us = first_us
        self.grown = True
        self.addresses = Known()
        self.applications = Known()
        self.touches = Known(TOUCHES_MAX)
        self.statements = Known()
        self.columns = Known()
        self.volumes: dict[str, Volume] = {}
        self.witnesses: dict[str, list[str]] = {}

    def witness(self, name: str, value: str, member: str) -> None:
        """Hear of something new that a member of this group did; it is known when enough of them have."""
        self.grown = True
        members = self.witnesses.setdefault(f"{name} {value}", [])
        if member not in members:
            members.append(member)
        if len(members) >= WITNESSES_MIN:
            self.known(name).learn(value)
            del self.witnesses[f"{name} {value}"]
        while len(self.witnesses) > WITNESSED_MAX:
            del self.witnesses[next(iter(self.witnesses))]

    def known(self, name: str) -> Known:
        """Return what is known of one kind of value, by the name it has in `Observation`."""
        known: Known = getattr(self, _PLACES[name])
        return known

    @property
    def weight(self) -> int:
        """How many values are held, known, pending and witnessed."""
        one, two, three, four, five = self.addresses, self.applications, self.touches, self.statements, self.columns
        known = len(one.counts) + len(two.counts) + len(three.counts) + len(four.counts) + len(five.counts)
        known += len(one.pending) + len(two.pending) + len(three.pending) + len(four.pending) + len(five.pending)
        return known + WITNESSES_MIN * len(self.witnesses)

    def learn(self, observation: Observation) -> None:
        """Take an observation in."""
        new = False
        if observation.client_addr is not None:
            new |= self.addresses.learn(short(observation.client_addr))
        if observation.application is not None:
            new |= self.applications.learn(short(observation.application))
        if (touch := observation.value("relation")) is not None:
            new |= self.touches.learn(short(touch))
        if observation.statement is not None:
            new |= self.statements.learn(short(observation.statement))
        if observation.columns is not None:
            new |= self.columns.learn(short(observation.columns))
        self.grown |= new
        if observation.rows is not None and (volume := self.volume(short(observation.operation))) is not None:
            volume.learn(size_of(observation.rows))

    def volume(self, operation: str) -> Volume | None:
        """Return the volume of one operation; None when there are too many already."""
        volume = self.volumes.get(operation)
        if volume is None and len(self.volumes) < OPERATIONS_MAX:
            volume = self.volumes[operation] = Volume()
        return volume

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        known = [getattr(self, place).state() for place in _PLACES.values()]
        return [self.n, self.first_us, *known, {key: v.state() for key, v in self.volumes.items()}, self.witnesses]

    @classmethod
    def of(cls, state: list[Any]) -> Habits:
        """Make it from `state()`."""
        n, first_us, *known, volumes, witnesses = state
        habits = cls(first_us)
        habits.n = n
        for place, part in zip(_PLACES.values(), known, strict=True):
            setattr(habits, place, Known.of(part, getattr(habits, place).values_max))
        habits.witnesses = witnesses
        habits.volumes = {key: Volume.of(part) for key, part in volumes.items()}
        return habits


_PLACES = {
    "client_addr": "addresses",
    "application": "applications",
    "relation": "touches",
    "statement": "statements",
    "columns": "columns",
}


def network_of(address: str) -> str:
    """Return the /24 of an IPv4 address or the /64 of an IPv6 address as text; empty when it is neither."""
    if address.count(".") == 3 and ":" not in address and len(address) <= 15:
        return address.rpartition(".")[0]
    if ":" in address and len(address) <= 45:
        try:
            return ipaddress.IPv6Address(address).exploded[:19]
        except ValueError:
            return ""
    return ""


def prefix_of(address: str) -> str:
    """Return what is around a network as text: the /16 of an IPv4 address or the /48 of an IPv6 address; else empty."""
    return _around(network_of(address))


def _around(network: str) -> str:
    return network[:14] if ":" in network else network.rpartition(".")[0]


def size_of(rows: int) -> float:
    """Return the size of so many rows: log1p, between 0 and a fixed limit."""
    return math.log1p(min(max(rows, 0), ROWS_MAX))


def short(text: str) -> str:
    """Bound a value; what is longer keeps its beginning and its length, which distinguishes nearly all."""
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…{len(text)}"
