"""A judge that lets everything pass."""

from __future__ import annotations

from collections.abc import Sequence

from collectors.gateway.session.actions import Decision, Reading
from collectors.gateway.spool.records import Said
from collectors.gateway.wire.lexing import Surety
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Handle


class Everything:
    """Lets everything pass, and reads nothing."""

    scopes = 1
    intent = ""

    def reported(self, name: str, value: str) -> None:
        """Take nothing up."""

    def decide(self, text: bytes, _at_us: int, surety: Surety = "sure") -> Decision:
        """Let it pass."""
        said = Said(text.decode(errors="replace"))
        return Decision(said, reading=Reading(said, StatementFacts(None, "")))

    def ran(self, _decision: Decision) -> None:
        """Take nothing up."""

    def ended(self) -> None:
        """Take nothing up."""

    def again(self, decision: Decision, _at_us: int) -> Decision:
        """Let it pass."""
        return decision

    def behind(self, decision: Decision, _targets: Sequence[Handle] | None, _at_us: int) -> Decision:
        """Let it pass."""
        return decision

    def function(self, oid: int, _at_us: int) -> Decision:
        """Let it pass."""
        return Decision(Said(f"oid {oid}"))

    def ground(self, _at_us: int) -> None:
        """Have no short lane."""


judged = Everything()
