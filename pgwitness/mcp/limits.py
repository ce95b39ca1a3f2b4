"""What an agent is told of the policies that decide at the gateway, before it asks for anything."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import TypedDict

from detectors.gatekeeper import decides
from detectors.policy.policies import Bundle


class Limit(TypedDict):
    """A policy that refuses, limits, warns or asks somebody: for whom and when says its own text."""

    policy: str
    effect: str
    title: str
    description: str
    hint: str
    max_rows: int | None
    max_bytes: str | None
    max_duration: str | None
    max_rate: str | None


def limits(path: Path) -> list[Limit]:
    """List the policies of a folder that decide. Raise `ConfigurationError`."""
    found = []
    for policy in Bundle.load(path).policies.values():
        document = policy.document
        if decides(policy):
            found.append(
                Limit(
                    policy=document.id,
                    effect=document.effect,
                    title=document.title,
                    description=document.description,
                    hint=document.hint or "",
                    max_rows=document.max_rows,
                    max_bytes=document.max_bytes,
                    max_duration=document.max_duration,
                    max_rate=document.max_rate,
                )
            )
    return found
