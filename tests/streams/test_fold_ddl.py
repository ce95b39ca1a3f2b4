"""DDL through the fold: who did it, what it left behind, and that others who saw it too do not say it again."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pgwitness.core.events import Beacon, Control, Ddl, DdlObject, Event, Posture, QueryStats, Tick
from streams.fold.fold import Fold
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement as log_line
from tests.streams.records import BACKEND_US, IDENTITIES, SECOND_US, START_US, batch, beacon, read, transaction

TABLE = DdlObject("table", "public.orders", "public.orders")
TRIGGER = DdlObject("trigger", "pgwitness_beacon on public.orders", "public.orders")


def fold() -> Fold:
    """Make a fold with the tests' identities."""
    return Fold(0, Rules.parse(IDENTITIES), 2 * SECOND_US)


def command(number: int = 0, tag: str = "ALTER TABLE", who: Beacon | None = None, **fields: Any) -> Ddl:
    """Make a command."""
    return Ddl(number=number, ordinal=0, tag=tag, beacon=who or beacon("p_ann"), **fields)


def drop(number: int = 0) -> Ddl:
    """Make the drop of a table."""
    return command(number, "DROP TABLE", dropped=[TABLE, TRIGGER], dropped_total=2, statement="DROP TABLE orders")


def statistics(calls: int, *, role: str = "p_ann", statement: str = "DROP TABLE orders", at_s: int = 10) -> QueryStats:
    """Make what statistics say."""
    at_us = START_US + at_s * SECOND_US
    return QueryStats(
        captured_at_us=at_us,
        window_start_us=at_us - 10 * SECOND_US,
        window_end_us=at_us,
        database="shop",
        role=role,
        query_id=1,
        statement=statement,
        calls=calls,
        rows=0,
        total_ms=1.0,
    )


def apply(made: Fold, *events: Any) -> list[Event]:
    """Send events as one record."""
    return made.apply(made.next_offset, read(batch(*events)))


def test_ddl_alone_is_attributed_exactly() -> None:
    """A transaction of DDL only gives one event per command, exact, named, with what it dropped; and no change."""
    (event,) = apply(fold(), transaction(100, n_rows=0, ddl=[drop()]))
    assert (event.kind, event.operation, event.relations) == ("ddl", "DROP TABLE", ["public.orders"])
    assert (event.principal, event.binding, event.certainty) == ("p_ann", "beacon", "exact")
    assert (event.role, event.session_id, event.lsn) == ("p_ann", f"db:5432/{BACKEND_US // SECOND_US:x}.29", 100)
    assert event.detail["dropped"] == [
        {"type": "table", "name": "public.orders"},
        {"type": "trigger", "name": "pgwitness_beacon on public.orders"},
    ]
    assert "beacon_off" not in event.detail
    assert event.statement == "DROP TABLE orders"


def test_a_transaction_sent_again_gives_no_second_event() -> None:
    """Commands are told once, whatever is sent again, also part by part, and their ids stay the same."""
    made = fold()
    part = transaction(100, n_rows=2, last=False, ddl=[command(0)])
    rest = transaction(100, n_rows=1, first=2, part=1, ddl=[command(1), command(2)])
    events = [*apply(made, part), *apply(made, part, rest), *apply(made, part, rest)]
    ids = [event.event_id for event in events if event.kind == "ddl"]
    assert len(ids) == len(set(ids)) == 3
    again = fold()
    assert [e.event_id for e in apply(again, part, rest) if e.kind == "ddl"] == ids


def test_who_switched_the_beacon_off_and_wrote_is_named() -> None:
    """The command that left a table without its beacon lists it; rows written under it are the same session's."""
    off = command(objects=[DdlObject("table", "public.orders", "public.orders", "D")], objects_total=1)
    told, change = apply(fold(), transaction(100, covered=True, ddl=[off]))
    assert told.detail["beacon_off"] == ["public.orders"]
    assert (change.kind, change.principal, change.certainty) == ("change", "p_ann", "exact")
    assert change.detail["finding"] == "beacon_missing"


def test_a_dropped_trigger_is_off_and_a_dropped_table_is_not() -> None:
    """A beacon that goes with its table is no finding; one that goes alone is; making one is not."""
    (event,) = apply(fold(), transaction(100, n_rows=0, ddl=[command(dropped=[TRIGGER], dropped_total=1)]))
    assert event.detail["beacon_off"] == ["public.orders"]
    made = command(0, "CREATE TRIGGER", objects=[DdlObject("trigger", "x", "public.orders", "O")], objects_total=1)
    (event,) = apply(fold(), transaction(100, n_rows=0, ddl=[made]))
    assert "beacon_off" not in event.detail


def test_statistics_of_what_was_reported_are_marked() -> None:
    """What pg_stat_statements says of a statement is marked as often as DDL told it, per role, and no oftener."""
    made = fold()
    apply(made, transaction(100, n_rows=0, ddl=[drop()]), transaction(101, n_rows=0, ddl=[drop()]))
    (other,) = apply(made, statistics(1, role="app"))
    (once,) = apply(made, statistics(1))
    (twice,) = apply(made, statistics(2, at_s=20))
    (last,) = apply(made, statistics(1, at_s=30))
    assert [e.detail.get("seen_as") for e in (other, once, twice, last)] == [None, "ddl", None, "ddl"]


def trigger(enabled: str, at_s: int = 0) -> Posture:
    """What a snapshot says of the event trigger that tells of commands."""
    after = {"event": "ddl_command_end", "enabled": enabled, "active": True, "function": "pgwitness.ddl"}
    return Posture(
        captured_at_us=START_US + at_s * SECOND_US, object_type="event_trigger", name="pgwitness_ddl", change="found",
        database="shop", after=after,
    )  # fmt: skip


def test_the_first_command_of_a_database_has_one_alert_too() -> None:
    """Its line of the log may come before its message: a snapshot has said whether there will be one."""
    line = log_line(5, role="p_ann", statement="DROP TABLE orders", pid=7)
    for snapshots, seen in (
        ([trigger("always")], "ddl"),
        ([trigger("always"), trigger("disabled", 1)], None),
        ([], None),
    ):
        made = fold()
        events = apply(made, *snapshots, replace(line, captured_at_us=START_US + 2 * SECOND_US))
        events += apply(made, transaction(100, n_rows=0, ddl=[drop()]))
        (statement,) = [event for event in events if event.kind == "statement"]
        assert statement.detail.get("seen_as") == seen


def test_snapshots_of_what_was_reported_are_marked() -> None:
    """A table that snapshots miss is marked once after its drop was told, and a beacon after it was switched off."""
    gone = Posture(
        captured_at_us=START_US, object_type="table", name="public.orders", change="removed", database="shop"
    )
    quiet = Posture(
        captured_at_us=START_US,
        object_type="trigger",
        name="public.orders.pgwitness_beacon",
        change="changed",
        database="shop",
        before={"relation": "public.orders"},
        after={"relation": "public.orders"},
    )
    made = fold()
    off = command(1, objects=[DdlObject("table", "public.orders", "public.orders", "D")], objects_total=1)
    events = apply(
        made,
        transaction(100, n_rows=0, ddl=[drop(), off]),
        gone,
        quiet,
        replace(gone, captured_at_us=gone.captured_at_us - 1),
        replace(quiet, captured_at_us=quiet.captured_at_us - 1),
    )
    assert [e.detail.get("seen_as") for e in events[2:]] == ["ddl", "ddl", None, None]


def test_what_a_removal_announced_and_proved_is_its_own() -> None:
    """Once an uninstallation has spoken and its session has shown its code, what is missing of pgwitness is its doing.

    Without the code, which takes the installation's key, it is somebody's; so it is before the announcement, after
    another installation, and of whatever is not pgwitness's.
    """

    def missing(at_s: int, name: str = "pgwitness_ddl", kind: str = "event_trigger") -> Posture:
        at_us = START_US + at_s * SECOND_US
        return Posture(captured_at_us=at_us, object_type=kind, name=name, change="removed", database="shop")

    def said(operation: str, at_s: int) -> Control:
        return Control(captured_at_us=START_US + at_s * SECOND_US, operation=operation, database="shop")

    release = command(tag="ALTER EXTENSION", statement="ALTER EXTENSION plpgsql DROP SCHEMA pgwitness")
    proven, job = (
        replace(release, own=True, beacon=replace(release.beacon, application=f"pgwitness {who} 0c0de0"))
        for who in ("db", "wal")
    )
    made = fold()
    events = apply(made, transaction(99, n_rows=0, ddl=[proven]), missing(1))
    events += apply(made, said("beacon_uninstall", 2), transaction(100, n_rows=0, ddl=[release, job]), missing(3))
    events += apply(made, transaction(101, n_rows=0, ddl=[proven]), missing(4))
    events += apply(
        made, missing(5, "public.orders", "beacon"), missing(6, "public.orders.pgwitness_beacon", "trigger")
    )
    events += apply(made, missing(7, "public.orders", "table"), missing(8, "public.orders.touch", "trigger"))
    events += apply(made, statistics(1, statement="DROP PUBLICATION pgwitness", at_s=9), statistics(1, at_s=10))
    events += apply(made, said("beacon_install", 11), missing(12))
    own = [event.detail.get("own") for event in events if event.kind in ("posture", "query_stats")]
    assert own == [None, None, True, True, True, None, None, True, None, None]
    assert [event.detail.get("own") for event in events if event.kind == "ddl"] == [True, None, True, True]


def test_a_function_that_a_command_replaced_is_its_own() -> None:
    """Snapshots see another body behind each trigger that runs it; what somebody else puts there is somebody's."""

    def changed(at_s: int, name: str, before: str, after: str, **more: Any) -> Posture:
        same = {"function": "pgwitness.keep", "active": True}
        return Posture(
            captured_at_us=START_US + at_s * SECOND_US,
            object_type="event_trigger",
            name=name,
            change="changed",
            database="shop",
            before={**same, "function_md5": before},
            after={**same, "function_md5": after, **more},
        )

    body = DdlObject("function", "pgwitness.keep()")
    replaced = command(tag="CREATE FUNCTION", objects=[body], objects_total=1)
    made = fold()
    events = apply(made, changed(1, "pgwitness_keep", "0", "1"))
    events += apply(made, transaction(100, n_rows=0, ddl=[replace(replaced, own=True)]))
    events += apply(made, changed(2, "pgwitness_keep", "1", "2"), changed(2, "pgwitness_keep_drop", "1", "2"))
    events += apply(made, changed(3, "pgwitness_keep", "2", "3"), changed(4, "pgwitness_keep", "1", "2", active=False))
    events += apply(made, transaction(101, n_rows=0, ddl=[replace(replaced, own=True)]))
    events += apply(made, transaction(102, n_rows=0, ddl=[replaced]), changed(5, "pgwitness_keep", "3", "4"))
    own = [event.detail.get("own") for event in events if event.kind == "posture"]
    assert own == [None, True, True, None, None, None]


def test_a_beacon_that_the_job_put_in_the_place_of_another_is_its_own() -> None:
    """Once, and only one that works: what snapshots find later is somebody's."""

    def changed(at_s: int, **after: Any) -> Posture:
        works = {"relation": "public.orders", "enabled": "always", "active": True, "condition": False}
        return Posture(
            captured_at_us=START_US + at_s * SECOND_US,
            object_type="trigger",
            name="public.orders.pgwitness_beacon",
            change="changed",
            database="shop",
            before={**works, "function": "pgwitness.beacon"},
            after={**works, "function": "pgwitness.beacon_tree", **after},
        )

    put = DdlObject("trigger", "pgwitness_beacon on public.orders", "public.orders", "O")
    theirs = command(tag="CREATE TRIGGER", objects=[put], objects_total=1)
    made = fold()
    events = apply(made, transaction(99, n_rows=0, ddl=[theirs]), changed(1))
    for number, odd in enumerate(({"enabled": "origin"}, {"active": False}, {"function": "app.nothing"}, {}, {})):
        events += apply(made, transaction(100 + number, n_rows=0, ddl=[replace(theirs, own=True)] if odd else []))
        events += apply(made, changed(2 + number, **odd))
    assert [e.detail.get("own") for e in events if e.kind == "posture"] == [None, None, None, None, True, None]


def test_tables_that_go_leave_the_publication_and_nothing_is_missing() -> None:
    """Of tables that DROP OWNED leaves, and takes out of the publication, the rows are not read any more."""

    def dropped(*names: str, gone: bool) -> Ddl:
        items = [DdlObject("publication relation", f"{name} in publication pgwitness", name) for name in names]
        items += [DdlObject("table", name, name) for name in names if gone]
        return command(tag="DROP OWNED", dropped=items, dropped_total=len(items))

    made = fold()
    both = apply(made, transaction(100, n_rows=0, ddl=[dropped("public.a", "public.b", gone=True)]))
    assert [event.kind for event in both] == ["ddl"]
    left = apply(made, transaction(101, n_rows=0, ddl=[dropped("public.c", gone=False)]))
    assert [event.relations for event in left if event.kind == "gap"] == [["public.c"]]


def test_what_was_reported_survives_a_checkpoint() -> None:
    """A fold that goes on from a checkpoint marks what the one before it was told."""
    made = fold()
    apply(made, transaction(100, n_rows=0, ddl=[drop()]))
    again = Fold.restore(made.snapshot(), 2 * SECOND_US)
    assert apply(again, statistics(1))[0].detail["seen_as"] == "ddl"


def test_nonsense_in_a_command_is_refused() -> None:
    """A command whose numbers cannot be is left out with its transaction, and said so."""
    made = fold()
    assert apply(made, transaction(100, n_rows=0, ddl=[command(-1)])) == []
    assert made.refused


NEW = DdlObject("table", "public.new", "public.new")
MAKE = command(0, "CREATE TABLE", objects=[NEW, DdlObject("index", "public.new_pkey", "public.new")], objects_total=2)
COVER = (
    ("CREATE TRIGGER", DdlObject("trigger", "pgwitness_beacon on public.new", "public.new", "O")),
    ("ALTER TABLE", NEW),
    ("ALTER PUBLICATION", DdlObject("publication relation", "public.new in publication pgwitness")),
)


def behind(*made: tuple[str, DdlObject], statement: str | None = None) -> list[Ddl]:
    """Make one command for each object, behind another one."""
    return [
        command(n, tag, objects=[item], objects_total=1, statement=statement) for n, (tag, item) in enumerate(made, 1)
    ]


def covered(*commands: Ddl) -> list[int]:
    """Return the numbers of the commands that are told as the beacon's own."""
    events = apply(fold(), transaction(100, n_rows=0, ddl=list(commands)))
    return [number for number, event in enumerate(events) if event.detail.get("covering")]


def test_a_new_tables_beacon_is_nobodys_action() -> None:
    """What puts the beacon on a table that was just made is marked; the command that made it is not."""
    assert covered(MAKE, *behind(*COVER)) == [1, 2, 3]
    assert covered(MAKE, *behind(*COVER[:2])) == [1, 2]  # a partition is published with its root
    assert "beacon_off" not in apply(fold(), transaction(100, n_rows=0, ddl=[MAKE, *behind(*COVER)]))[2].detail


def test_nothing_else_passes_for_a_new_tables_beacon() -> None:
    """Another table, another trigger, another statement, a second time, or without a new table before it."""
    other = DdlObject("table", "public.orders", "public.orders")
    assert covered(*[replace(item, number=item.number - 1) for item in behind(*COVER)]) == []
    assert covered(MAKE, *behind(*COVER, statement="SELECT f()")) == []
    assert covered(MAKE, *behind(("CREATE TRIGGER", TRIGGER), ("ALTER TABLE", other))) == []
    assert covered(MAKE, *behind(("ALTER TABLE", NEW))) == []
    assert covered(MAKE, *behind(COVER[0], ("ALTER TABLE", other))) == [1]
    assert covered(MAKE, *behind(*COVER, *COVER)) == [1, 2, 3]
    assert covered(MAKE, *behind(COVER[0], COVER[1], COVER[1])) == [1, 2]
    assert covered(MAKE, *behind(*COVER[:2], ("ALTER PUBLICATION", COVER[2][1]), ("ALTER TABLE", NEW))) == [1, 2, 3]


def test_a_table_is_emptied_before_the_word_that_it_was_made() -> None:
    """The log is read before the WAL: TRUNCATE waits for a moment, and is then left to what the WAL tells of it."""
    made = fold()

    def take(event: Any, source: str) -> list[Event]:
        found = made.apply(made.next_offset, read(batch(event, source=source)))
        return [one for one in found if one.kind == "statement"]

    line = {"statement": "TRUNCATE public.fresh", "outcome": "success"}
    take(transaction(1, ddl=[drop()]), "wal")
    assert take(log_line(1, **line), "log") == []
    new = command(tag="CREATE TABLE", objects=[DdlObject("table", "public.fresh", "public.fresh")], objects_total=1)
    assert take(transaction(2, ddl=[new]), "wal") == []
    (told,) = take(Tick(captured_at_us=START_US + 3 * SECOND_US), "log")
    assert told.detail["by_effect"] is True
    assert take(log_line(2, **line), "log")[0].detail["by_effect"] is True
    (unknown,) = take(log_line(3, statement="TRUNCATE public.other", outcome="success", at_s=4), "log") or take(
        Tick(captured_at_us=START_US + 9 * SECOND_US), "log"
    )
    assert "by_effect" not in unknown.detail


def test_commands_of_views_that_mask_are_not_the_clients() -> None:
    """They stand aside within its command and come back: marked where the message says so, which only its key makes."""
    dropped = command(0, "DROP VIEW", masks=True)
    own = command(1, "ALTER TABLE")
    back = command(2, "CREATE VIEW", masks=True)
    assert covered(dropped, own, back) == [0, 2]
