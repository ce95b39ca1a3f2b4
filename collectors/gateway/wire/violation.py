"""What a peer did that the protocol does not allow."""

from __future__ import annotations

from pgwitness.core.errors import PgwitnessError

PROTOCOL_VIOLATION = "08P01"


class ProtocolViolation(PgwitnessError):
    """Bytes that the protocol does not allow there; the connection ends with this sentence and `sqlstate`."""

    def __init__(self, message: str, sqlstate: str = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
