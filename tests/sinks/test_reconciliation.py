"""The view `reconciliation`: what is a finding, and above all what is none, by values."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec import Raw

from pgwitness.core.events import Event, Position, Relation
from sinks.lake.writer import Lake
from sinks.sql.catalogue import connect
from tests.bench import reconcile
from tests.sinks.material import NOON_US, ORDINARY, change, other

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
ORDERS = Relation("public.orders", ["id"], beacon=True)
LINES = Relation("public.lines", ["id"], beacon=True)
SESSION = "db:5432/6b.29"
OPERATIONS = {"i": "insert", "u": "update", "d": "delete"}
Row = list[Any]


def rows(letters: str, relation: int = 0) -> list[Row]:
    """Make rows of one relation, a letter of `OPERATIONS` each."""
    return [[place, letter, relation, {"id": place}, None, None, None] for place, letter in enumerate(letters)]


def committed(
    xid: int, *made: Row, at_s: float = 0.0, relations: tuple[Relation, ...] = (ORDERS,), **facts: Any
) -> Event:
    """Make a transaction that committed so many seconds after noon."""
    for place, row in enumerate(made):
        row[0] = place
    number = xid if at_s == 0 else xid + 500_000
    values: dict[str, Any] = {
        "xid": xid,
        "occurred_at_us": NOON_US + int(at_s * SECOND_US),
        "relation_table": list(relations),
    }
    return change(number, *made, **(values | facts))


def said(
    line: int,
    xid: int | None,
    statement: str,
    operations: str,
    relation: str = "public.orders",
    *,
    source: str = "duration",
    at_s: float = 0.0,
    detail: dict[str, object] | None = None,
    **facts: Any,
) -> Event:
    """Make a line of the log: the statement, what a parser finds in it, its number in the session."""
    words = operations.split()
    more: dict[str, object] = {
        "source": source,
        "line": line,
        "operations": words,
        "utility": words[0] not in ("insert", "update", "delete", "merge", "select"),
    }
    values: dict[str, Any] = {
        "kind": "statement",
        "database": "shop",
        "binding": "log",
        "certainty": "exact",
        "session_id": SESSION,
        "xid": xid,
        "occurred_at_us": NOON_US + int(at_s * SECOND_US),
        "operation": words[0],
        "relations": [relation] if relation else [],
        "statement": statement,
        "fingerprint": statement,
        "calls": 1,
        "outcome": "success",
        "detail": more | (detail or {}),
    }
    return other(1_000_000 + line + int(at_s) * 1000, **(values | facts))


def audited(
    line: int,
    xid: int,
    command: str,
    count: int,
    relation: str = "public.orders",
    *,
    statement: str | None = None,
    operations: str | None = None,
    number: str | None = None,
    scope: str = "SESSION",
    **facts: Any,
) -> Event:
    """Make a line of pgAudit with `log_rows`."""
    audit = {"type": scope, "class": "WRITE", "command": command, "statement_id": number or str(line)}
    audit |= {"substatement_id": "1"} | ({"object_name": relation} if relation else {})
    return said(
        line,
        xid,
        statement or f"{command} {relation}",
        operations or command.lower(),
        relation,
        source="pgaudit",
        detail={"audit": audit},
        row_count=count,
        outcome="unknown",
        **facts,
    )


def both(line: int, xid: int, command: str, count: int, **facts: Any) -> list[Event]:
    """Make the line of pgAudit and the one that tells the same statement at the session's top level."""
    audit = audited(line, xid, command, count, **facts)
    top = said(line + 1, xid, str(audit.statement), command.lower(), at_s=facts.get("at_s", 0.0))
    return [audit, top]


def around() -> list[Event]:
    """Give what stands before and after: every operation on both tables, and a line of the log at the end."""
    made: list[Event] = []
    for xid, hour in ((1, -1), (2, 1)):
        both = [*rows("iud"), *rows("iud", 1)]
        made.append(committed(xid, *both, at_s=hour * 3600, relations=(ORDERS, LINES)))
    return [*made, said(1, None, "SELECT 1", "select", "", at_s=3600)]


def control(line: int, word: str, **facts: Any) -> Event:
    """Make a line of a transaction's beginning or end."""
    return said(line, None, word.upper(), word, "", **facts)


def logs_everything(value: str = "0") -> list[Event]:
    """Give the snapshot of a server's settings that says how much it logs."""
    after = {"value": value, "source": "configuration file", "unit": "ms"}
    setting = {"object_type": "setting", "name": "log_min_duration_statement", "after": after}
    return [
        other(9_000_001, kind="posture", operation="found", detail=setting, occurred_at_us=NOON_US - HOUR_US),
        other(9_000_002, kind="posture", operation="found", detail={"object_type": "summary", "name": "objects"},
              occurred_at_us=NOON_US - HOUR_US),
    ]  # fmt: skip


@pytest.fixture
def statuses(tmp_path: Path) -> Callable[..., dict[int, str]]:
    """Land events, with what stands before and after them, and give the status of each transaction among them."""

    def land(*events: Event) -> dict[int, str]:
        writer = Lake(tmp_path).writer("events", 0)
        writer.resume()
        made = [*around(), *events]
        for place, event in enumerate(made):
            event.at = Position(0, place, 0)
        writer.append(0, made, [ORDINARY] * len(made))
        writer.commit()
        answer = connect(tmp_path).execute("SELECT xid, status FROM reconciliation WHERE xid > 2 ORDER BY xid")
        return dict(answer.fetchall())

    return land


# -- what is no finding ------------------------------------------------------------------------------------------------


def test_rows_that_agree_with_their_statements_are_attributed(statuses: Callable[..., dict[int, str]]) -> None:
    """Several statements of one transaction add up; a TRUNCATE counts no rows."""
    assert statuses(
        committed(10, *rows("iiu")),
        audited(3, 10, "INSERT", 1), audited(4, 10, "INSERT", 1), audited(5, 10, "UPDATE", 1),
    ) == {10: "attributed"}  # fmt: skip


def test_what_the_log_names_past_the_beacon_is_attributed(statuses: Callable[..., dict[int, str]]) -> None:
    """On a covered table without a beacon the log still knows who it was; a guess or a sample does not."""
    assert statuses(
        committed(10, *rows("i"), binding="log", certainty="exact"),
        committed(11, *rows("i"), binding="log", certainty="strong"),
        committed(12, *rows("i"), binding="log", certainty="weak"),
        committed(13, *rows("i"), binding="activity", certainty="strong"),
        committed(14, *rows("i"), binding="none", certainty="none"),
        committed(15, *rows("i"), binding="replication", certainty="strong", detail={"origin": "pg_16401"}),
    ) == {**dict.fromkeys((10, 11, 15), "attributed"), **dict.fromkeys((12, 13, 14), "shadow_write")}


def test_an_update_that_moves_a_row_between_partitions_is_no_mismatch(statuses: Callable[..., dict[int, str]]) -> None:
    """In the WAL it is a delete and an insert of the root."""
    assert statuses(committed(10, *rows("uudi")), *both(3, 10, "UPDATE", 3)) == {10: "attributed"}


def test_what_triggers_and_cascades_change_elsewhere_is_no_mismatch(statuses: Callable[..., dict[int, str]]) -> None:
    """Rows of a table that no statement claims are those of triggers and cascades that the log does not tell."""
    assert statuses(
        committed(10, *rows("d"), *rows("dddd", 1), relations=(ORDERS, LINES)), audited(3, 10, "DELETE", 1)
    ) == {10: "attributed"}


def test_a_cascade_within_one_table_is_told_by_pgaudit(statuses: Callable[..., dict[int, str]]) -> None:
    """It logs the statements of foreign keys too, so that they add up."""
    cascade = 'DELETE FROM ONLY "public"."orders" WHERE $1 = "parent"'
    assert statuses(
        committed(10, *rows("ddd")),
        audited(3, 10, "DELETE", 2, statement=cascade, number="7"),
        audited(4, 10, "DELETE", 0, statement=cascade, number="8"),
        audited(5, 10, "DELETE", 1, number="9"),
    ) == {10: "attributed"}


@pytest.mark.parametrize(
    ("letters", "command", "operations", "count"),
    [
        ("iu", "INSERT", "insert update", 2),
        ("iud", "INSERT", "merge update insert delete", 3),
        ("ui", "UPDATE", "merge update insert", 2),
    ],
)
def test_on_conflict_and_merge_do_as_they_find(
    statuses: Callable[..., dict[int, str]], letters: str, command: str, operations: str, count: int
) -> None:
    """Only the sum is claimed."""
    claim = audited(3, 10, command, count, statement="x", operations=operations)
    assert statuses(committed(10, *rows(letters)), claim, said(4, 10, "x", operations)) == {10: "attributed"}


SAID = both(3, 10, "UPDATE", 1)
MADE = {"kind": "ddl", "operation": "CREATE TABLE AS", "database": "shop", "lsn": (22 << 32) + 10}
TOO_MUCH: dict[str, tuple[str, list[Event]]] = {
    "object auditing tells a part": ("uuuuu", both(3, 10, "UPDATE", 1, scope="OBJECT")),
    "a copy": ("uuuuu", [*SAID, audited(5, 10, "COPY", 0, "")]),
    "one statement, two writes": (
        "uuuuu", [*both(3, 10, "UPDATE", 1, number="7"), *both(5, 10, "UPDATE", 2, number="7")],
    ),
    "a view or a leaf": ("uuuuu", [*SAID, *both(5, 10, "UPDATE", 3, relation="public.view")]),
    "a table made by a query": ("uuuuu", [*SAID, said(5, 10, "CREATE TABLE", "create_table_as")]),
    "a table made in a function": ("uuuuu", [*SAID, other(99, **MADE)]),
    "a function": ("uuuuu", [*SAID, said(5, 10, "SELECT f()", "select", "")]),
    "a statement in a function": ("uuuuu", SAID[:1]),
    "a line nobody can read": ("uuuuu", both(3, 10, "UPDATE", 1, fingerprint=None)),
    "lines without counts": ("uuuuu", SAID[1:]),
    "several in one text": ("uuuuu", both(3, 10, "UPDATE", 1, relation="", statement="UPDATE x; DELETE y")),
    "a foreign key into the same table": ("ddd", both(3, 10, "DELETE", 1)),
    "one that sets null": ("duuu", [*both(3, 10, "DELETE", 1), *both(5, 10, "UPDATE", 1)]),
    "one that follows a key": (
        "uuu", both(3, 10, "UPDATE", 1, statement="UPDATE public.orders SET id = $1 WHERE x = $2"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("letters", "lines"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_more_rows_than_claimed_is_undecided_where_something_may_explain_it(
    statuses: Callable[..., dict[int, str]], letters: str, lines: list[Event]
) -> None:
    """A claim that is not known, a foreign key, a function that runs as somebody else."""
    assert statuses(committed(10, *rows(letters)), *lines) == {10: "attributed"}


def test_too_much_in_one_of_several_tables_is_undecided(statuses: Callable[..., dict[int, str]]) -> None:
    """A trigger on the one may write to the other, and pgAudit does not tell of it where it runs as its owner."""
    assert statuses(
        committed(10, *rows("u"), *rows("ii", 1), relations=(ORDERS, LINES)),
        *both(3, 10, "UPDATE", 1), *both(5, 10, "INSERT", 1, relation="public.lines"),
    ) == {10: "attributed"}  # fmt: skip


CLAIMED = both(3, 10, "UPDATE", 5)
TOO_FEW: dict[str, list[Event]] = {
    "in a function, that may have undone it": CLAIMED[:1],
    "rolled back to a savepoint": [*CLAIMED, said(5, 10, "ROLLBACK TO a", "rollback_to", "")],
    "a table that nobody captures": [*both(3, 10, "UPDATE", 5, relation="public.unlogged")],
    "an error in the transaction": [*CLAIMED, said(5, 10, "INSERT", "insert", outcome="failure")],
}


@pytest.mark.parametrize("lines", TOO_FEW.values(), ids=TOO_FEW)
def test_fewer_rows_than_claimed_is_undecided_where_they_may_be_undone(
    statuses: Callable[..., dict[int, str]], lines: list[Event]
) -> None:
    """Of what was undone the log keeps the claim."""
    assert statuses(committed(10, *rows("u")), *lines) == {10: "attributed"}


def test_what_has_not_had_time_to_land_is_undecided(statuses: Callable[..., dict[int, str]]) -> None:
    """Of a transaction just committed further lines and rows may be on their way."""
    late_s = 3600 - 20
    assert statuses(
        committed(10, *rows("uu"), at_s=late_s), *both(3, 10, "UPDATE", 1, at_s=late_s)
    ) == {10: "attributed"}  # fmt: skip


# -- mismatches --------------------------------------------------------------------------------------------------------


def test_more_rows_than_statements_claim_are_a_mismatch(statuses: Callable[..., dict[int, str]]) -> None:
    """The log lies about a number, or a line of it is lost, or somebody switched it off in between."""
    assert statuses(
        committed(10, *rows("uuuuu")),
        *both(3, 10, "UPDATE", 3, statement="UPDATE public.orders SET note = $1 WHERE id IN ($2)"),
        committed(11, *rows("ii"), at_s=1), *both(5, 11, "INSERT", 1, at_s=1),
        committed(12, *rows("iud"), at_s=2), *both(7, 12, "UPDATE", 1, at_s=2),
    ) == dict.fromkeys((10, 11, 12), "count_mismatch")  # fmt: skip


def test_fewer_rows_than_a_statement_claims_are_a_mismatch(statuses: Callable[..., dict[int, str]]) -> None:
    """A statement that the log tells at the session's top level, in a transaction in which nothing was undone."""
    assert statuses(
        committed(10, *rows("u")), audited(3, 10, "UPDATE", 5), said(4, 10, "UPDATE public.orders", "update")
    ) == {10: "count_mismatch"}


def test_a_mismatch_says_what_was_claimed(tmp_path: Path, statuses: Callable[..., dict[int, str]]) -> None:
    """Beside the rows that were committed, by operation."""
    statuses(committed(10, *rows("uuuuu")), *both(3, 10, "UPDATE", 3))
    answer = connect(tmp_path).execute(
        "SELECT rows, inserts, updates, deletes, truncates, claimed_rows, relations, lsn FROM reconciliation"
        " WHERE xid = 10"
    )
    assert answer.fetchall() == [(5, 0, 5, 0, 0, 3, ["public.orders"], "16/A")]


def test_a_recycled_transaction_id_is_not_the_old_one(statuses: Callable[..., dict[int, str]]) -> None:
    """The log has 32 bits of an id; lines of other days are other transactions'."""
    assert statuses(
        committed(10, *rows("uuu")), *both(3, 10, "UPDATE", 1, at_s=-30 * 24 * 3600)
    ) == {10: "attributed"}  # fmt: skip


def test_ids_are_compared_modulo_two_to_the_32(statuses: Callable[..., dict[int, str]]) -> None:
    """The WAL has the epoch of an id, the log has not."""
    xid = (7 << 32) + 10
    made = committed(10, *rows("uuu"))
    made.xid = xid
    assert statuses(made, *both(3, 10, "UPDATE", 1)) == {xid: "count_mismatch"}


def test_what_came_past_the_gateway_shows(tmp_path: Path, statuses: Callable[..., dict[int, str]]) -> None:
    """By the backend, whatever name gateway and collectors have for its server; what nobody can tell is null."""
    facts: dict[str, Any] = {
        "database": "shop",
        "session_id": "10.0.0.5:5432/6b.29",
        "occurred_at_us": NOON_US - SECOND_US,
    }
    came = other(900, binding="gateway", **facts)
    statuses(
        came,
        committed(10, *rows("i"), session_id=SESSION),
        committed(11, *rows("i"), session_id="db:5432/6b.2a"),
        committed(12, *rows("i"), session_id="db:5432/6b.2b", binding="log"),
        committed(13, *rows("i"), session_id=None, binding="none", certainty="none"),
        committed(14, *rows("i"), session_id="db:5432/6b.2a", at_s=-2),
        committed(15, *rows("i"), session_id="db:5432/6b.2a", database="billing"),
    )
    answer = connect(tmp_path).execute("SELECT xid, through_gateway FROM reconciliation WHERE xid BETWEEN 10 AND 15")
    assert dict(answer.fetchall()) == {10: True, 11: False, 12: None, 13: None, 14: None, 15: None}


# -- phantoms ----------------------------------------------------------------------------------------------------------

INSERT = "INSERT INTO public.orders VALUES ($1)"


def test_a_committed_statement_that_the_wal_does_not_have_is_a_phantom(
    tmp_path: Path, statuses: Callable[..., dict[int, str]]
) -> None:
    """The table's changes were captured before and after, and the log has the COMMIT."""
    found = statuses(
        control(3, "begin"), said(4, 77, INSERT, "insert", principal="ada", role="ada"),
        said(5, 77, "SELECT 1", "select", "", principal="ada", role="ada"), control(6, "commit"),
    )  # fmt: skip
    assert found == {77: "phantom"}
    answer = connect(tmp_path).execute(
        "SELECT lsn, rows, relations, principal, binding, session_id FROM reconciliation WHERE xid = 77"
    )
    assert answer.fetchall() == [(None, 0, ["public.orders"], "ada", "log", SESSION)]


def test_pgaudit_tells_that_an_update_changed_something(statuses: Callable[..., dict[int, str]]) -> None:
    """With rows counted an update is a phantom too; without, it may have found nothing to change."""
    update = "UPDATE public.orders SET id = $1"
    assert statuses(
        audited(4, 77, "UPDATE", 2, statement=update), said(5, None, update, "update"), control(6, "commit"),
        said(7, 78, update, "update", at_s=1), control(8, "commit", at_s=1),
    ) == {77: "phantom"}  # fmt: skip


def test_without_begin_the_next_transaction_ends_the_one_before(statuses: Callable[..., dict[int, str]]) -> None:
    """That needs a server that logs every statement: else a ROLLBACK may have gone unlogged."""
    lines = [said(4, 77, INSERT, "insert"), said(5, 10, "UPDATE", "update")]
    assert statuses(committed(10, *rows("u")), *lines, *logs_everything()) == {10: "attributed", 77: "phantom"}


WROTE = said(4, 77, INSERT, "insert")
ENDED = control(6, "commit")


def instead(statement: str, operations: str = "insert", relation: str = "public.orders", **facts: Any) -> list[Event]:
    """Give another statement than the plain INSERT, and its COMMIT."""
    at_s = facts.get("at_s", 0.0)
    return [said(4, 77, statement, operations, relation, **facts), control(6, "commit", at_s=at_s)]


UNDECIDED: dict[str, list[Event]] = {
        "rolled back": [WROTE, control(5, "rollback")],
        "failed": [WROTE, said(5, 77, "x", "select", outcome="failure"), ENDED],
        "prepared": [WROTE, control(5, "prepare")],
        "rolled back to a savepoint": [WROTE, said(5, 77, "ROLLBACK TO a", "rollback_to", ""), ENDED],
        "its end is not told": [WROTE],
        "not everything is logged": [WROTE, said(5, 78, "UPDATE", "update")],
        "lines without numbers": [
            said(4, 77, INSERT, "insert", detail={"line": None}), control(5, "commit", detail={"line": None}),
        ],
        "an unlogged or unpublished table": instead("INSERT INTO public.x VALUES ($1)", relation="public.x"),
        "a temporary table": [
            said(2, None, "CREATE TEMP TABLE orders (id int)", "create_table", "orders"),
            *instead("INSERT INTO orders VALUES ($1)", relation="orders"),
        ],
        "on conflict": instead(INSERT + " ON CONFLICT DO NOTHING"),
        "of a query": instead("INSERT INTO public.orders SELECT $1", "insert select"),
        "an update without a count": instead("UPDATE public.orders SET id = $1", "update"),
        "several in one text": instead("BEGIN; INSERT INTO public.orders VALUES ($1); ROLLBACK"),
        "no change after it": instead(INSERT, at_s=2 * 3600),
        "no change before it": instead(INSERT, at_s=-2 * 3600),
        "nobody read the WAL": [
            WROTE, ENDED, other(8, kind="gap", operation="slot_lost", occurred_at_us=NOON_US + SECOND_US),
        ],
        "perhaps in a function": instead(INSERT, source="auto_explain"),
}  # fmt: skip


@pytest.mark.parametrize("lines", UNDECIDED.values(), ids=UNDECIDED)
def test_what_may_not_have_been_committed_or_captured_is_no_phantom(
    statuses: Callable[..., dict[int, str]], lines: list[Event]
) -> None:
    """A phantom is only what nothing ordinary explains."""
    assert statuses(*lines) == {}


def test_a_gap_of_another_collector_excuses_nothing(statuses: Callable[..., dict[int, str]]) -> None:
    """Statistics that were reset say nothing of the WAL."""
    assert statuses(
        control(3, "begin"), said(4, 77, INSERT, "insert"), control(5, "commit"),
        other(8, kind="gap", operation="stats_reset", occurred_at_us=NOON_US + SECOND_US),
    ) == {77: "phantom"}  # fmt: skip


def test_a_statement_that_is_in_the_wal_is_no_phantom(statuses: Callable[..., dict[int, str]]) -> None:
    """However its name is written."""
    assert statuses(
        committed(77, *rows("i")), said(4, 77, "INSERT INTO orders VALUES ($1)", "insert", "orders"),
        control(5, "commit"),
    ) == {77: "attributed"}  # fmt: skip


# -- the view itself ---------------------------------------------------------------------------------------------------


def test_the_view_can_be_asked_for_days(tmp_path: Path, statuses: Callable[..., dict[int, str]]) -> None:
    """`reconciled` opens the files of the days that are named, and no others."""
    statuses(committed(10, *rows("i")))
    connection = connect(tmp_path)
    for days, there in (("DATE '2026-09-22', DATE '2026-09-22'", 3), ("DATE '2026-09-23', DATE '2026-09-30'", 0)):
        assert connection.execute(f"SELECT count(*) FROM reconciled({days})").fetchall() == [(there,)]


def test_a_plain_duckdb_finds_the_same(tmp_path: Path, statuses: Callable[..., dict[int, str]]) -> None:
    """`views.sql` has the whole of it."""
    found = statuses(
        control(3, "begin"), said(4, 77, INSERT, "insert"), control(5, "commit"),
        committed(10, *rows("uuuuu")), *both(6, 10, "UPDATE", 3),
    )  # fmt: skip
    program = (
        "import duckdb, json; c = duckdb.connect(); c.execute(open('views.sql').read()); "
        "print(json.dumps(c.execute('SELECT xid, status FROM reconciliation WHERE xid > 2').fetchall()))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert dict(json.loads(done.stdout)) == found == {10: "count_mismatch", 77: "phantom"}


def test_a_day_beyond_the_memory_is_answered_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit waits on disk, where nothing is left of it afterwards; the answer is that of much memory."""
    monkeypatch.setattr(reconcile, "FILES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lake = tmp_path / "lake"
    unseen = reconcile.make(lake, 40_000)

    def answer(**limits: str) -> list[Any]:
        connection = connect(lake, **limits)
        try:
            return connection.execute(
                "SELECT status, count(*), sum(rows), count(DISTINCT relations),"
                " min(xid), max(lsn), sum(hash(principal)) FROM reconciliation GROUP BY status ORDER BY status"
            ).fetchall()
        finally:
            connection.close()

    plenty = answer()
    assert [(row[0], row[2]) for row in plenty] == [("attributed", 80_000), ("phantom", 0)]
    assert unseen * 0.99 < plenty[1][1] <= unseen
    with pytest.raises(duckdb.OutOfMemoryException):
        answer(memory_limit="120MB", spill_limit="0B")
    assert answer(memory_limit="120MB") == plenty
    gc.collect()
    assert sorted(tmp_path.iterdir()) == [lake]


def test_what_a_beacon_proves_and_the_stream_lacks_is_unpublished(
    tmp_path: Path, statuses: Callable[..., dict[int, str]]
) -> None:
    """One row a transaction, whatever of it the stream has and however many relations it lacks."""
    proven: dict[str, Any] = {
        "xid": 5,
        "lsn": 77,
        "occurred_at_us": NOON_US,
        "n_rows": 0,
        "rows": Raw(b"[]"),
        "row_count": 7,
        "operation": "delete",
        "detail": {"finding": "unpublished"},
    }
    lacks = [change(900, relations=["public.orders"], **proven), change(901, relations=["public.lines"], **proven)]
    assert statuses(committed(4, *rows("i")), *lacks) == {4: "attributed", 5: "unpublished"}
    with connect(tmp_path) as found:
        assert found.execute("SELECT claimed_rows, rows FROM reconciliation WHERE xid = 5").fetchall() == [(14, 0)]
