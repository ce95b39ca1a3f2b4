"""A policy as it is written: the keys of its YAML, their defaults, and nothing of what they do.

docs/reference/policies.md describes each; `detectors.policy.policies` checks what a document says and makes it a
policy.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from pgwitness.core.events import Kind

Severity = Literal["info", "low", "medium", "high", "critical"]
Effect = Literal["alert", "warn", "limit", "deny", "mask", "approve"]
Respond = Literal["cancel", "terminate"]
DEDUP_BY = ["cluster", "principal.name", "role"]


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test beside the policy: this action, or the last of these, must match, or must not.

    Of `actions` each may say `at`, when it happens after the first (`30s`), and `repeat` it so often, `every` so long.
    `time` says when: `at` counts from it, also in the actions behind it.
    """

    name: str
    match: bool
    action: dict[str, Any] | None = None
    actions: list[dict[str, Any]] = []


class Threshold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many matching actions within a time: their number, with `distinct` of different values, with `sum` of a field.

    Sigma's `event_count`, `value_count` and `value_sum`. Counted apart for each value of the fields in `by`.
    """

    count: int
    window: str
    by: list[str] = msgspec.field(default_factory=lambda: list(DEDUP_BY))
    distinct: str | None = None
    sum: str | None = None


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One part of a sequence: a condition that must hold of so many actions, or with `absent` of none."""

    name: str
    when: str
    count: int = 1
    absent: bool = False


class Sequence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several conditions that hold one after the other (`temporal_ordered`), or in any order, within a time."""

    steps: list[Step]
    window: str
    by: list[str] = msgspec.field(default_factory=lambda: list(DEDUP_BY))
    type: Literal["temporal_ordered", "temporal"] = "temporal_ordered"


class Approve(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who has to approve, with `effect: approve`: `needed` members of the groups `by` (`[approvers.NAME]`).

    `owner` stands for the label `owner` of the cluster. A request waits `within`; what was approved is run within
    `use_within` of that, or not at all. With `count` the gateway counts beforehand which rows the statement chooses, in
    a read-only transaction; `sample` of them approvers see as they are before, masked.
    """

    by: list[str]
    needed: int = 1
    within: str = "15m"
    use_within: str = "10m"
    count: bool = False
    sample: int = 0


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy as it is written. `effect` and `respond` are for the gateway and the responder.

    Judging is the same, but for `limit`: in evidence it matches what changed more rows than `max_rows`.
    """

    id: str
    title: str
    description: str
    severity: Severity
    kinds: list[Kind]
    message: str
    runbook: str
    tests: list[Case]
    when: str | None = None
    parameters: dict[str, Any] = {}
    threshold: Threshold | None = None
    sequence: Sequence | None = None
    attack: list[str] = []
    dedup_by: list[str] | None = None
    window: str = "1h"
    together: Literal["session"] | None = None
    """What one session does within ten minutes is one finding, on whatever relations; else as `dedup_by` says."""
    zone: str = "UTC"
    """Whose clock `local` is, in `when` and `sequence`."""
    mode: Literal["staged", "active"] = "active"
    severity_of: dict[str, Severity] = {}
    """Another severity for actions of these operations, or of these outcomes, which come first."""
    effect: Effect = "alert"
    max_rows: int | None = None
    """With `effect: limit` or `approve`: how many rows a statement may change, and one that only reads may answer."""
    max_bytes: str | None = None
    """Likewise: how much it may answer (`10MB`)."""
    max_duration: str | None = None
    """Likewise: how long it may run (`30s`)."""
    max_rate: str | None = None
    """Likewise: how many of them a principal may run in a time (`60/1m`)."""
    approve: Approve | None = None
    """With `effect: approve`: by whom; without it a gateway holds nothing up."""
    hint: str | None = None
    """What the gateway tells whom it refuses: what would be allowed, or whom to ask."""
    respond: Respond | None = None


def severities() -> tuple[Severity, ...]:
    """Return the severities from the least to the most."""
    return cast(tuple[Severity, ...], Severity.__args__)  # type: ignore[attr-defined]
