"""The plan of a threshold or sequence: what a policy asks of several actions, checked and ready to be computed."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from detectors.policy.document import Document, Sequence
from detectors.vocabulary import SCHEMA
from pgwitness.core.units import Duration

COUNT_MAX = 1_000
"""The highest threshold of actions or values, and of a step."""
STEPS_MAX = 8
WINDOW_US_MAX = 31 * 86_400_000_000
SUM_MAX = 2**62


class Plan(Struct, frozen=True):
    """What a policy asks of several actions, ready to be computed."""

    policy: str
    type: str
    window_us: int
    by: tuple[str, ...]
    counts: tuple[int, ...]
    field: str | None
    fingerprint: str
    absent: tuple[bool, ...] = ()
    """Which steps must not have happened; empty where all must."""

    @property
    def before(self) -> bool:
        """Whether it asks that something was not there before: it must have been looked at for so long."""
        return bool(self.absent) and self.absent[0]

    @property
    def after(self) -> bool:
        """Whether it asks that something does not come."""
        return bool(self.absent) and self.absent[-1]

    @classmethod
    def of(cls, document: Document) -> Plan | None:
        """Make the plan of a policy, None for one that looks at single actions. Raise `ValueError`."""
        threshold, sequence = document.threshold, document.sequence
        if threshold is not None and sequence is not None:
            raise ValueError("threshold and sequence: one of them")
        if threshold is not None:
            kind = "event_count"
            if threshold.distinct is not None and threshold.sum is not None:
                raise ValueError("threshold: distinct or sum, not both")
            named = threshold.distinct or threshold.sum
            if named is not None:
                kind = "value_count" if threshold.distinct is not None else "value_sum"
                if named not in SCHEMA:
                    raise ValueError(
                        f"threshold.{'distinct' if kind == 'value_count' else 'sum'}: {named!r} is no field"
                    )
                if kind == "value_sum" and SCHEMA[named].type != "int":
                    raise ValueError(f"threshold.sum: {named} is {SCHEMA[named].type}, not int")
            highest = SUM_MAX if kind == "value_sum" else COUNT_MAX
            one = (threshold.count,)
            return cls._made(document, "threshold", kind, threshold.window, threshold.by, one, highest, named)
        if sequence is None:
            return None
        if not 2 <= len(sequence.steps) <= STEPS_MAX:
            raise ValueError(f"sequence.steps: 2 to {STEPS_MAX}")
        if len({step.name for step in sequence.steps}) < len(sequence.steps):
            raise ValueError("sequence.steps: each with a name of its own")
        counts = tuple(step.count for step in sequence.steps)
        made = cls._made(document, "sequence", sequence.type, sequence.window, sequence.by, counts, COUNT_MAX, None)
        return made if not any(step.absent for step in sequence.steps) else replace(made, absent=_absent(sequence))

    @classmethod
    def _made(
        cls,
        document: Document,
        where: str,
        kind: str,
        window: str,
        by: list[str],
        counts: tuple[int, ...],
        highest: int,
        field: str | None,
    ) -> Plan:
        try:
            window_us = int(Duration.parse(window) * 1_000_000)
        except ValueError as error:
            raise ValueError(f"{where}.window: {error}") from None
        if not 0 < window_us <= WINDOW_US_MAX:
            raise ValueError(f"{where}.window: must be greater than zero and at most 31 days")
        for path in by:
            if path not in SCHEMA:
                raise ValueError(f"{where}.by: {path!r} is no field of actions")
        if not {"principal.name", "role"} & set(by):
            raise ValueError(
                f"{where}.by: principal.name or role must be among them: principals are judged apart from each other, "
                "on several workers, and nothing counts over all of them"
            )
        least = 1 if where == "sequence" else 2
        if any(not least <= count <= highest for count in counts):
            raise ValueError(f"{where}: count is {least} to {highest}")
        meaning: list[Any] = [
            document.when,
            document.parameters,
            _asked(document),
        ]
        if document.zone != "UTC":
            meaning.append(document.zone)
        text = json.dumps([document.kinds, meaning], sort_keys=True, default=str)
        return cls(
            policy=document.id,
            type=kind,
            window_us=window_us,
            by=tuple(SCHEMA[path].attribute for path in by),
            counts=counts,
            field=SCHEMA[field].attribute if field else None,
            fingerprint=hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16],
        )


def _asked(document: Document) -> Any:
    """Return what is asked of several actions; a step that is not absent is written as it was before there were
    such."""
    asked = msgspec.to_builtins(document.threshold or document.sequence)
    for step in asked.get("steps", ()):
        if not step["absent"]:
            del step["absent"]
    return asked


def _absent(sequence: Sequence) -> tuple[bool, ...]:
    """Check the steps that must be absent. Raise `ValueError`."""
    absent = tuple(step.absent for step in sequence.steps)
    if all(absent):
        raise ValueError("sequence.steps: one that happens is needed beside those that are absent")
    if sequence.type != "temporal_ordered":
        raise ValueError("sequence.steps: absent says where in an order; with type temporal there is none")
    if any(step.absent and step.count != 1 for step in sequence.steps):
        raise ValueError("sequence.steps: of what is absent there is no count")
    if any(one and other for one, other in pairwise(absent)):
        raise ValueError("sequence.steps: two absent ones in a row; join their conditions by ||")
    return absent
