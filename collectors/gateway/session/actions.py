"""What goes into a session and what comes out of it: the time, settings, a decision on a statement, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from collectors.gateway.masking.answering import Masked
from collectors.gateway.spool.records import UNKNOWN, Record, Said
from collectors.gateway.wire.lexing import Surety
from collectors.gateway.wire.violation import ProtocolViolation
from detectors.gatekeeper import Verdict
from pgwitness.core.sql.intent import Intent
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Handle

if TYPE_CHECKING:
    from collectors.gateway.session.short import Ground


class Moment(NamedTuple):
    """Now: `us` by the wall clock, `ns` by one that only goes forward."""

    us: int
    ns: int


class Reading(NamedTuple):
    """A statement as it was read: what may be said of it, what it does, and why that is not known, where it is not."""

    said: Said
    known: StatementFacts
    doubt: str | None = None
    intent: Intent | None = None
    """What its session is for from here on, where the statement says so."""
    two_ways: bool = False
    """The server may read it otherwise than it is read here, and nothing that is read alike can be put in its place."""
    forward: bytes | None = None
    """What goes to the server in its place, which it reads as it was read here; None: as it came."""


class Decision(NamedTuple):
    """What is to become of a statement, and what may be said of it.

    `verdict` is None where no policy has anything against it. `handles` is what it does with names that SQL gives to
    statements and cursors: only a session knows what those stand for. `scope` is where the decision holds. `forward` is
    the text that goes to the server, where that is not the one that came: of several that differ in literals each has
    its own (`collectors.gateway.wire.lexing`).
    """

    said: Said
    verdict: Verdict | None = None
    handles: tuple[Handle, ...] = ()
    reading: Reading | None = None
    scope: object = None
    marks: frozenset[str] | None = None
    """Labels of what it reads; None where it leaves the session as it is."""
    forward: bytes | None = None
    masked: Masked | None = None
    """How an audience of masks reads it, for errors to be told in its own words and places."""

    exact: bytes = b""
    """All bytes of what has to be approved, where that is known."""

    @property
    def limit(self) -> bool:
        """Whether it runs under a limit that only execution reveals; what was approved does."""
        verdict = self.verdict
        if verdict is None:
            return False
        if verdict.effect == "approve":
            return bool(verdict.approval)
        return verdict.effect == "limit" and (verdict.rows is not None or verdict.reads)

    @property
    def waits(self) -> bool:
        """Whether it has to be approved before it runs."""
        return self.verdict is not None and self.verdict.effect == "approve" and not self.verdict.approval

    @property
    def denied(self) -> bool:
        """Whether it may not run."""
        return self.verdict is not None and self.verdict.effect == "deny"

    @property
    def plain(self) -> bool:
        """Whether it passes as it came, and nothing comes of it for its session."""
        reading = self.reading
        return (
            self.verdict is None
            and not self.handles
            and self.marks is None
            and self.forward is None
            and self.masked is None
            and reading is not None
            and reading.doubt is None
            and reading.intent is None
            and not self.said.tags
        )


class Asked(NamedTuple):
    """What somebody wants to run: the decision that it has to be approved, and all bytes that make it up."""

    decision: Decision
    exact: bytes


NOT_KNOWN = Decision(UNKNOWN)
"""Of what nobody here has seen."""


class Judge(Protocol):
    """Decides on the statements of one session; never raises for what they are. Times are microseconds (`Moment.us`).

    `scopes` counts the sets of facts and rules by which it has decided: of more than one, names may be older than that.
    """

    scopes: int
    intent: str

    def reported(self, name: str, value: str) -> None:
        """Take a setting as the server reports it."""

    def decide(self, text: bytes, at_us: int, surety: Surety = "sure") -> Decision:
        """Decide on a statement; `surety` is how far the settings hold that were reported."""

    def ran(self, decision: Decision) -> None:
        """Take up that a statement is forwarded whose `marks` are not None."""

    def ended(self) -> None:
        """Take up that no transaction is open."""

    def again(self, decision: Decision, at_us: int) -> Decision:
        """Decide anew where an earlier decision does not hold any more; else return that."""

    def behind(self, decision: Decision, targets: Sequence[Handle] | None, at_us: int) -> Decision:
        """Decide on a statement that runs what names stand for, by what that is; None is not known."""

    def function(self, oid: int, at_us: int) -> Decision:
        """Decide on a function call of the protocol."""

    def ground(self, at_us: int) -> Ground | None:
        """Return where decisions hold now; None where that is not known yet, or not for the next statement too."""

    def admitted(self, decision: Decision, at_us: int) -> Decision:
        """Count a statement whose rate is limited, which is about to run; refuse one too many."""


@dataclass
class Actions:
    """What is to be done, in this order: write the records, then send. `close` ends the session with its last words."""

    records: list[Record] = field(default_factory=list)
    to_server: list[bytes] = field(default_factory=list)
    to_client: list[bytes] = field(default_factory=list)
    close: ProtocolViolation | None = None
    asked: Asked | None = None
    """What waits for approval from here on, until `Session.resume`."""
    settings: dict[str, str] = field(default_factory=dict)
    """The server's settings then."""
    ended: bool = False
    cancel: bool = False
    """The server is to be asked to end what it runs; `Session.cancelled` hears when it was."""
    expires: tuple[float, object] | None = None
    """After so many seconds `Session.expired` is to be asked, with what stands beside them."""
