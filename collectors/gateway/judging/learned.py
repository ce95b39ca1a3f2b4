"""What the gateway's sessions have made in a database: functions, what runs them unnamed, names that stand for others.

It is taken up when the statement is sent, whether it succeeds or not, and kept, bounded, for as long as the gateway
runs: the catalogue is read half a minute later, and says nothing of how things were called before.
"""

from __future__ import annotations

from typing import Final

from collectors.gateway.judging.catalogue import MADE_MAX, Catalogue, last_of
from pgwitness.core.sql.lessons import Lesson
from pgwitness.core.sql.tree.facts import Made
from pgwitness.core.sql.tree.stands import Stand

STANDS_MAX: Final = 20_000


class Learned:
    """What was made in one database."""

    def __init__(self) -> None:
        self.functions: dict[Made, None] = {}
        self._attached: dict[str, None] = {}
        self._stands: dict[Stand, None] = {}
        self._whole = True

    def take(self, lesson: Lesson) -> bool:
        """Take up what a statement makes; return whether any of it is new."""
        before = (len(self.functions), len(self._attached), len(self._stands), self._whole)
        self.functions |= dict.fromkeys(lesson.made)
        for body in lesson.attached:
            if body.name:
                self.functions[body] = None
            self._attached |= dict.fromkeys(map(last_of, (*body.functions, *body.perhaps)))
        for stand in lesson.stands:
            self._stands[stand] = None
            self._attached |= dict.fromkeys(map(last_of, stand.functions))
        bounds: tuple[tuple[dict[Made, None] | dict[str, None] | dict[Stand, None], int], ...] = (
            (self.functions, MADE_MAX), (self._attached, MADE_MAX), (self._stands, STANDS_MAX),
        )  # fmt: skip
        for kept, most in bounds:
            while len(kept) > most:
                kept.popitem()
                self._whole = False
        return before != (len(self.functions), len(self._attached), len(self._stands), self._whole)

    def onto(self, known: Catalogue) -> Catalogue:
        """Return what is known of the database, with what was made."""
        found = known.with_made(self.functions)
        return found._replace(
            attached=found.attached | self._attached.keys(),
            standing=found.standing.with_stands(self._stands, found.relations) if self._stands else found.standing,
            whole=found.whole and self._whole,
        )
