"""What the names stand for that SQL gives: PREPARE and EXECUTE, DECLARE and FETCH; of one session, bounded, pure.

A name is taken up when its statement is sent, and whether that succeeds is not waited for. So a name may stand for
several statements, and what runs it is judged by all of them. What is not known may be anything, and is said so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.facts import Handle

NAMES_MAX: Final = 1_000
MEANINGS_MAX: Final = 16
"""How many statements one name may stand for; of more it is not known what it is."""

Sort = Literal["statement", "cursor"]
_SORT: Final[dict[str, Sort]] = {
    "prepare": "statement", "execute": "statement",
    "declare": "cursor", "hold": "cursor", "fetch": "cursor",
}  # fmt: skip


class Handles:
    """The names that one session has given by SQL."""

    def __init__(self) -> None:
        self._known: dict[tuple[Sort, str], list[Handle] | None] = {}

    def __bool__(self) -> bool:
        """Say whether any name was given."""
        return bool(self._known)

    def give(self, handle: Handle) -> None:
        """Take up that a statement gives a name."""
        key = (_SORT[handle.verb], handle.name)
        if key not in self._known:
            if len(self._known) >= NAMES_MAX:
                return  # what it stands for is not known then
            self._known[key] = []
        meanings = self._known[key]
        if meanings is None or handle in meanings:
            return
        if len(meanings) >= MEANINGS_MAX:
            self._known[key] = None
        else:
            meanings.append(handle)

    def find(self, sort: Sort, name: str) -> list[Handle] | None:
        """Return what a name may stand for; None where that is not known."""
        return self._known.get((sort, name))

    def knows(self, sort: Sort, name: str) -> bool:
        """Return whether SQL has given a name, to whatever."""
        return (sort, name) in self._known

    def lasts(self, name: bytes) -> bool:
        """Return whether a name may be a cursor that outlives its transaction."""
        key: tuple[Sort, str] = ("cursor", name.decode(errors="replace"))
        meanings = self._known.get(key)
        return key in self._known and (meanings is None or any(handle.verb == "hold" for handle in meanings))

    def transaction_ended(self) -> None:
        """Take up that cursors are gone that do not outlive their transaction."""
        for key, meanings in list(self._known.items()):
            if key[0] == "cursor" and meanings is not None and all(handle.verb != "hold" for handle in meanings):
                del self._known[key]

    def ended(self, handles: tuple[Handle, ...]) -> None:
        """Take up that a text has run, before anything else was sent: what it alone has closed stands for nothing.

        A cursor that was closed is not opened by a rollback, and a statement that was deallocated not made again.
        """
        if len(handles) != 1 or handles[0].verb not in ("close", "deallocate"):
            return
        sort: Sort = "cursor" if handles[0].verb == "close" else "statement"
        name = handles[0].name
        for key in [key for key in self._known if key[0] == sort and name in (key[1], "")]:
            del self._known[key]

    def run(self, handles: Iterable[Handle]) -> list[tuple[Sort, str]]:
        """Take up what a text does with names; return those that it runs."""
        ran: list[tuple[Sort, str]] = []
        for handle in handles:
            sort = _SORT.get(handle.verb)
            if sort is None:
                continue
            if handle.verb in ("execute", "fetch"):
                ran.append((sort, handle.name))
            else:
                self.give(handle)
        return ran


def as_handle(known: StatementFacts) -> Handle:
    """Return what a statement does, as what a name stands for."""
    return Handle(
        "execute",
        "",
        known.operations,
        known.relations,
        known.columns,
        known.functions,
        known.where,
        known.whole,
        known.returning,
    )
