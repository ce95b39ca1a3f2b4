"""Keys, requests and decisions for tests of approvals."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detectors.alerts.verdicts import public_text
from pgwitness.approvals import records
from pgwitness.approvals.ledger import Ledger, Trust
from pgwitness.approvals.records import Claim, Decision, Ended, Request
from pgwitness.core.config import Approver

T0 = 1_800_000_000_000_000
MINUTE_US = 60_000_000
GATEWAY, OTHER_GATEWAY, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
KEYS = {name: Ed25519PrivateKey.generate() for name in ("ada", "bob", "eve", "root", "helper", "twin")}


def _approver(name: str, **more: Any) -> Approver:
    return Approver(key=public_text(KEYS[name].public_key()), **more)


APPROVERS = {
    "ada": _approver("ada", groups=["dba"]),
    "bob": _approver("bob", groups=["dba"]),
    "eve": _approver("eve", groups=["sales"]),
    "root": _approver("root", groups=[], break_glass=True),
    "helper": _approver("helper", groups=["dba"], on_behalf_of="maria"),
    "twin": Approver(key=public_text(KEYS["ada"].public_key()), groups=["dba"]),
}
TRUST = Trust(
    (GATEWAY.public_key(), OTHER_GATEWAY.public_key()),
    {name: (one, KEYS["ada" if name == "twin" else name].public_key()) for name, one in APPROVERS.items()},
)


def request(request_id: str = "r1", **more: Any) -> Request:
    """A request of an agent that works for maria."""
    values: dict[str, Any] = {
        "request": request_id, "at_us": T0, "cluster": "shop", "instance": "db:5432", "database": "shop",
        "role": "agents", "digest": "d1", "rows": 10, "groups": ["dba"], "expires_us": T0 + 15 * MINUTE_US,
        "principal": "bot", "kind": "agent", "on_behalf_of": "maria", "statement": "DELETE FROM public.t WHERE id < $1",
        "relations": ["public.t"],
    }  # fmt: skip
    return Request(**(values | more))


def decision(who: str = "ada", of: Request | None = None, **more: Any) -> Decision:
    """A decision on a request."""
    of = of or request()
    values: dict[str, Any] = {
        "request": of.request, "at_us": T0 + MINUTE_US, "of": records.sha256(records.text_of(of)), "word": "approve",
        "who": who, "why": "seen",
    }  # fmt: skip
    return Decision(**(values | more))


def claim(nonce: str = "n1", **more: Any) -> Claim:
    """A claim of a request."""
    return Claim(**({"request": "r1", "at_us": T0 + 2 * MINUTE_US, "nonce": nonce} | more))


def ended(**more: Any) -> Ended:
    """The end of a request."""
    return Ended(**({"request": "r1", "at_us": T0 + 2 * MINUTE_US, "end": "withdrawn"} | more))


def by(who: str, record: Decision) -> bytes:
    """Sign a decision by somebody's key."""
    return records.sign(record, KEYS[who])


class Book:
    """A ledger that is given records minute by minute."""

    def __init__(self, *values: bytes) -> None:
        self.ledger = Ledger(TRUST)
        self.number = 0
        for value in values:
            assert self.take(value) is None, value

    def take(self, value: bytes | None, at_us: int | None = None) -> str | None:
        """Take a record; return why it is refused."""
        self.number += 1
        at_us = T0 + self.number * MINUTE_US // 4 if at_us is None else at_us
        return self.ledger.take(value, self.number, at_us).refused

    def state(self, request_id: str = "r1", at_us: int = T0 + 3 * MINUTE_US) -> str:
        """How a request stands."""
        return self.ledger.requests[request_id].state(at_us)
