"""What has been met in statements, each thing once, in the order it was met, and how what two readers met adds up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from pgwitness.core.sql.tree.facts import Body, Handle, Made
from pgwitness.core.sql.tree.stands import Stand

WORST = {"n/a": 0, "present": 1, "useless": 2, "none": 3}


def worst(wheres: Iterable[str]) -> str:
    """Give the worst that is known of any WHERE: none, then useless, then present."""
    return max(wheres, key=lambda where: WORST.get(where, 0))


class Collected:
    """What statements say, as far as they were read."""

    def __init__(self, temporary: set[str] | None = None, *, wary: bool = False) -> None:
        self.temporary = set() if temporary is None else temporary
        """Temporary tables that the text has made, without their schema; shared with readers of code in it."""
        self.wary = wary
        """Whether a name alone never means a temporary table: a search path or an error may have it mean another."""
        self._made: set[str] = set()
        self._gone: set[str] = set()
        self._idle = False
        """Within a SELECT that gives no row and runs nothing."""
        self.operations: dict[str, None] = {}
        self.relations: dict[str, None] = {}
        self.written: dict[str, None] = {}
        """Relations whose rows it changes, or which it empties or drops."""
        self.columns: dict[str, None] = {}
        self.read_columns: set[str] = set()
        """Those that are more than the target of an assignment."""
        self.whole: dict[str, None] = {}
        """Relations of which every row is read (`pgwitness.core.sql.tree.wholes`)."""
        self.returning = False
        """Whether a statement that writes gives rows back."""
        self.functions: dict[str, None] = {}
        self.where = "n/a"
        self.utility = False
        self.unread: str | None = None
        """Why some of it was read by its words only."""
        self.inserts = True
        """Nothing but INSERTs of listed values without ON CONFLICT: each that succeeds makes a row."""
        self.settings: dict[str, None] = {}
        self.objects: dict[str, None] = {}
        self.defines: dict[str, None] = {}
        self.bodies: list[Body] = []
        self.handles: list[Handle] = []
        self.made: list[Made] = []
        self.attached: list[Made] = []
        """What it attaches to something that runs it later, unnamed (`pgwitness.core.sql.tree.attached`)."""
        self.perhaps: dict[str, None] = {}
        """Names of functions that may run: called where nothing is given, or `.f` as a column is read."""
        self.stands: list[Stand] = []
        self.given = False
        """Whether it runs a text of which nothing stands in it."""

    def take(self, inner: Self) -> None:
        """Add what another reader has met."""
        self.operations |= inner.operations
        self.relations |= inner.relations
        self.written |= inner.written
        self.columns |= inner.columns
        self.read_columns |= inner.read_columns
        self.whole |= inner.whole
        self.returning = self.returning or inner.returning
        self.functions |= inner.functions
        self.settings |= inner.settings
        self.objects |= inner.objects
        self.defines |= inner.defines
        self.handles += inner.handles
        self.made += inner.made
        self.attached += inner.attached
        self.perhaps |= inner.perhaps
        self.stands += inner.stands
        self.given = self.given or inner.given
        self.unread = self.unread or inner.unread
        self.worse(inner.where)

    def define(self, name: str, inner: Self, of_row: bool) -> None:
        """Note what the body of a function that is made does."""
        self.defines |= inner.operations
        self.made.append(inner.as_made(name)._replace(of_row=of_row))

    def as_made(self, name: str = "") -> Made:
        """Return what was read as what runs under a name."""
        names = (self.operations, self.relations, self.columns, self.functions, self.whole)
        operations, relations, columns, functions, whole = map(tuple, names)
        perhaps = tuple(self.perhaps)
        return Made(
            name, operations, relations, columns, functions, whole, self.where, given=self.given, perhaps=perhaps
        )

    def worse(self, where: str) -> None:
        """Keep the worst that is known of any WHERE: none, then useless, then present."""
        if WORST[where] > WORST[self.where]:
            self.where = where

    def _did(self, operation: str) -> None:
        self.operations.setdefault(operation)

    @staticmethod
    def _add_all(known: dict[str, None], found: Iterator[str]) -> None:
        for name in found:
            known.setdefault(name)
