"""What is published less than before is a gap unless it was announced: by values, and on real servers."""

from __future__ import annotations

import pytest

from collectors.installation.install import install
from collectors.wal.database.listing import Listing
from collectors.wal.database.publication_watch import Watch, lost
from pgwitness.core.errors import Retry
from pgwitness.core.events import Event, Gap, Tick, Transaction
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, job_rests
from tests.streams.folding import fold_all
from tests.streams.records import batch

WHOLE = Listing("iudt", "postgres", tables={1: "public.a", 2: "public.b"})
THERE = frozenset({1, 2, 3})


@pytest.mark.parametrize(
    ("now", "tables"),
    [
        (Listing("iudt", "postgres", tables={1: "public.a", 2: "public.b", 3: "public.c"}), None),
        (Listing("iudt", "postgres", tables={1: "public.renamed", 2: "public.b"}), None),
        (Listing("iudt", "postgres", tables={1: "public.a"}), ["public.b"]),
        (Listing("i", "postgres", tables=WHOLE.tables), ["public.a", "public.b"]),
        (Listing("iudt", "eve", tables=WHOLE.tables), ["public.a", "public.b"]),
        (Listing("iudt", "postgres", via_root=False, tables=WHOLE.tables), ["public.a", "public.b"]),
        (Listing("iudt", "postgres", tables=WHOLE.tables, restricted=[2]), ["public.b"]),
        (None, ["public.a", "public.b"]),
    ],
)
def test_what_is_published_less_is_named(now: Listing | None, tables: list[str] | None) -> None:
    """Tables taken out or restricted, options, the owner, the whole; what comes in or is renamed is nothing."""
    found = lost({"pgwitness": WHOLE}, {} if now is None else {"pgwitness": now}, THERE)
    assert (None if found is None else found["tables"]) == tables


def test_a_table_that_was_dropped_is_not_missed() -> None:
    """And a publication of all tables lists none."""
    now = {"pgwitness": Listing("iudt", "postgres", tables={1: "public.a"})}
    assert lost({"pgwitness": WHOLE}, now, frozenset({1})) is None
    every = Listing("it", "postgres", all_tables=True)
    assert lost({"p": every}, {"p": every}, THERE) is None
    assert lost({"p": Listing("it", "postgres", tables={1: "public.a"})}, {"p": every}, THERE) is None
    assert lost({"p": every}, {"p": Listing("it", "postgres", tables={1: "public.a"})}, THERE) is not None


def look(watch: Watch, *, end: int, passed: int, less: bool) -> list[str]:
    """Take a look, and give the reasons of what it tells."""
    now = {"pgwitness": Listing("i", "postgres") if less else WHOLE}
    gaps = watch.look(now, THERE, end_lsn=end, passed_lsn=passed, database="shop", now_us=1)
    return [f"{gap.reason} {gap.detail['from_lsn']} {gap.detail['to_lsn']}" for gap in gaps]


def test_a_change_is_told_once_the_stream_has_passed_it() -> None:
    """By then whoever announced it has been heard, before the look or after it; what is remembered counts too."""
    for announced, when in ((None, ""), (15, "before"), (15, "after"), (22, "after"), (3, "long before")):
        watch = Watch({"pgwitness": WHOLE})
        if when == "long before":
            watch.announced(3)
        for end in (6, 8, 10):
            assert look(watch, end=end, passed=5, less=False) == []
        if announced is not None and when == "before":
            watch.announced(announced)
        assert look(watch, end=20, passed=9, less=True) == []
        assert look(watch, end=25, passed=19, less=True) == []
        if announced is not None and when == "after":
            watch.announced(announced)
        told = [] if announced == 15 else ["publication_changed 0/A 0/14"]
        assert look(watch, end=30, passed=20, less=True) == told
        assert look(watch, end=40, passed=40, less=True) == []
    watch = Watch({"pgwitness": WHOLE})
    assert look(watch, end=10, passed=0, less=True) == []
    assert look(watch, end=20, passed=10, less=True) == ["publication_changed 0/0 0/A"]


CHANGES = [
    "ALTER PUBLICATION pgwitness DROP TABLE pay",
    "ALTER PUBLICATION pgwitness ADD TABLE pay (id)",
    "ALTER PUBLICATION pgwitness SET (publish = 'insert')",
    "ALTER PUBLICATION pgwitness SET (publish_via_partition_root = false)",
    "ALTER PUBLICATION pgwitness OWNER TO eve",
]


def test_whoever_changes_what_is_published_is_named(source: Source) -> None:
    """At once by the command itself, with its session; and by comparing, where no command was told."""
    source.create("CREATE TABLE pay (id int PRIMARY KEY, v int)", MARK, "CREATE ROLE eve SUPERUSER LOGIN")
    raw = source.bench.raw
    # The job would put the tables back into the publication in the midst of it.
    with job_rests(), source.running():
        source.streaming()
        source.until_marked()
        for statement in CHANGES:
            source.sql.execute(statement.encode())
        source.sql.execute("DROP TABLE pay")
        raw.wait(lambda: len(raw.of(Gap)) >= 1, "the gap")
        source.sql.execute("ALTER EVENT TRIGGER pgwitness_ddl DISABLE")
        source.sql.execute("ALTER EVENT TRIGGER pgwitness_drop DISABLE")
        wait_for(lambda: source.confirmed() > 0, 5, "a confirmed position")
        source.sql.execute("ALTER PUBLICATION pgwitness DROP TABLE mark")
        only = ["public.mark"]
        raw.wait(lambda: any(gap.detail["tables"] == only for gap in raw.of(Gap)), "the gap of the comparison")
    assert {gap.reason for gap in raw.of(Gap)} == {"publication_changed"}
    named = [event for event in folded(raw.of(Transaction)) if event.operation == "publication_changed"]
    assert [event.statement for event in named] == [
        "ALTER PUBLICATION pgwitness DROP TABLE pay",
        "ALTER PUBLICATION pgwitness SET (publish = $1)",
        "ALTER PUBLICATION pgwitness SET (publish_via_partition_root = false)",
        "ALTER PUBLICATION pgwitness OWNER TO eve",
    ]
    assert {(event.principal, event.certainty) for event in named} == {("postgres", "exact")}
    assert named[0].relations == ["public.pay"]


def test_a_publication_that_is_made_again_is_read_again(source: Source) -> None:
    """A stream has the publications it began with: it begins anew, and what is written then is read."""
    source.create("CREATE TABLE pay (id int PRIMARY KEY, v int)", MARK, "INSERT INTO pay VALUES (1, 0)")
    raw = source.bench.raw
    with source.running() as raised:
        source.streaming()
        source.until_marked()
        source.sql.execute("DROP PUBLICATION pgwitness")
        raw.wait(lambda: bool(raw.of(Gap)) or bool(raised), "the gap")
        assert [gap.reason for gap in raw.of(Gap)] == ["publication_changed"]
    with source.running() as raised:
        source.streaming()
        install(source.sql)
        raw.wait(lambda: bool(raised), "the stream to begin anew")
    assert [type(error) for error in raised] == [Retry]
    with source.running():
        source.streaming()
        until = len(raw.of(Transaction))
        source.sql.execute("UPDATE pay SET v = 1")
        raw.wait(lambda: any(part.n_rows for part in raw.of(Transaction)[until:]), "the row")


def folded(transactions: list[Transaction]) -> list[Event]:
    """Fold what the collector wrote."""
    later = Tick(captured_at_us=max(t.captured_at_us for t in transactions) + 60_000_000)
    return fold_all([batch(*transactions), batch(later)], "rules: [{match: {role: '*'}, principal: '{role}'}]")
