"""Verified claims: whom a token names, for whom it acts, and what it says of the agent; pure.

The collector has verified the token. `sub` is for whom all is done; the actors of RFC 8693 (`act`, the present one
outermost) are through whom: person, client, agent, service. Whoever acts now is the principal, the first of the chain
is on whose behalf.
"""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace

from pgwitness.core.claims import by_path, chain
from pgwitness.core.events import PrincipalKind, Token
from streams.identity.identities import Claims, Named

VERIFIED = "verified"
UNJUDGED = "no_keys"
"""The verdict where no keys are configured: nothing was refused, and nothing is believed."""

_KINDS = ("human", "agent", "service")


def refused(token: Token | None) -> bool:
    """Return whether a token was judged and not believed."""
    return token is not None and token.verdict not in (VERIFIED, UNJUDGED)


def believed(token: Token | None) -> Token | None:
    """Return the token if its claims may be believed."""
    return token if token is not None and token.verdict == VERIFIED else None


def facts(token: Token | None) -> Claims:
    """Return the claims that rules may match, by path, such as `agent.model`; those of a refused token are none."""
    if token is None or token.verdict != VERIFIED:
        return ()
    return tuple(sorted(by_path(token).items()))


def name(token: Token, named: Named) -> Named:
    """Name a session by its verified claim; a rule that used the claim has named it already, and may lack for whom."""
    links = chain(token)
    behalf = links[0] if len(links) > 1 else None
    if named.claimed:
        return named if named.on_behalf_of else replace(named, on_behalf_of=behalf)
    said = token.claims.get("kind")
    kind = cast(PrincipalKind, said) if said in _KINDS else "agent" if token.claims.get("agent") else "unknown"
    return Named(
        principal=links[-1],
        kind=kind,
        on_behalf_of=behalf,
        peer_group=None,
        owner=named.owner,
        assurance="verified",
        rule="claim",
        claimed=True,
    )


def agent(token: Token) -> dict[str, object]:
    """Tell of the agent: the chain of delegation, who vouches for it and when, what it says of itself and its task."""
    found: dict[str, object] = {"said_by": "claim", "delegation": chain(token), "token_id": token.token_id}
    for key in ("iss", "client_id", "traceparent", "iat", "exp", "fields"):
        if key in token.claims:
            found[key] = token.claims[key]
    said = token.claims.get("agent")
    return found | (said if isinstance(said, dict) else {})


def trace_id(token: Token) -> str | None:
    """Return the trace of a token's `traceparent`, None when there is none of that form."""
    return parent_of(str(token.claims.get("traceparent", "")))


def parent_of(traceparent: str) -> str | None:
    """Return the trace id of a `traceparent` (W3C Trace Context), None for anything else."""
    parts = traceparent.split("-")
    found = parts[1] if len(parts) >= 4 else ""
    usable = len(found) == 32 and found != "0" * 32 and not set(found) - set("0123456789abcdef")
    return found if usable else None
