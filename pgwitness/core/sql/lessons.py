"""What a statement makes that later statements have to be judged by, of whichever session they are."""

from __future__ import annotations

from typing import NamedTuple

from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Made
from pgwitness.core.sql.tree.stands import Stand


class Lesson(NamedTuple):
    """What a statement makes that later ones have to be judged by; it travels between a gateway's processes."""

    made: tuple[Made, ...] = ()
    attached: tuple[Made, ...] = ()
    stands: tuple[Stand, ...] = ()

    @classmethod
    def of(cls, known: StatementFacts) -> Lesson:
        """Return what a statement makes."""
        return cls(known.made, known.attached, known.stands)


def teaches(known: StatementFacts) -> bool:
    """Return whether a statement makes something that later ones have to be judged by."""
    return bool(known.made or known.attached or known.stands)
