"""Which commands take something out of our publications: what they listed is not read from there on. Pure.

What an installation, the collector's job or our event triggers do is announced in the same transaction, by a message
that verifies (`Transaction.announced`), and is no finding. Additions are none either: what comes in with a condition or
without all of its columns is found by the collector, which compares the catalogue with what it was.
"""

from __future__ import annotations

from pgwitness.core.events import Ddl

OURS = ("pgwitness", "pgwitness_inserts")
UNREAD = "table_unread"
"""The reason of the gap where a client's own DDL takes a table out: SET UNLOGGED, an identity that cannot be used."""
_IN = " in publication "
_TAGS = ("ALTER PUBLICATION", "DROP PUBLICATION", "DROP OWNED")


def taken_out(command: Ddl) -> tuple[list[str], list[str]] | None:
    """Return the publications that a command lessened and the tables that it took out; None where it did not.

    Without a table it is the publication itself: dropped, or given other options or another owner. A table that is
    dropped leaves its publications, which says nothing.
    """
    if command.tag not in _TAGS:
        return None
    gone = {item.identity for item in command.dropped if item.type == "table"}
    publications: list[str] = []
    tables: list[str] = []
    for item in command.dropped:
        table, found, publication = item.identity.rpartition(_IN)
        if found and publication in OURS and (item.relation or table) not in gone:
            publications.append(publication)
            tables.append(item.relation or table)
    both = (*command.dropped, *command.objects)
    publications += [item.identity for item in both if item.type == "publication" and item.identity in OURS]
    return (list(dict.fromkeys(publications)), list(dict.fromkeys(tables))) if publications else None


def within(command: Ddl, others: list[Ddl]) -> bool:
    """Return whether our event triggers ran a command inside a client's own, which is of the same session and text."""
    return any(
        other.tag not in _TAGS
        and other.tag.endswith(" TABLE")
        and (other.statement, other.statement_sha256, other.beacon)
        == (command.statement, command.statement_sha256, command.beacon)
        for other in others
    )
