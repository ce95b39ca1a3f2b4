"""What a statement holds besides its own actions: code, functions that it makes, prepared statements and cursors."""

from __future__ import annotations

from typing import NamedTuple


class Body(NamedTuple):
    """Code inside a statement, in which language, and whether it runs with it or is only kept (CREATE FUNCTION)."""

    text: str
    language: str
    runs: bool
    name: str = ""
    """Of a function that is made."""
    of_row: bool = False
    plain: bool = False
    """Whether a backslash in a plain constant of it is one, whoever calls it: it sets that for itself."""


class Made(NamedTuple):
    """A function that a statement makes, as it names it, and what its body does as far as its text tells."""

    name: str
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    where: str = "n/a"
    """The worst of its body, where that is read here."""
    of_row: bool = False
    """Whether it may be called as a column is read, `t.f`: it wants one argument, which may be a row."""
    given: bool = False
    """Whether it runs a text of which nothing stands in it: what it is given."""
    perhaps: tuple[str, ...] = ()
    """Functions that it may run, as `Reader.perhaps` has them."""


class Handle(NamedTuple):
    """What a statement does with a prepared statement or a cursor, by name; the empty name stands for all of them.

    `verb` is `prepare`, `execute`, `deallocate`, `declare`, `hold` (a cursor that outlives its transaction), `fetch`,
    `close` or `discard`. The rest is what the statement behind the name does, where this one says it.
    """

    verb: str
    name: str
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    where: str = "n/a"
    whole: tuple[str, ...] = ()
    returning: bool = False
    written: tuple[str, ...] = ()
