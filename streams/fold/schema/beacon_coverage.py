"""Which commands of a transaction are pgwitness's own: the beacon that a new table gets where it is made. Pure.

`pgwitness.cover` (collectors/installation/sql/ddl_templates.py) runs them inside the event trigger of the command that
made the table, so they are the client's in everything that is known of them. What is picked out here is exactly what it
runs, directly behind that command and under its statement, for each new table once. Whoever else does the same has done
nothing but to a table of their own that is reported already.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgwitness.core.events import Ddl
from streams.fold.events.ddl import BEACON

MAKES = ("CREATE TABLE", "CREATE TABLE AS", "SELECT INTO")
PUBLICATION = "pgwitness"


def coverage_commands(commands: Iterable[Ddl]) -> frozenset[int]:
    """Return the numbers of the commands that put the beacon on new tables."""
    found: set[int] = set()
    made: Ddl | None = None
    waiting: set[str] = set()
    table, after = "", ""
    for command in commands:
        what = command.objects[0].identity if len(command.objects) == command.objects_total == 1 else ""
        ours = made is not None and (command.statement, command.statement_sha256, command.beacon) == (
            made.statement, made.statement_sha256, made.beacon,
        )  # fmt: skip
        named = what.removeprefix(BEACON)
        if ours and command.tag == "CREATE TRIGGER" and named != what and named in waiting:
            table, after = named, "ALTER TABLE"
            waiting.remove(named)
        elif ours and command.tag == after == "ALTER TABLE" and what == table:
            after = "ALTER PUBLICATION"
        elif ours and command.tag == after == "ALTER PUBLICATION" and _published(what, table):
            after = ""
        else:
            made, after = (command, "") if command.tag in MAKES else (None, "")
            waiting = {item.identity for item in command.objects if item.type == "table"}
            continue
        found.add(command.number)
    return frozenset(found)


def _published(what: str, table: str) -> bool:
    return what.startswith(f"{table} in publication {PUBLICATION}")
