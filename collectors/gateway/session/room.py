"""Where what a client has sent waits in its order, behind a statement that waits itself or is measured; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collectors.gateway.wire.frames import Message, Piece

ROOM_BYTES_MAX: Final = 256 * 1024
"""How much of what comes behind a statement is taken before its client is read from no more."""


class Room:
    """What waits."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.size = 0
        """Bytes."""

    def __len__(self) -> int:
        """Return how many pieces wait."""
        return len(self._pieces)

    def put(self, pieces: Sequence[Piece]) -> None:
        """Keep pieces, behind those that wait."""
        self._pieces += pieces
        self.size += sum(len(piece.frame if isinstance(piece, Message) else piece) for piece in pieces)

    def leave(self) -> list[Piece]:
        """Give all, in their order."""
        pieces, self._pieces, self.size = self._pieces, [], 0
        return pieces
