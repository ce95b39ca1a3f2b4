"""Who a principal is by the rules, asked by its name: for trying policies, where no session stands behind it. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from msgspec import Struct

from streams.identity import proof
from streams.identity.identities import Identities, Named, Rule

_PLACE = re.compile(r"\{(\w+)\}")
_GLOB = re.compile(r"[*?\[]")
_METHOD = "scram-sha-256"


class Called(Struct, frozen=True):
    """A principal as the first rule that can give its name has it; `role` is the login that it asks for, if it is one.

    `assurance` is as after a login with a password.
    """

    named: Named
    role: str | None


def called(identities: Identities, principal: str) -> Called | None:
    """Find the first rule that can give this name; None where none can."""
    for rule in identities.rules:
        filled = _filled(rule, principal)
        if filled is not None:
            return Called(_named(rule, principal), filled.get("role") or _role(rule))
    return None


def _filled(rule: Rule, principal: str) -> dict[str, str] | None:
    """Return what stands for the places in a rule's name where it reads so; None where it cannot, as its facts are."""
    pieces = _PLACE.split(rule.entry.principal)
    pattern = "".join(f"(?P<p{n}>.+)" if n % 2 else re.escape(piece) for n, piece in enumerate(pieces))
    found = re.fullmatch(pattern, principal)
    if found is None:
        return None
    filled = {pieces[n]: found[f"p{n}"] for n in range(1, len(pieces), 2)}
    for fact, patterns in rule.patterns:
        if fact in filled and not any(fnmatchcase(filled[fact], glob) for glob in patterns):
            return None
    return filled


def _named(rule: Rule, principal: str) -> Named:
    entry = rule.entry
    return Named(
        principal=principal,
        kind=entry.kind,
        on_behalf_of=_plain(entry.on_behalf_of),
        peer_group=_plain(entry.peer_group),
        owner=entry.owner,
        assurance=proof.assurance(rule.used, _METHOD, None),
        rule=rule.id,
    )


def _plain(text: str | None) -> str | None:
    """Return a text of a rule that does not hang on the session."""
    return None if text is None or _PLACE.search(text) else text


def _role(rule: Rule) -> str | None:
    roles = dict(rule.patterns).get("role", ())
    return next((role for role in roles if not _GLOB.search(role)), None)
