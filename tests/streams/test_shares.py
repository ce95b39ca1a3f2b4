"""How much of a table went, by what the WAL counts: the number before, windows that add up, and what is no share."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collectors.posture.sizes import Sizes
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Count, Ddl, DdlObject, Posture, Raw, RawEvent, Relation, Row, Unpublished
from streams.fold.fold import Fold
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement
from tests.streams.records import IDENTITIES, SECOND_US, START_US, batch, beacon, read, transaction

TABLE = "public.orders"
PACKAGED = Bundle.packaged()
HOUR_S, DAY_S = 3_600, 86_400


class Stream:
    """A fold of one cluster with the judge behind it; `size` and `did` take seconds since the start."""

    def __init__(self) -> None:
        self.fold = Fold(3, Rules.parse(IDENTITIES), 0)
        self.judge = Judge(PACKAGED, labels={}, behaviour=None)
        self.lsn = 0
        self.told: list[dict[str, Any]] = []
        self.sentences: list[str] = []

    def apply(self, event: RawEvent, source: str = "wal") -> set[str]:
        """Fold an event and judge what comes of it; gives the policies."""
        found: set[str] = set()
        for made in self.fold.apply(self.fold.next_offset, read(batch(event, source=source))):
            shares: Any = made.detail.get("shares", [])
            self.told += shares
            verdict = self.judge.judge(made)
            found |= set(verdict.policies)
            self.sentences += [alert.message for alert in verdict.alerts if alert.policy == "most_of_table"]
        return found

    def size(self, rows: int, at_s: float = 0, **fields: Any) -> None:
        """Take a reading of the statistics."""
        at_us = START_US + int(at_s * SECOND_US)
        for event in Sizes().changed("shop", {TABLE: rows}, at_us, at_us):
            self.apply(event, "sessions")

    def did(self, at_s: float, *counts: tuple[str, int], user: str = "p_ada", **fields: Any) -> set[str]:
        """Commit a transaction of these operations and rows."""
        self.lsn += 8
        made = [Count(0, operation, rows) for operation, rows in counts]
        given = {
            "counts": made,
            "n_rows": sum(rows for _, rows in counts),
            "beacons": [beacon(user)],
            "rows": Raw(b"[]"),
        }
        return self.apply(transaction(self.lsn, at_s=at_s, covered=True, **(given | fields))) & {"most_of_table"}

    def update(self, at_s: float, ids: range, user: str = "p_ada") -> set[str]:
        """Update the rows with these ids."""
        updated = [Row(n, "u", 0, Raw(b'{"id":%d}' % i), None, Raw(b"null"), Raw(b"{}")) for n, i in enumerate(ids)]
        return self.did(at_s, ("u", len(ids)), user=user, rows=Raw(msgspec.json.encode(updated)))

    def again(self) -> None:
        """Go on from a checkpoint."""
        self.fold = Fold.restore(self.fold.snapshot(), 0)


@pytest.fixture
def stream() -> Stream:
    """A cluster of whose table 300 rows were counted."""
    made = Stream()
    made.size(300)
    return made


TOLD = {"most_of_table"}


def test_all_rows_are_all_rows_whatever_the_statement(stream: Stream) -> None:
    """Of 300 rows that were counted; the sentence says so, and when they were counted."""
    assert stream.did(60, ("d", 300)) == TOLD
    assert stream.sentences == [
        "p_ada deleted 300 of about 300 rows (14:13) of public.orders, in database shop of cluster shop"
    ]
    assert stream.told[0]["part"] == 1.0


def test_rows_before_are_those_before_the_action(stream: Stream) -> None:
    """The WAL counts on; a reading from after the deed is none of what was there before it."""
    assert stream.did(10, ("i", 900)) == set()
    assert stream.did(20, ("d", 100)) == set()
    stream.size(0, at_s=40)
    assert stream.did(30, ("d", 1_100)) == TOLD
    assert stream.told[-1]["of"] == 1_200
    assert stream.did(50, ("d", 300)) == set()  # more than there can have been: nothing is said


def test_batches_add_up_over_a_day_and_a_month_and_several_names(stream: Stream) -> None:
    """Ten at a time, after a restart too; and a third each by three people."""
    found = [stream.did(60 * n, ("d", 10)) for n in range(1, 11)]
    stream.again()
    found += [stream.did(60 * n, ("d", 10)) for n in range(11, 21)]
    assert found.index(TOLD) == 14
    slow = Stream()
    slow.size(300)
    assert TOLD in [slow.did(DAY_S * n + 60, ("d", 10)) for n in range(20)]
    assert slow.told[-1]["window"] == "30d"
    many = Stream()
    many.size(300)
    assert [many.did(60, ("d", 90), user=f"p_{name}") for name in ("a", "b", "c")] == [set(), TOLD, TOLD]
    assert [told["window"] for told in many.told] == ["transaction", "24h by all", "24h by all"]


def test_values_written_over_count_by_their_keys(stream: Stream) -> None:
    """All rows in batches, or in one; the same ten rows thirty times are ten."""
    assert [stream.update(n, range(10)) for n in range(1, 31)] == [set()] * 30
    assert TOLD in [stream.update(100 + n, range(10 * n, 10 * n + 10)) for n in range(1, 30)]
    assert Stream().update(1, range(300)) == set()  # of nobody knows how many
    replaced = Stream()
    replaced.size(300)
    assert replaced.did(5, ("d", 300), ("i", 300)) == TOLD
    assert replaced.told[0]["replaced"] is True


def test_truncate_takes_what_was_there_less_what_is_there_then(stream: Stream) -> None:
    """A rebuild in one transaction takes nothing, an empty table has nothing to lose."""
    assert stream.did(10, ("t", 1), ("i", 300)) == set()
    assert stream.did(20, ("t", 1)) == TOLD
    assert "mass_change" not in stream.apply(
        transaction(800, at_s=30, covered=True, beacons=[beacon("p_ada")], counts=[Count(0, "t", 1)])
    )


def test_parts_of_a_transaction_are_one(stream: Stream) -> None:
    """What the first part took is told with the last."""
    first = {"first": 0, "last": False, "part": 0}
    assert stream.did(60, ("d", 200), **first) == set()
    stream.lsn -= 8
    assert stream.did(60, ("d", 100), first=300, part=1) == TOLD


def test_queues_and_daily_jobs_are_left_alone(stream: Stream) -> None:
    """Rows that come to go; a table made before our eyes and emptied again; an expiry after three days."""
    queue = Stream()
    queue.size(40)
    for n in range(1, 200):
        assert queue.did(n, ("i", 20), user="app") == set()
        assert queue.did(n + 0.5, ("d", 20), user="app") == set()
    assert queue.did(DAY_S, ("i", 5_000), user="app") == queue.did(DAY_S + 60, ("d", 5_030), user="app") == set()
    daily = []
    for day in range(6):
        stream.size(300, at_s=DAY_S * day + 1)
        daily.append(stream.did(DAY_S * day + 7_200, ("d", 200), user="app"))
    assert daily == [TOLD, TOLD, TOLD, set(), set(), set()]


def test_a_table_that_was_made_before_our_eyes_begins_empty() -> None:
    """Then the WAL alone counts; TRUNCATE of a staging table is nothing, of what it was filled with it is."""
    stream = Stream()
    made = Ddl(0, 0, "CREATE TABLE", beacon("p_ada"), objects=[DdlObject("table", TABLE, TABLE)], objects_total=1)
    assert stream.did(1, ("t", 1), ddl=[made]) == set()
    assert stream.did(2, ("i", 5_000)) == set()
    assert stream.did(3, ("d", 5_000)) == TOLD


def test_sizes_are_sent_when_they_have_changed() -> None:
    """And again from the beginning when they are asked for."""
    sizes = Sizes()

    def sent(rows: dict[str, int]) -> list[object]:
        return [(event.after or {})["rows"] for event in sizes.changed("shop", rows, 1, 2)]

    assert sent({"public.a": 1, "public.b": 2}) == [{"public.a": 1, "public.b": 2}]
    assert sent({"public.a": 1, "public.b": 3}) == [{"public.b": 3}]
    assert sent({"public.a": 1}) == []
    assert sent({"public.a": 1, "public.b": 3}) == [{"public.b": 3}]
    sizes.again()
    assert sent({"public.a": 1}) == [{"public.a": 1}]
    assert isinstance(next(sizes.changed("shop", {"public.c": 1}, 1, 2)), Posture)


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("ALTER TABLE orders RENAME TO x", "public.x"),
        ("ALTER TABLE public.orders SET SCHEMA attic", "attic.orders"),
        ("DO $1", "public.x"),
    ],
)
def test_another_name_hides_nothing(stream: Stream, text: str, now: str) -> None:
    """The rows that were counted under the name before count, and so does what was deleted before it was renamed."""
    stream.did(1, ("d", 140))
    made = Ddl(
        0, 0, "ALTER TABLE", beacon("p_ada"), [DdlObject("table", now, now)], objects_total=1,
        statement=text, relations=["orders"],
    )  # fmt: skip
    stream.did(2, ddl=[made])
    stream.again()
    assert stream.did(3, ("d", 20), relations=[Relation(now, ["id"])]) == TOLD
    assert stream.told[-1]["relation"] == now
    assert (stream.told[-1]["rows"], stream.told[-1]["of"]) == (160, 300)


def test_what_is_published_is_judged_by_its_effect(stream: Stream) -> None:
    """From the snapshot that says so on, before anything was written to it, until it is taken out."""

    def published(before: list[str] | None, after: list[str]) -> Posture:
        both = {"update": True, "delete": True}
        return Posture(
            captured_at_us=START_US, object_type="publication", name="pgwitness", database="shop",
            change="found" if before is None else "changed",
            before=None if before is None else {"tables": before, **both}, after={"tables": after, **both},
        )  # fmt: skip

    def by_effect(place: int) -> list[object]:
        line = statement(place, statement=f"TRUNCATE {TABLE}", outcome="success")
        made = stream.fold.apply(stream.fold.next_offset, read(batch(line, source="log")))
        return [event.detail.get("by_effect") for event in made]

    assert by_effect(1) == [None]
    stream.apply(published(None, [TABLE]), "sessions")
    assert by_effect(2) == [True]
    stream.again()
    assert by_effect(3) == [True]
    stream.apply(published([TABLE], ["public.other"]), "sessions")
    assert by_effect(4) == [None]


def test_who_truncates_a_partition_has_not_emptied_the_table_it_is_of(stream: Stream) -> None:
    """The sentence names what was emptied; the evidence names the table, too."""
    leaf = Unpublished(TABLE, 7, truncated=True, published=True, partition="public.orders_2025")
    stream.lsn += 8
    raw = transaction(stream.lsn, n_rows=0, counts=[], beacons=[beacon("p_ada")], unpublished=[leaf])
    made = stream.fold.apply(stream.fold.next_offset, read(batch(raw)))
    assert [event.relations for event in made if event.counts] == [[TABLE, "public.orders_2025"]]
    said = {alert.policy: alert.message for event in made for alert in stream.judge.judge(event).alerts}
    assert said["unpublished"].startswith("p_ada emptied public.orders_2025 in database shop")
    assert said["mass_change"].startswith("p_ada emptied public.orders_2025 in one transaction")


def test_a_name_that_only_a_snapshot_shows_takes_the_rows_along(stream: Stream) -> None:
    """Where a text was put together at run time; what was counted under the new name already holds."""
    after: dict[str, object] = {"renamed_from": TABLE}
    renamed = Posture(
        captured_at_us=START_US, object_type="table", name="public.x", change="changed", database="shop", after=after
    )
    stream.apply(renamed, "sessions")
    assert stream.did(3, ("d", 200), relations=[Relation("public.x", ["id"])]) == TOLD
    assert (stream.told[-1]["rows"], stream.told[-1]["of"]) == (200, 300)


@pytest.mark.parametrize("named", [True, False])
def test_a_table_that_is_attached_counts_with_the_one_above(stream: Stream, named: bool) -> None:
    """Whoever puts a table below an empty one and deletes there has deleted its rows, however it was named."""
    above, names = "public.every_order", [Relation("public.every_order", ["id"])]
    stream.did(0.5, relations=[Relation(TABLE, ["id"])])
    for at_s, tag, text, objects in (
        (1, "CREATE TABLE", "CREATE TABLE every_order (LIKE orders) PARTITION BY RANGE (id)", [above]),
        (2, "ALTER TABLE", "ALTER TABLE every_order ATTACH PARTITION orders DEFAULT", [above, TABLE][: 1 + named]),
    ):
        items = [DdlObject("table", name, name) for name in objects]
        made = Ddl(
            0, 0, tag, beacon("p_ada"), items, objects_total=len(items), statement=text, path=["ada", "public"]
        )  # fmt: skip
        stream.did(at_s, ddl=[made], relations=names)
    assert stream.did(3, ("d", 300), relations=names) == TOLD
    assert (stream.told[-1]["rows"], stream.told[-1]["of"]) == (300, 300)


def test_what_a_beacon_counts_of_a_table_that_is_not_published_is_a_share_too(stream: Stream) -> None:
    """A table without a key yet is emptied: how much it was is known; a part of it, or rows updated, is no share."""

    def did(at_s: float, **numbers: int) -> set[str]:
        item = Unpublished(TABLE, 7, expected=True, **numbers)
        return stream.did(at_s, n_rows=0, counts=[], unpublished=[item])

    assert did(5, updated=300) == set()
    assert did(10, deleted=40) == set()
    assert did(20, deleted=260) == {"most_of_table"}
    assert stream.sentences[-1].startswith("p_ada deleted 300 of about 300 rows")
