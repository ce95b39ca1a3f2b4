"""What a session of the gateway says of itself and of what it runs, as it stands on the spool.

Records in the order in which they happened. `Opened` and `Closed` frame a session; `Begun` says that a
statement is about to be forwarded, `Ended` what came of it. Of a statement there is never more than its text without
literals: a parameter reaches no record.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from detectors.gatekeeper import Verdict
from pgwitness.core.events import Certificate, Outcome, Parsed, Ran, Token


class Said(Struct, frozen=True, omit_defaults=True, gc=False):
    """A statement without its literals, or a keyed hash of one that could not be freed of them (`Statement`)."""

    statement: str | None = None
    hash: str | None = None
    parsed: Parsed | None = None
    tags: dict[str, str] = {}


UNKNOWN = Said(parsed=Parsed(operations=["execute"]))
"""What nobody here has seen: a portal of a cursor, a statement that was prepared by SQL."""


class _Record(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", gc=False):
    """What every record has: the session's number in this spool, and the time, in microseconds since the epoch."""

    session: int
    at_us: int


class Opened(_Record, frozen=True, kw_only=True, tag="opened"):
    """A session whose client is known and that is logged in upstream, or that was refused (`sqlstate`).

    `client_addr` and `client_port` are the client's own, as the gateway sees them (`local` for a socket);
    `server_port` is the gateway's own towards the server, as the session itself sees it: with `pid` and
    `backend_start_us` the beacon's facts. `role` is the one that it has at the server, of a client that has proven
    nothing (`auth_method` is None) the name that it gave. `user` is the role that it has proven to be where it is
    logged in as that of an audience of masks. `token` is what was found of its token, which is not kept.
    """

    cluster: str
    instance: str
    role: str
    database: str
    application: str = ""
    client_addr: str | None = None
    client_port: int | None = None
    auth_method: str | None = None
    encrypted: bool = False
    pid: int = 0
    backend_start_us: int = 0
    server_port: int | None = None
    sqlstate: str | None = None
    token: Token | None = None
    certificate: Certificate | None = None
    user: str | None = None


class Closed(_Record, frozen=True, kw_only=True, tag="closed"):
    """The session has ended; whatever of it has no `Ended` by now has an outcome that nobody here knows."""


Way = Literal["query", "parse", "execute", "function"]
"""By which message a statement came: a simple query, Execute of the extended protocol, a function call.

`parse` is one that was refused when it was to be prepared: it never ran.
"""


class Begun(_Record, frozen=True, kw_only=True, tag="begun"):
    """A statement that is about to be forwarded; `number` counts those of the session, from 1.

    With a `verdict` that denies, another statement goes in its place, one that fails.
    """

    number: int
    way: Way
    said: Said
    application: str | None = None
    """The application's name, where it is not the one at the beginning any more."""
    verdict: Verdict | None = None
    intent: str | None = None
    """What the session says that it is for."""


class Ended(_Record, frozen=True, kw_only=True, tag="ended"):
    """What came of a statement. `ran` is false where the server passed over it, after an error in its pipeline.

    `transaction` numbers the session's transactions, from 1; it is 0 when the session was in none any more at the
    ReadyForQuery behind the statement. `said` is there where it was another statement than was thought when it began.
    """

    number: int
    outcome: Outcome
    rows: int | None = None
    sqlstate: str | None = None
    duration_ms: float = 0.0
    ran: bool = True
    transaction: int = 0
    failed: bool = False
    """Its transaction had failed before, by whatever message: a COMMIT is a ROLLBACK then."""
    said: Said | None = None
    changed: Ran | None = None
    """What the server counted, where it ran approved."""
    error: str | None = None
    """Why it was cut or undone by a limit."""


class Started(_Record, frozen=True, kw_only=True, tag="started"):
    """A gateway has started: what earlier ones had open has ended, when and how is not known; numbers begin anew."""


class Stopped(_Record, frozen=True, kw_only=True, tag="stopped"):
    """Somebody ends a session: `by` says who, as whoever asks says, `peer` which user of this machine that is."""

    by: str
    peer: str
    reason: str = ""
    application: str | None = None


class Lost(_Record, frozen=True, kw_only=True, tag="lost"):
    """What stood between two places of the spool is not there any more; nobody knows what it was."""

    begin: int
    end: int


Record = Opened | Closed | Begun | Ended | Started | Stopped | Lost
