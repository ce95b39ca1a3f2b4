"""The short lane: what nearly every read is, taken in one call of what is compiled (`collectors.gateway.wire.native`).

A session that rests enters it, when its judge says where decisions hold. From then on a read of the client that is one
plain statement, by a Query or by [Parse] Bind [Describe] Execute Sync, and the read of its whole answer go through it:
the same records, in the same order, as the session would write down. Whatever is otherwise it leaves untouched; the
session takes it then, after it took back what is under way. Which of the two had a statement nobody can tell by the
evidence (`tests/gateway/test_short.py`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from collectors.gateway.session.actions import Decision
from collectors.gateway.session.names import Names
from collectors.gateway.wire.native import Lane, Ledger, native

ENTRIES_MAX: Final = 4_096
"""Decisions on prepared statements of which it is remembered what the spool says of them."""
Left = tuple[int, int, bytes, Decision, bytes | None, bytes | None, int, int]
"""What was under way: with a Parse, with a Describe, the read, its decision, portal, statement, number, beginning."""

_encode = msgspec.json.Encoder().encode


class Ground(NamedTuple):
    """Where decisions hold: by whom, in which of their epochs and scopes, until when, and those that are known."""

    judging: object
    epoch: int
    scope: object
    until_us: int
    shapes: dict[bytes, tuple[Decision, bytes]]
    """By the text without literals, each with what the spool says of it; see `said`."""
    many: bool
    """There were other scopes before: names may stand for what was decided there."""


class _Entries:
    """What the spool says of plain statements, by the identity of the decision, which is held meanwhile."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Decision, bytes | None]] = {}

    def put(self, decision: Decision) -> None:
        """Take up a decision; with None where it is not for the short lane."""
        if len(self.known) >= ENTRIES_MAX:
            self.known.clear()
        self.known[id(decision)] = (decision, said(decision) if decision.plain else None)


_entries = _Entries()


def said(decision: Decision) -> bytes:
    """Return what the spool says of a statement."""
    return _encode(decision.said)


def lane(ledger: Ledger | None, session: object, number: int, prepared: Names, portals: Names) -> Lane | None:
    """Return the short lane of a session; None where nothing is compiled. It keeps what the session counts."""
    compiled = native()
    if compiled is None or ledger is None:
        return None
    return compiled.lane(ledger, session, number, prepared, portals, _entries.put, _entries.known)


def suffix(application: str | None, intent: str | None) -> bytes:
    """Return what a record says behind its statement."""
    more = {"application": application, "intent": intent}
    return b"".join(b',"%s":%s' % (name.encode(), _encode(value)) for name, value in more.items() if value is not None)
