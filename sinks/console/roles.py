"""What a role may do in the console; nothing but what stands here. Pure.

Roles do not contain each other: whoever keeps the accounts need not read evidence. A person may have several.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Right = Literal["now", "alerts", "evidence", "ask", "people", "verdict", "sessions", "approvals", "approve", "end"]
"""`now` and `alerts`: sentences and figures. `evidence`: statements and rows. `sessions`: who is logged in here.
`approvals`: what waits for a decision; `approve`: to decide on it. `end`: to end a session at the gateway."""

RIGHTS: dict[str, frozenset[Right]] = {
    "viewer": frozenset({"now", "alerts"}),
    "analyst": frozenset({"now", "alerts", "evidence", "people", "ask", "approvals"}),
    "reviewer": frozenset({"now", "alerts", "evidence", "people", "verdict", "approvals", "end"}),
    "approver": frozenset({"now", "alerts", "approvals", "approve"}),
    "administrator": frozenset({"now", "sessions"}),
}
ROLES = tuple(RIGHTS)


def rights(roles: Iterable[str]) -> frozenset[Right]:
    """Return what somebody with these roles may do; a role that is not known gives nothing."""
    return frozenset(right for role in roles for right in RIGHTS.get(role, ()))


ALL: frozenset[str] = frozenset(get_args(Right))
