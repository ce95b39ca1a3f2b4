"""What a verified token says, by the paths that rules and logins name its claims by. Pure.

`sub` is for whom all is done; the actors of RFC 8693 (`act`, the present one outermost) are through whom.
"""

from __future__ import annotations

from pgwitness.core.events import Token


def chain(token: Token) -> list[str]:
    """List who acted for whom, from the first to the one who acts now."""
    actors = token.claims.get("actors")
    others = [str(actor) for actor in actors] if isinstance(actors, list) else []
    return [str(token.claims.get("sub", "")), *reversed(others)]


def by_path(token: Token) -> dict[str, str]:
    """Return the claims that can be matched, by path, such as `agent.model`; `actor` is who acts now."""
    found = {name: str(value) for name, value in token.claims.items() if isinstance(value, str)}
    for table in ("agent", "fields"):
        inner = token.claims.get(table)
        if isinstance(inner, dict):
            found |= {f"{table}.{name}": value for name, value in inner.items() if isinstance(value, str)}
    return found | {"actor": chain(token)[-1]}
