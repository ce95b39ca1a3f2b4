"""How far a name can be trusted: `assurance`, from the facts that a rule used and how each of them was known. Pure.

`verified` only where every fact was authenticated, and at least one of them says who it is:

- a verified token's claim and the client's certificate (checked by the server against its authorities) say who it is;
- so does the role after `PERSONAL` methods; after `SHARED` ones somebody knew its password, which is checked, and may
  be shared; after any other, or where the method is not known, nothing was proven;
- cluster, database and the Unix socket are the server's own word and prove nobody;
- an address on the network was seen, not authenticated: behind it may be a pooler, or anybody there;
- an application name and a comment are what the client says of itself. Whatever else the rule used: `asserted`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

from pgwitness.core.events import Assurance

Fact = Literal["cluster", "database", "role", "application", "client_addr", "certificate", "claim", "comment"]

PERSONAL = frozenset({"cert", "gss", "sspi", "peer", "oauth"})
"""Authentication methods after which the role is a person's or a program's own, and not a shared password's."""
SHARED = frozenset({"scram-sha-256", "md5", "password", "ldap", "radius", "pam", "bsd"})
"""Methods that check a password. `trust` checks nothing, and `ident` asks the client's own machine."""

_Strength = Literal["authenticated", "checked", "unproven", "asserted"]


def assurance(used: AbstractSet[Fact], auth_method: str | None, client_addr: str | None) -> Assurance:
    """Judge a name by the facts it hangs on; `client_addr` is `local` for the Unix socket."""
    strengths = {_strength(fact, auth_method, client_addr) for fact in used}
    if "asserted" in strengths:
        return "asserted"
    return "verified" if "authenticated" in strengths and "unproven" not in strengths else "role_only"


def _strength(fact: Fact, auth_method: str | None, client_addr: str | None) -> _Strength:
    match fact:
        case "application" | "comment":
            return "asserted"
        case "claim" | "certificate":
            return "authenticated"
        case "role":
            return "authenticated" if auth_method in PERSONAL else "checked" if auth_method in SHARED else "unproven"
        case "client_addr":
            return "checked" if client_addr == "local" else "unproven"
        case "cluster" | "database":
            return "checked"
