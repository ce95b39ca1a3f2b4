"""What a client has sent and the server will answer, with all that is known of it until then; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from collectors.gateway.session import refusing
from collectors.gateway.session.actions import NOT_KNOWN, Decision
from collectors.gateway.session.limiting import Limit
from collectors.gateway.session.metering import Meter
from collectors.gateway.session.refusing import Refused
from pgwitness.core.events import Outcome

NAME_BYTES_MAX: Final = 63


@dataclass(slots=True)
class Sent:
    """Something that the client has sent and the server will answer. `kind` is the message's type."""

    kind: int
    name: bytes = b""
    """What a Parse, Bind or Close names; of an Execute its portal."""
    decision: Decision = NOT_KNOWN
    statement: bytes = b""
    """What a Bind makes a portal of."""
    number: int = 0
    began_ns: int = 0
    rows: int | None = None
    sqlstate: str | None = None
    ended_ns: int = 0
    outcome: Outcome = "unknown"
    ran: bool = True
    failed: bool = False
    other: Decision | None = None
    """What an Execute ran, where that is not what was thought when it was sent."""
    refused: Refused | None = None
    """What went in its place; None where it went itself."""
    warning: bytes = b""
    """What its client is told before its answer."""
    simple: bool = False
    """Whether it came as a simple query, whose answer ends with ReadyForQuery."""
    own: bool = False
    """Whether the gateway sent it for itself; the client reads nothing of its answer."""
    limit: Limit | None = None
    """By which it is limited, or of which it is a part."""
    limited: Sent | None = None
    """The statement whose rows this one checks."""
    meter: Meter | None = None
    """By which its answer is measured, or of what comes of whose it is a part."""
    why: str = ""
    """Why it was cut or undone, for the evidence."""
    watched: bool = False
    """Whether its answer is waited for with care: it is written anew, or something is put before it."""

    def told(self, said: dict[str, str]) -> str:
        """Return the SQLSTATE that the client was told, of an error of the server with these fields."""
        ours = (self.refused is not None and self.refused.is_own(said)) or (
            self.meter is not None and self.meter.is_own(said)
        )
        return refusing.SQLSTATE if ours else said.get("C", "XX000")


def kept(name: bytes) -> bytes:
    """Return a name as the server keeps it: of a longer one the rest is lost (`NAMEDATALEN`)."""
    return name[:NAME_BYTES_MAX]
