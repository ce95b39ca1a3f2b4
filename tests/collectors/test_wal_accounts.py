"""When a beacon and the stream disagree, by values: what is told, and what has an ordinary reason."""

from __future__ import annotations

from collectors.wal.assembly.coming import LASTS_US
from collectors.wal.assembly.unpublished import ACCOUNTS_MAX, KEPT_US, Accounts, Listed
from pgwitness.core.events import Beacon, Ddl, DdlObject, Unpublished, Wrote

TABLE, LEAF, ROOT, KEYLESS, GONE, TEMPORARY = 1, 2, 3, 4, 5, 6
CATALOGUE = {
    TABLE: Listed(TABLE, "public.t", "iudt"),
    LEAF: Listed(ROOT, "public.root", "iud", "public.leaf"),
    ROOT: Listed(ROOT, "public.root", "iudt"),
    KEYLESS: Listed(KEYLESS, "public.keyless", "it", partly=True),
    TEMPORARY: Listed(TEMPORARY, "pg_temp_3.x", "", temporary=True),
}
Rows = tuple[int, int, int, int]


def accounts() -> Accounts:
    """Make accounts over a small catalogue."""
    return Accounts(lambda oid: CATALOGUE.get(oid, Listed(oid)))


def ends(
    kept: Accounts, *wrote: tuple[int, str, int, int, int], seen: dict[int, Rows] | None = None, at_us: int = 0
) -> list[Unpublished]:
    """Run one transaction through: what its beacons said, and what rows the stream has of it."""
    kept.begin()
    for said in wrote:
        kept.spoke(Beacon("app", "app", 7, 8, 9, wrote=Wrote(*said)))
    for oid, rows in (seen or {}).items():
        kept.saw(oid, *rows)
    return kept.ends(at_us)


def short(found: list[Unpublished]) -> list[tuple[str, int, int, int, bool, bool | None]]:
    """Give the facts of what is missing."""
    return [(u.relation, u.inserted, u.updated, u.deleted, u.truncated, u.published) for u in found]


def test_rows_that_are_there_are_none_that_are_missing() -> None:
    """A beacon whose rows are in the stream says nothing new, under the root's name too."""
    assert ends(accounts(), (TABLE, "UPDATE", 0, 3, 0), seen={TABLE: (0, 3, 0, 0)}) == []
    assert ends(accounts(), (LEAF, "INSERT", 3, 0, 0), seen={ROOT: (3, 0, 0, 0)}) == []
    assert ends(accounts(), (TABLE, "UPDATE", 0, 2, 0), seen={TABLE: (2, 0, 2, 0)}) == []
    assert ends(accounts(), (TABLE, "TRUNCATE", 0, 0, 0), seen={TABLE: (0, 0, 0, 1)}) == []
    assert ends(accounts(), (LEAF, "TRUNCATE", 0, 0, 0), seen={ROOT: (0, 0, 0, 1)}) == []


def test_a_statement_without_effect_changed_nothing() -> None:
    """A trigger fires for a statement that changes nothing, too."""
    assert ends(accounts(), (TABLE, "UPDATE", 0, 0, 0)) == []
    assert ends(accounts(), (ROOT, "INSERT", 0, 0, 0)) == []


def test_rows_that_are_not_there_are_told() -> None:
    """By statement and number; what the catalogue says now goes with it, and a table that is gone has its OID."""
    assert short(ends(accounts(), (TABLE, "DELETE", 0, 0, 9))) == [("public.t", 0, 0, 9, False, True)]
    assert short(ends(accounts(), (KEYLESS, "UPDATE", 0, 2, 0))) == [("public.keyless", 0, 2, 0, False, False)]
    assert short(ends(accounts(), (GONE, "UPDATE", 0, 2, 0))) == [("5", 0, 2, 0, False, None)]
    assert ends(accounts(), (TEMPORARY, "UPDATE", 0, 2, 0)) == []


def test_a_truncate_is_told_although_rows_of_its_table_are_there() -> None:
    """A partition truncated by its own name is not in the stream, whatever else of its root is."""
    (found,) = ends(accounts(), (LEAF, "TRUNCATE", 0, 0, 0), seen={ROOT: (5, 0, 0, 0)})
    assert (found.relation, found.partition, found.truncated, found.expected) == (
        "public.root",
        "public.leaf",
        True,
        False,
    )


def test_numbers_of_the_transactions_before_are_taken_off() -> None:
    """PostgreSQL keeps a session's numbers for a while: what the stream had of it explains them, for as long."""
    kept = accounts()
    assert ends(kept, (TABLE, "UPDATE", 0, 4, 0), seen={TABLE: (0, 4, 0, 0)}) == []
    assert ends(kept, (TABLE, "UPDATE", 0, 4, 0), at_us=1) == []
    assert short(ends(kept, (TABLE, "UPDATE", 0, 6, 0), at_us=2)) == [("public.t", 0, 2, 0, False, True)]
    assert ends(kept, (TABLE, "UPDATE", 0, 6, 0), at_us=3) == []
    assert short(ends(kept, (TABLE, "UPDATE", 0, 6, 0), at_us=3 * KEPT_US)) == [("public.t", 0, 6, 0, False, True)]


def test_where_some_rows_are_there_only_the_catalogue_makes_others_missing() -> None:
    """A number too large beside rows that are published may be a rolled back savepoint's; not of what never is."""
    assert ends(accounts(), (TABLE, "UPDATE", 3, 9, 0), seen={TABLE: (0, 4, 0, 0)}) == []
    found = ends(accounts(), (KEYLESS, "INSERT", 2, 0, 0), (KEYLESS, "UPDATE", 2, 5, 0), seen={KEYLESS: (2, 0, 0, 0)})
    assert short(found) == [("public.keyless", 0, 5, 0, False, False)]
    assert found[0].expected


def test_a_partition_that_has_left_its_root_since_was_read_under_it() -> None:
    """The catalogue is asked later than the row was written; what the stream has of the old root explains as much."""
    kept = accounts()
    kept.partitions({TABLE: ROOT})
    assert ends(kept, (TABLE, "UPDATE", 0, 5, 0), seen={ROOT: (0, 5, 0, 0)}) == []
    assert short(ends(kept, (TABLE, "UPDATE", 0, 5, 0), seen={ROOT: (0, 4, 0, 0)}, at_us=3 * KEPT_US)) == [
        ("public.t", 0, 5, 0, False, True)
    ]
    assert len(ends(kept, (TABLE, "TRUNCATE", 0, 0, 0), seen={ROOT: (0, 5, 0, 0)}, at_us=9 * KEPT_US)) == 1


def test_accounts_are_bounded() -> None:
    """Sessions come and go without end."""
    kept = accounts()
    for oid in range(100, 100 + ACCOUNTS_MAX + 500):
        ends(kept, (oid, "INSERT", 1, 0, 0), seen={oid: (1, 0, 0, 0)})
    assert len(kept._accounts) <= ACCOUNTS_MAX


def test_a_table_that_is_still_to_come_into_the_publication_is_no_hidden_one() -> None:
    """What was made a moment ago is read for updates once the job lists it, whatever the catalogue says when asked.

    Not so for its inserts, for TRUNCATE, after it was listed, after a minute, or for a table that was there before.
    """

    def command(tag: str, made: DdlObject, xid: int = 9) -> Ddl:
        return Ddl(number=0, ordinal=0, tag=tag, beacon=Beacon("app", "app", 7, 8, xid), objects=[made])

    def expected(*wrote: tuple[int, str, int, int, int], at_us: int = 1) -> list[tuple[str, bool]]:
        return [(item.relation, item.expected) for item in ends(kept, *wrote, at_us=at_us)]

    updated, gone = (TABLE, "UPDATE", 0, 3, 0), (GONE, "DELETE", 0, 0, 2)
    kept = accounts()
    assert expected(updated, gone) == [("public.t", False), ("5", False)]
    kept = accounts()
    for oid, name in ((TABLE, "public.t"), (GONE, "public.gone")):
        kept.coming.described(oid, name)
        kept.coming.ddl(command("CREATE TABLE", DdlObject("table", name, name)), 0)
    assert expected(updated, gone) == [("public.t", True), ("public.gone", True)]
    assert expected((TABLE, "INSERT", 4, 0, 0), (GONE, "TRUNCATE", 0, 0, 0)) == [
        ("public.t", False),
        ("public.gone", False),
    ]
    assert expected((GONE, "DELETE", 0, 0, 9), at_us=LASTS_US) == [("public.gone", False)]
    kept.coming.ddl(command("CREATE TABLE", DdlObject("table", "public.t", "public.t")), 0)
    listed = DdlObject("publication relation", "public.t in publication pgwitness", "public.t")
    kept.coming.ddl(command("ALTER PUBLICATION", listed), 1)
    assert expected((TABLE, "UPDATE", 0, 50, 0), at_us=2) == [("public.t", False)]
    kept.coming.ddl(command("CREATE TABLE", DdlObject("table", "public.t", "public.t")), 0)
    kept.coming.ddl(command("ALTER PUBLICATION", listed, xid=10), 1)
    assert expected((TABLE, "UPDATE", 0, 500, 0), at_us=2) == [("public.t", True)], "it was open when that was done"
