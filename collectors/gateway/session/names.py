"""What the names of a session stand for: its prepared statements, its portals; bounded. Pure."""

from __future__ import annotations

from typing import Final

from collectors.gateway.session.actions import NOT_KNOWN, Decision
from collectors.gateway.wire.violation import ProtocolViolation

NAMES_MAX: Final = 20_000
BYTES_MAX: Final = 32 * 1024 * 1024


class Names:
    """Statements by name. None is forgotten to make room: what nobody knows any more could be run unseen."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.known: dict[bytes, Decision] = {}
        """By name; for who reads it often. The dict stays the same one."""
        self._bytes = 0

    def get(self, name: bytes) -> Decision:
        """Return what a name stands for; `NOT_KNOWN` where it was given by SQL, or to nothing."""
        return self.known.get(name, NOT_KNOWN)

    def put(self, name: bytes, decision: Decision) -> None:
        """Take up what a name stands for. Raise `ProtocolViolation` where there are too many."""
        self.forget(name)
        self.known[name] = decision
        self._bytes += _size(name, decision)
        if len(self.known) > NAMES_MAX or self._bytes > BYTES_MAX:
            raise ProtocolViolation(
                f"more than {NAMES_MAX} {self._what} in one session, or {BYTES_MAX >> 20} MiB of them", "54000"
            )

    def forget(self, name: bytes) -> None:
        """Take up that a name stands for nothing any more."""
        decision = self.known.pop(name, None)
        if decision is not None:
            self._bytes -= _size(name, decision)

    def clear(self) -> None:
        """Forget all."""
        self.known.clear()
        self._bytes = 0


def _size(name: bytes, decision: Decision) -> int:
    return 300 + len(name) + 2 * len(decision.said.statement or "")
