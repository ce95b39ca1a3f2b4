"""What is suppressed, and until when: `suppressions.yaml`, maintenance windows, and reviewers' verdicts.

The file, all times UTC:

    suppressions:
      - id: nightly-import
        match: {policy: mass_change, principal: importer, relation: "public.stage_*"}
        reason: the import replaces the staging tables every night
        owner: payments
        expires: 2027-01-31
    windows:
      - id: release-night
        match: {cluster: shop, policy: [mass_change, drop_table]}
        weekly: sat 22:00-02:00           # or from: and to:
        reason: schema changes are released on Saturday night
        owner: platform
        expires: 2027-01-31               # of a window with from and to, `to` is the end

`match` names at least one of policy, principal, role, relation, cluster and database, each a glob or a list of globs;
all that are named must match, and of a relation every relation of the action, so that another table is not hidden
behind one that is listed. What is suppressed is still judged, counted and landed. Pure: text in, rules out.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime, time
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from pgwitness.core import yamltext
from pgwitness.core.errors import ConfigurationError

RULES_MAX = 1_000
MATCHES = ("policy", "principal", "role", "relation", "cluster", "database", "finding")
DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_WEEKLY = re.compile(r"([a-z]{3}(?:\s*,\s*[a-z]{3})*|daily)\s+(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)")

Effect = Literal["quiet", "promote"]


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to suppress, or (`promote`) a principal whose habits alone are an alert.

    `match` holds globs by what they are compared with. It holds from `from_us` to before `until_us`, of a weekly window
    only in its `spans` (microseconds of the week, from Monday 00:00 UTC). `id` is what alerts carry.
    """

    id: str
    match: dict[str, list[str]]
    from_us: int
    until_us: int
    reason: str
    owner: str
    effect: Effect = "quiet"
    spans: list[tuple[int, int]] = []

    def holds(self, at_us: int) -> bool:
        """Return whether the rule is in force at a time."""
        if not self.from_us <= at_us < self.until_us:
            return False
        # The epoch was a Thursday.
        week_us = (at_us + 3 * DAY_US) % (7 * DAY_US)
        return not self.spans or any(start <= week_us < end for start, end in self.spans)


class _Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    match: dict[str, str | list[str]]
    reason: str
    owner: str
    expires: Any = None
    from_: Any = msgspec.field(name="from", default=None)
    to: Any = None
    weekly: str | None = None


class _Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    suppressions: list[_Entry] = []
    windows: list[_Entry] = []


class Suppressions:
    """The rules of one file; `sha256` names its content."""

    def __init__(self, content: str, rules: list[Rule]) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()
        self.rules = rules

    @classmethod
    def parse(cls, text: str, origin: str = "suppressions.yaml") -> Suppressions:
        """Read the file's text. Raise `ConfigurationError` naming the file and the entry."""
        try:
            tree = yamltext.load(text)
            document = msgspec.convert(tree if tree is not None else {}, _Document)
        except (yaml.YAMLError, RecursionError, ValueError) as error:  # msgspec's errors are ValueErrors
            raise ConfigurationError(f"{origin}: {error}") from error
        entries = [("suppressions", entry) for entry in document.suppressions]
        entries += [("windows", entry) for entry in document.windows]
        if len(entries) > RULES_MAX:
            raise ConfigurationError(f"{origin}: {len(entries)} entries; {RULES_MAX} at most, join some of them")
        rules: dict[str, Rule] = {}
        for kind, entry in entries:
            place = f"{origin}: {kind}: {entry.id}"
            rule = _rule(kind, entry, place)
            if rule.id in rules:
                raise ConfigurationError(f"{place}: the id is used twice; ids are unique")
            rules[rule.id] = rule
        return cls(text, list(rules.values()))

    def expired(self, now_us: int) -> list[Rule]:
        """List the rules that will never hold again."""
        return [rule for rule in self.rules if rule.until_us <= now_us]


def _rule(kind: str, entry: _Entry, place: str) -> Rule:
    if not _ID.fullmatch(entry.id):
        raise ConfigurationError(f"{place}: id: lower case, digits, `_`, `.` and `-`, 1 to 64 characters")
    for name in ("reason", "owner"):
        if not getattr(entry, name).strip():
            raise ConfigurationError(f"{place}: {name}: say it; who reads the evidence later must know")
    match = _match(entry, place)
    spans, from_us, until_us = _times(kind, entry, place)
    return Rule(
        id=f"{'suppression' if kind == 'suppressions' else 'window'}:{entry.id}",
        match=match,
        from_us=from_us,
        until_us=until_us,
        reason=entry.reason,
        owner=entry.owner,
        spans=spans,
    )


def _match(entry: _Entry, place: str) -> dict[str, list[str]]:
    known = ", ".join(MATCHES[:-1])
    if not entry.match or not set(entry.match) <= set(MATCHES[:-1]):
        raise ConfigurationError(f"{place}: match: name at least one of {known}, and nothing else")
    match = {name: [given] if isinstance(given, str) else given for name, given in entry.match.items()}
    if not all(match.values()):
        raise ConfigurationError(f"{place}: match: an empty list matches nothing; leave it out or fill it")
    if all(not pattern.strip("*") for patterns in match.values() for pattern in patterns):
        raise ConfigurationError(f"{place}: match: this would keep everything quiet; say more exactly what is meant")
    return match


def _times(kind: str, entry: _Entry, place: str) -> tuple[list[tuple[int, int]], int, int]:
    spans: list[tuple[int, int]] = []
    from_us = _time_us(entry.from_, f"{place}: from") if entry.from_ is not None else 0
    if kind == "suppressions":
        if entry.weekly is not None or entry.to is not None:
            raise ConfigurationError(f"{place}: weekly and to belong under `windows`; a suppression has `expires`")
    elif entry.weekly is not None:
        spans = weekly(entry.weekly, place)
    elif entry.from_ is None or entry.to is None:
        raise ConfigurationError(f"{place}: a window has `weekly`, or `from` and `to`")
    end = entry.to if entry.to is not None else entry.expires
    if end is None:
        raise ConfigurationError(f"{place}: expires: a date is required, after which somebody looks at it again")
    until_us = _time_us(end, f"{place}: {'to' if entry.to is not None else 'expires'}")
    if until_us <= from_us:
        raise ConfigurationError(f"{place}: it ends before it begins")
    return spans, from_us, until_us


def weekly(text: str, place: str) -> list[tuple[int, int]]:
    """Read `sat,sun 22:00-02:00` or `daily 01:00-03:00` into spans of the week, in microseconds from Monday 00:00."""
    match = _WEEKLY.fullmatch(text.strip().lower())
    days = [] if match is None else list(_DAYS) if match[1] == "daily" else re.split(r"\s*,\s*", match[1])
    clock = [] if match is None else [int(match[place]) for place in range(2, 6)]
    if match is None or not set(days) <= set(_DAYS) or max(clock[0], clock[2]) > 24 or max(clock[1], clock[3]) > 59:
        raise ConfigurationError(f"{place}: weekly: days and times such as `sat,sun 22:00-02:00`, got {text!r}")
    begin, end = clock[0] * 60 + clock[1], clock[2] * 60 + clock[3]
    end += 1_440 if end <= begin else 0
    spans = []
    for day in days:
        start = _DAYS.index(day) * 1_440
        spans.append((start + begin, min(start + end, 7 * 1_440)))
        if start + end > 7 * 1_440:
            spans.append((0, start + end - 7 * 1_440))
    return [(first * MINUTE_US, last * MINUTE_US) for first, last in spans]


def _time_us(value: object, place: str) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{place}: a date or time such as 2027-01-31 or 2027-01-31T22:00:00Z")
    at = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000
