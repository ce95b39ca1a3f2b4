"""Which rules of `identities.yaml` can never win; pure, and only what is certain is said.

A rule never wins when everything it matches is matched by rules before it. That is shown condition by condition: its
lists are taken apart into single patterns, and each combination of them must lie within one earlier rule. A pattern
lies within another by their text alone, so that a rule may be out of reach and not be found, but none is found that
could win. A fact that nobody knows changes nothing: whatever the earlier rule asks for, the later one asks for, too.
"""

from __future__ import annotations

import itertools
import math
from fnmatch import fnmatchcase
from functools import cache
from ipaddress import ip_network

from msgspec import Struct

from streams.identity.identities import Identities, Network, Rule

COMBINATIONS_MAX = 1_000
"""Of a rule with more combinations of single patterns nothing is said."""
PATTERN_LENGTH_MAX = 200
"""Nor of longer patterns."""

Condition = tuple[str, str]
"""A fact, or a fact and the path within it, and one pattern."""


class Unreachable(Struct, frozen=True):
    """A rule that never wins, and the rules before it that win instead; none of those when its own list is empty."""

    rule: str
    shadowed_by: tuple[str, ...]

    @property
    def why(self) -> str:
        """Return it in words."""
        if not self.shadowed_by:
            return "it can never match: one of its lists is empty"
        return f"it can never win: what it matches is matched before it by {', '.join(self.shadowed_by)}"

    @property
    def fix(self) -> str:
        """Return what to do about it."""
        if not self.shadowed_by:
            return f"give the empty list of rule {self.rule} its patterns, or remove the rule"
        return f"move rule {self.rule} before {self.shadowed_by[0]}, or remove it"


def unreachable(identities: Identities) -> list[Unreachable]:
    """List the rules that can never win, in their order."""
    found: list[Unreachable] = []
    for number, rule in enumerate(identities.rules):
        conditions = _conditions(rule)
        if not all(conditions.values()):
            found.append(Unreachable(rule.id, ()))
        elif (shadowed_by := _shadowed_by(rule, conditions, identities.rules[:number])) is not None:
            found.append(Unreachable(rule.id, shadowed_by))
    return found


def _conditions(rule: Rule) -> dict[str, tuple[str, ...]]:
    """Return the patterns that a rule asks of each fact; one of them must match."""
    asked: dict[str, tuple[str, ...]] = dict(rule.patterns)
    asked |= {f"certificate.{name}": patterns for name, patterns in rule.certificate}
    asked |= {f"claim {path}": patterns for path, patterns in rule.claims.items()}
    asked |= {f"comment {tag}": patterns for tag, patterns in rule.comment.items()}
    if rule.addresses is not None:
        asked["client_addr"] = rule.addresses
    return asked


def _shadowed_by(
    rule: Rule, conditions: dict[str, tuple[str, ...]], earlier: tuple[Rule, ...]
) -> tuple[str, ...] | None:
    """Name the earlier rules that leave nothing of a rule; None when something may be left."""
    if math.prod(len(patterns) for patterns in conditions.values()) > COMBINATIONS_MAX:
        return None
    shadowed_by: dict[str, None] = {}
    asked = [(other, _conditions(other)) for other in earlier]
    for combination in itertools.product(*conditions.values()):
        single = dict(zip(conditions, combination, strict=True))
        first = next((other.id for other, their in asked if _covers(other, their, rule, single)), None)
        if first is None:
            return None
        shadowed_by[first] = None
    return tuple(shadowed_by)


def _covers(earlier: Rule, conditions: dict[str, tuple[str, ...]], rule: Rule, single: dict[str, str]) -> bool:
    """Return whether an earlier rule matches wherever a single combination of a later one's patterns does."""
    same = earlier.entry.principal == rule.entry.principal
    return all(_asks_less(fact, patterns, single.get(fact), same) for fact, patterns in conditions.items())


def _asks_less(fact: str, patterns: tuple[str, ...], pattern: str | None, same_name: bool) -> bool:
    """Return whether the earlier rule's patterns of a fact leave nothing of the later one's, None where it has none."""
    if pattern is not None:
        return any(_within(fact, pattern, other) for other in patterns)
    if fact == "cluster":
        return "*" in patterns
    # Where the fact is not known the earlier rule is undecided: then nobody is named, unless both name the same.
    return fact in ("database", "role", "application") and "*" in patterns and not same_name


def _within(fact: str, inner: str, outer: str) -> bool:
    """Return whether every value that `inner` matches is matched by `outer`."""
    if inner == outer:
        return True
    if fact != "client_addr":
        return globs_within(inner, outer)
    if "local" in (inner, outer):
        return False
    one, other = _network(inner), _network(outer)
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]  # of the same version


def _network(text: str) -> Network:
    return ip_network(text, strict=False)


def globs_within(inner: str, outer: str) -> bool:
    """Return whether `outer` surely matches all that `inner` does; False when their texts do not show it."""
    if max(len(inner), len(outer)) > PATTERN_LENGTH_MAX:
        return False
    small, great = _tokens(inner), _tokens(outer)

    @cache
    def within(i: int, o: int) -> bool:
        if o == len(great):
            return i == len(small)
        if great[o] == "*":
            return within(i, o + 1) or (i < len(small) and within(i + 1, o))
        return i < len(small) and _letter_within(small[i], great[o]) and within(i + 1, o + 1)

    return within(0, 0)


def _letter_within(inner: str, outer: str) -> bool:
    """Compare two tokens, of which `outer` is no star."""
    if inner == outer:
        return True
    if inner == "*":
        return False
    if outer == "?":
        return True
    return len(inner) == 1 and inner != "?" and fnmatchcase(inner, outer)


def _tokens(pattern: str) -> list[str]:
    """Take a glob apart as `fnmatch` reads it: `*`, `?`, `[…]` and letters; an unclosed `[` is `[[]`."""
    tokens: list[str] = []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        end = place + 1
        if letter == "[":
            # A `]` that comes first, or first after `!`, belongs to the set.
            close = place + 1 + (pattern[place + 1 : place + 2] == "!")
            close = pattern.find("]", close + 1 if pattern[close : close + 1] == "]" else close)
            if close > 0:
                end = close + 1
        piece = pattern[place:end]
        tokens.append("[[]" if piece == "[" else piece)
        place = end
    return tokens
