"""What policies and behaviour found of an action, for the detectors that are asked after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class Found(Struct, frozen=True):
    """`policies` are the ids that matched, `anomaly` is 0 to 1 or None while the principal is still learned.

    `bundle_sha256` names the policies in force.
    """

    bundle_sha256: str
    policies: Sequence[str] = ()
    anomaly: float | None = None
    reasons: Sequence[dict[str, Any]] = ()
