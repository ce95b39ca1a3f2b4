"""A statement that waits for approval: what exactly is asked for, and what waits behind it.

What is approved is the text as it came, the types and values of its parameters, all bytes of them. A portal whose Bind
is longer than what is kept of one, and what is run by the name of SQL, cannot be asked for: what a name stands for may
be something else when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from collectors.gateway.session.actions import Asked, Decision
from collectors.gateway.wire.frames import HEADER, Message

BY_NAME = "what waits for approval has to be sent as it is, with parameters of at most 4 KiB, and not by a name"


@dataclass(slots=True)
class Held:
    """A message whose statement waits."""

    message: Message
    read: bytes
    """What goes to the server for it, as it is read there."""
    asked: Asked


def of_text(body: bytes) -> bytes:
    """Return what is exact of a Parse: its text and the types of its parameters."""
    return body[body.index(b"\0") + 1 :]


def of_values(message: Message) -> bytes:
    """Return what is exact of a Bind: formats and values; nothing where it was too long to be kept."""
    if int.from_bytes(message.frame[1:HEADER], "big") + 1 != len(message.frame):
        return b""
    body = message.body
    behind_portal = body.index(b"\0") + 1
    return body[body.index(b"\0", behind_portal) + 1 :]


def with_values(decision: Decision, message: Message) -> Decision:
    """Add the values that a portal binds to what is asked for."""
    if not decision.waits:
        return decision
    values = of_values(message) if decision.exact else b""
    return decision._replace(exact=decision.exact + values if values else b"")


def bound(decision: Decision, made: Decision, thought: Decision) -> Decision:
    """Return the decision on a portal that the server has made, with the values that were `thought` to be bound."""
    if not decision.waits:
        return decision
    exact = thought.exact if made.exact and thought.exact.startswith(made.exact) else b""
    return decision._replace(exact=exact)


def unused(decision: Decision) -> Decision:
    """Return what a name keeps of a decision: an approval is for one run, and a name would last longer."""
    if decision.verdict is None or not decision.verdict.approval:
        return decision
    return decision._replace(verdict=replace(decision.verdict, approval=""), exact=b"")


def refused(decision: Decision, why: str | None = None) -> Decision:
    """Return the refusal of a statement that would have to be approved and cannot be."""
    assert decision.verdict is not None
    said = decision.verdict.message if why is None else f"refused: {why} ({decision.verdict.message})"
    return decision._replace(verdict=replace(decision.verdict, effect="deny", message=said))
