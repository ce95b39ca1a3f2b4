"""The demo's helpdesk: the portal where people sign on and ask agents for help, and which signs whom these work for.

The portal's public key is what the collectors and the gateway trust. Another portal, with a key that nobody trusts, is
a forger.
"""

from __future__ import annotations

import time
import uuid
from random import Random

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pgwitness.demo.shop import JONAS, MARIA, NORA, STUDY_AGENT, SUPPORT_AGENT, Principal

ISSUER = "https://helpdesk.shop.example"
PORTAL = "helpdesk-portal"
AUDIENCE = "shop/shop"
LIFETIME_S = 120
QUESTIONS_PER_CONVERSATION = 10
TOOLS = {"support-agent": "tickets", "pricing-agent": "prices", "study-agent": "towns"}
STUDY_CONVERSATION = 700


class Helpdesk:
    """Signs tokens: a person asks the portal, the portal asks the agent, conversation by conversation."""

    def __init__(self, seed: int = 1) -> None:
        """Make a key of its own; `seed` decides who asks."""
        self._key = Ed25519PrivateKey.generate()
        self._random = Random(seed)  # noqa: S311 - who asks, not a secret
        self._asked = 0
        self._token = ""

    @property
    def public_key(self) -> str:
        """The key that the tokens verify with, as PEM."""
        return (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def next(self) -> str:
        """Return the token for the next piece of work: ten of them are one person's conversation."""
        if self._asked % QUESTIONS_PER_CONVERSATION == 0:
            self._token = self.sign(self._random.choice((MARIA.name, JONAS.name)), self._asked)
        self._asked += 1
        return self._token

    def login(self, who: Principal) -> str:
        """Sign who somebody is, to log in with: a person for himself, an agent for the person who let it run."""
        if who.kind == "human":
            return self._signed(who.name, {})
        if who is STUDY_AGENT:
            return self.sign(NORA.name, STUDY_CONVERSATION * QUESTIONS_PER_CONVERSATION, who)
        return self.sign(JONAS.name, agent=who)

    def sign(self, person: str, number: int = 0, agent: Principal = SUPPORT_AGENT) -> str:
        """Sign that an agent works for a person."""
        conversation = f"c-{number // QUESTIONS_PER_CONVERSATION}"
        return self._signed(
            person,
            {
                "act": {"sub": agent.name, "act": {"sub": PORTAL}},
                "agent": {"model": "m-4", "tool": TOOLS.get(agent.name, ""), "conversation": conversation},
            },
        )

    def _signed(self, person: str, claims: dict[str, object]) -> str:
        now = int(time.time())
        common = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": person,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + LIFETIME_S,
        }
        return jwt.encode({**common, **claims}, self._key, algorithm="EdDSA")
