"""What holds of all requests, by the records of the topic in the broker's order: pure, and the same for every reader.

Gateways, the worker, the command line and the console each keep a ledger of their own. So two gateways that claim the
same approval agree on whose it is without talking to each other: the first claim in the topic's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from detectors.alerts.verdicts import private_key, public_key
from pgwitness.approvals.records import Claim, Decision, Ended, Request, Signed, read
from pgwitness.core.config import Approver, Config
from pgwitness.core.errors import ConfigurationError

REQUESTS_MAX: Final = 20_000
"""Requests that are kept; what is decided on an older one is refused."""
LIFETIME_US_MAX: Final = 7 * 86_400_000_000
AHEAD_US_MAX: Final = 300_000_000
"""How far the clock of whoever signs may be ahead of that of whoever wrote the record."""

State = Literal["open", "approved", "denied", "used", "expired", "withdrawn"]
Refusal = Literal[
    "not_a_record",
    "not_a_gateway",
    "not_an_approver",
    "wrong_signature",
    "known",
    "too_long",
    "unknown_request",
    "another_request",
    "own_request",
    "not_in_group",
    "no_break_glass",
    "no_reason",
    "repeated",
    "settled",
    "expired",
    "not_approved",
    "used",
    "time",
]


class Trust(Struct, frozen=True):
    """Whose records are believed: keys of gateways, and approvers by name, each with the key."""

    gateways: tuple[Ed25519PublicKey, ...]
    approvers: Mapping[str, tuple[Approver, Ed25519PublicKey]]

    @classmethod
    def of(cls, config: Config) -> Trust:
        """Take it from a configuration. Raise `ConfigurationError` for what is no key."""
        gateways = [public_key(text) for text in config.approvals.gateways]
        file = config.approvals.key_file
        if file is not None:
            try:
                gateways.append(private_key(file.read_bytes()).public_key())
            except OSError as error:
                if not gateways:
                    raise ConfigurationError(f"approvals.key_file: {file}: {error.strerror}") from error
        named = {name: (one, public_key(one.key)) for name, one in config.approvers.items()}
        return cls(tuple(gateways), named)


class Standing:
    """A request and what was decided on it so far."""

    __slots__ = ("approved_us", "claim", "decisions", "doubted", "ended", "offset", "request", "sha256")

    def __init__(self, request: Request, sha256: str, offset: int) -> None:
        self.request, self.sha256, self.offset = request, sha256, offset
        self.decisions: list[Decision] = []
        self.approved_us: int | None = None
        """When the last approval that was needed came."""
        self.claim: Claim | None = None
        self.doubted = False
        """Whether a gateway claimed it that this ledger does not see approved, as by approvers that this one does not
        know: it may have run, so it runs by no other claim."""
        self.ended: Ended | None = None

    def state(self, now_us: int) -> State:
        """Say how it stands."""
        if self.claim is not None:
            return "used"
        if self.ended is not None:
            return self.ended.end
        if any(one.word == "deny" for one in self.decisions):
            return "denied"
        if self.approved_us is not None and self.doubted:
            return "used"
        if self.approved_us is not None:
            return "approved" if now_us <= self.usable_until_us else "expired"
        return "open" if now_us < self.request.expires_us else "expired"

    @property
    def usable_until_us(self) -> int:
        """Until when what was approved can be run; of what was not, until when it can be decided on."""
        if self.approved_us is None:
            return self.request.expires_us
        return self.approved_us + self.request.use_us

    @property
    def broken_glass(self) -> bool:
        """Whether one alone has let it through, past what the policy asks for."""
        return any(one.break_glass for one in self.decisions)

    @property
    def missing(self) -> int:
        """How many more have to approve."""
        if self.approved_us is not None:
            return 0
        return max(0, self.request.needed - sum(one.word == "approve" for one in self.decisions))


class Taken(Struct, frozen=True):
    """What came of a record: the request as it stands now, or why the record is refused."""

    signed: Signed | None
    standing: Standing | None = None
    refused: Refusal | None = None


class Ledger:
    """Takes the records of the topic, each once and in order."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self.requests: dict[str, Standing] = {}

    def take(self, value: bytes | None, offset: int, at_us: int) -> Taken:
        """Take the record at an offset, written at `at_us`. Never raises for what it is."""
        signed = read(value)
        if signed is None:
            return Taken(None, refused="not_a_record")
        record = signed.record
        match record:
            case Request():
                return self._request(signed, record, offset, at_us)
            case Decision():
                refused = self._decision(signed, record, at_us)
            case Claim():
                refused = self._claim(signed, record, at_us)
            case Ended():
                refused = self._ended(signed, record, at_us)
        return Taken(signed, self.requests.get(record.request), refused)

    def open(self, now_us: int) -> list[Standing]:
        """List the requests that wait for a decision, the oldest first."""
        return [one for one in self.requests.values() if one.state(now_us) == "open"]

    def _request(self, signed: Signed, request: Request, offset: int, at_us: int) -> Taken:
        known = self.requests.get(request.request)
        refused: Refusal | None = None
        if not self._by_gateway(signed):
            refused = "not_a_gateway"
        elif known is not None:
            refused = "known"
        elif request.expires_us - request.at_us > LIFETIME_US_MAX or not 0 < request.use_us <= LIFETIME_US_MAX:
            refused = "too_long"
        elif request.needed < 1 or request.at_us > at_us + AHEAD_US_MAX:
            refused = "time"
        if refused is not None:
            return Taken(signed, known, refused)
        while len(self.requests) >= REQUESTS_MAX:
            del self.requests[next(iter(self.requests))]
        standing = self.requests[request.request] = Standing(request, signed.sha256, offset)
        return Taken(signed, standing)

    def _decision(self, signed: Signed, decision: Decision, at_us: int) -> Refusal | None:
        approver, key = self._trust.approvers.get(decision.who, (None, None))
        if approver is None or key is None:
            return "not_an_approver"
        if not signed.is_by(key):
            return "wrong_signature"
        standing = self.requests.get(decision.request)
        if standing is None:
            return "unknown_request"
        if decision.of != standing.sha256:
            return "another_request"
        if not standing.request.at_us - AHEAD_US_MAX <= decision.at_us <= at_us + AHEAD_US_MAX:
            return "time"
        refused = why_not(standing, decision, self._trust.approvers, at_us)
        if refused is not None:
            return refused
        standing.decisions.append(decision)
        if decision.word == "approve" and (decision.break_glass or standing.missing == 0):
            standing.approved_us = at_us
        return None

    def _claim(self, signed: Signed, claim: Claim, at_us: int) -> Refusal | None:
        if not self._by_gateway(signed):
            return "not_a_gateway"
        standing = self.requests.get(claim.request)
        if standing is None:
            return "unknown_request"
        if standing.claim is not None or standing.doubted:
            return "used"
        state = standing.state(at_us)
        if state == "approved":
            standing.claim = claim
            return None
        if state == "expired":
            return "expired"
        standing.doubted = True
        return "not_approved"

    def _ended(self, signed: Signed, ended: Ended, at_us: int) -> Refusal | None:
        if not self._by_gateway(signed):
            return "not_a_gateway"
        standing = self.requests.get(ended.request)
        if standing is None:
            return "unknown_request"
        if standing.ended is not None or standing.state(at_us) in ("used", "denied"):
            return "settled"
        standing.ended = ended
        return None

    def _by_gateway(self, signed: Signed) -> bool:
        return any(signed.is_by(key) for key in self._trust.gateways)


def why_not(
    standing: Standing,
    decision: Decision,
    approvers: Mapping[str, tuple[Approver, Ed25519PublicKey]],
    at_us: int,
) -> Refusal | None:
    """Return why a decision on a request would be refused at a time; None where it counts."""
    approver, _ = approvers[decision.who]
    state = standing.state(at_us)
    if state in ("expired", "withdrawn"):
        return "expired"
    if state != "open" and not (decision.word == "deny" and state == "approved"):
        return "settled"
    if not decision.why.strip():
        return "no_reason"
    if decision.break_glass:
        return None if approver.break_glass and decision.word == "approve" else "no_break_glass"
    who = person(decision.who, approver)
    if decision.word == "approve" and is_own(standing.request, approver, who):
        return "own_request"
    if not set(approver.groups) & set(standing.request.groups):
        return "not_in_group"
    key = approver.key
    for other in standing.decisions:
        if other.who not in approvers:
            continue
        known, _ = approvers[other.who]
        if other.word == decision.word and (key == known.key or who == person(other.who, known)):
            return "repeated"
    return None


def person(name: str, approver: Approver) -> str:
    """Return what `identities.yaml` calls an approver."""
    return approver.principal or name


def is_own(request: Request, approver: Approver, who: str) -> bool:
    """Return whether an approver asks, is whom the asker acts for, or acts for either of them."""
    asking = {request.principal, request.on_behalf_of} - {None}
    return who in asking or approver.on_behalf_of in asking
