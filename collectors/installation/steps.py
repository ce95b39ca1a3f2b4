"""The words of a plan: what the operator asked for, and one statement of what is to be done; pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from msgspec import Struct

from collectors.installation.catalogue import Table

LAST = "last"
"""The group that is run only when something was done before it."""


class Options(Struct, frozen=True, kw_only=True):
    """What the operator asked for.

    `tables` are globs over `schema.table`; one without a dot means that table in any schema. `role` is the
    collectors' login role. A lock is waited for `lock_timeout_ms` at most, and a table tried `attempts` times. A
    removal waits `wait_ms` at most for transactions that are older than it. `statistics` names the databases in which
    statistics are read, None for every one: elsewhere their extension would only stand in the application's dumps.
    """

    tables: tuple[str, ...] = ("*",)
    role: str = "pgwitness"
    lock_timeout_ms: int = 2_000
    attempts: int = 3
    wait_ms: int = 30_000
    statistics: tuple[str, ...] | None = None

    def chosen(self, table: Table) -> bool:
        """Say whether the globs choose a table; a partition goes with its root."""
        names = [f"{table.schema}.{table.name}", table.qualified, *([table.root] if table.root else [])]
        return wants(self.tables, names)


def wants(globs: Iterable[str], names: Iterable[str]) -> bool:
    """Say whether globs choose a table by one of its names; one that begins with `!` leaves out what it matches."""

    def matches(glob: str) -> bool:
        return any(fnmatchcase(name, glob if "." in glob else f"*.{glob}") for name in names)

    globs, names = list(globs), list(names)
    return any(matches(glob) for glob in globs if glob[:1] != "!") and not any(
        matches(glob[1:]) for glob in globs if glob[:1] == "!"
    )


class Statement(Struct, frozen=True):
    """One statement of a plan: its SQL, the transaction (`group`) it belongs to, the table it locks and why it is.

    An `optional` one may be denied to who installs: the rest goes on without it (`level` says what that costs).
    """

    sql: str
    group: str
    why: str
    table: str | None = None
    optional: bool = False
