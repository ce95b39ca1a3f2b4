"""The page of `pgwitness report`: right figures, no way for a name in the evidence to become markup, equal bytes."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.core.errors import NotInOrder
from pgwitness.core.events import Event
from pgwitness.core.moments import when
from pgwitness.core.privacy import write_key
from sinks.lake.writer import Lake
from sinks.report.facts import Facts, gather
from sinks.report.page import render
from sinks.report.subject import Subject
from sinks.sql import query
from sinks.sql.catalogue import connect, still
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, Finding, Judgement, change, other

HOSTILE = "<script>alert(1)</script>\"'&\u202e"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two changes of maria, one of an agent for her three days later, a read, a refusal, a gap, a hostile name."""
    path = tmp_path_factory.mktemp("report") / "lake"
    read = {"kind": "statement", "operation": "select", "relations": ["public.orders"], "database": "shop"}
    events = [
        change(1, principal="maria"),
        change(2, principal="maria"),
        change(3, principal="agent", on_behalf_of="maria", occurred_at_us=NOON_US + 3 * DAY_US),
        other(4, principal="maria", outcome="success", certainty="exact", assurance="verified", **read),
        other(5, principal="maria", outcome="denied", certainty="exact", assurance="verified", **read),
        other(6, kind="gap", operation="slot_lost", detail={"reason": "slot_lost"}),
        other(7, principal=HOSTILE, role=HOSTILE, application=HOSTILE, session_id="s/1", outcome="success"),
        change(8, principal=HOSTILE),
    ]
    alert = Judgement(
        ["p"],
        0.5,
        [],
        [
            Finding(
                "u1",
                {
                    "is_alert": True,
                    "severity_id": 4,
                    "count": 1,
                    "finding_info": {"title": HOSTILE},
                    "resources": [{"name": "public.orders"}],
                },
            )
        ],
    )
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, events, [alert] + [ORDINARY] * (len(events) - 1))
    writer.commit()
    return path


@pytest.fixture(scope="module")
def connection(lake: Path) -> duckdb.DuckDBPyConnection:
    """The lake, opened."""
    return connect(lake)


@pytest.fixture(scope="module")
def everything(connection: duckdb.DuckDBPyConnection) -> Facts:
    """What a report on the whole lake says."""
    return gather(connection, Subject())


class _Tags(HTMLParser):
    """The tags of a page, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_principals_page_counts_what_was_done_by_and_for_them(connection: duckdb.DuckDBPyConnection) -> None:
    """Three written rows, a read, and one that was refused and is none, in two days; the gap is named."""
    facts = gather(connection, Subject(principal="maria"))
    assert facts.totals == {
        "accesses": 5, "rows_changed": 3, "reads": 1, "refused": 1, "relations": 1, "parts": 1,
    }  # fmt: skip
    assert [row[1:] for row in facts.activity.rows] == [(2, 1, 1), (0, 0, 0), (0, 0, 0), (1, 0, 0)]
    assert [row[2] for row in facts.gaps.rows] == ["slot_lost"]
    page = render(facts)
    assert "What maria did" in page
    assert "Evidence is missing" in page


def test_a_relations_page_has_what_was_found_there(connection: duckdb.DuckDBPyConnection) -> None:
    """A finding names the relation among its resources: that nothing was found must not be said."""
    facts = gather(connection, Subject(relation="public.orders"))
    assert [row[1] for row in facts.findings.rows] == [HOSTILE]
    assert facts.logins.total == 0
    assert "Nothing was found." not in render(facts)


def test_a_period_leaves_out_the_rest(connection: duckdb.DuckDBPyConnection) -> None:
    """`since` is inclusive, `until` exclusive, by the database's clock."""
    later = gather(connection, Subject(principal="maria", since_us=NOON_US + DAY_US))
    assert later.totals["accesses"] == 1
    assert later.gaps.total == 0
    before = gather(connection, Subject(relation="public.orders", until_us=NOON_US + 2))
    assert before.totals["accesses"] == 1


def test_names_in_the_evidence_stay_text(everything: Facts) -> None:
    """A name is no markup and does not turn the line around; nothing is loaded from elsewhere."""
    page = render(everything)
    assert "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page
    found = _Tags(page)
    assert not found.tags & {"script", "img", "link", "iframe", "object", "a", "form"}
    assert not {name for name in found.attributes if name.startswith("on") or name in ("src", "href")}
    assert re.findall(r"https?://", page) == []


def test_the_same_lake_gives_the_same_page(lake: Path, everything: Facts) -> None:
    """Byte for byte, on another connection."""
    with connect(lake) as again:
        assert render(gather(again, Subject())) == render(everything)


def test_a_name_that_nobody_has_is_an_error(connection: duckdb.DuckDBPyConnection) -> None:
    """An empty page would say that nothing was done."""
    with pytest.raises(NotInOrder, match="come near: maria"):
        gather(connection, Subject(principal="mara"))
    with pytest.raises(NotInOrder, match=r"come near: public\.orders"):
        gather(connection, Subject(relation="public.order"))


def test_the_command_writes_the_page_for_its_user_alone(lake: Path, tmp_path: Path) -> None:
    """And not into the lake."""
    write_key(tmp_path / "privacy.key", b"k" * 32)
    config = tmp_path / "pgwitness.toml"
    config.write_text(f'[kafka]\nbootstrap = "127.0.0.1:1"\n[lake]\npath = "{lake}"\n')
    page = tmp_path / "page.html"
    words = ["report", "--relation", "public.orders", "--config", str(config), "--output"]
    result = CliRunner().invoke(main, [*words, str(page)])
    assert result.exit_code == 0, result.output
    assert "Who accessed public.orders" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert CliRunner().invoke(main, [*words, str(lake / "page.html")]).exit_code == 1


def landed(path: Path, events: list[Event], judgements: Mapping[int, Judgement] | None = None) -> None:
    """Land events in a lake, those at some places with what was found."""
    writer = Lake(path).writer("events", 0)
    start, _ = writer.resume()
    found = judgements or {}
    writer.append(start, events, [found.get(place, ORDINARY) for place in range(len(events))])
    writer.commit()


def test_what_lasts_is_in_each_period_that_it_touches(tmp_path: Path) -> None:
    """A gap that was found out the day after, a finding that went on, a session that was left open over midnight."""
    day = NOON_US + DAY_US
    finding = Finding("u1", {
        "is_alert": True, "severity_id": 4, "count": 3, "time": (NOON_US + 3 * DAY_US) // 1000,
        "finding_info": {
            "title": "went on", "first_seen_time": NOON_US // 1000, "last_seen_time": (NOON_US + 3 * DAY_US) // 1000,
        },
    })  # fmt: skip
    landed(
        tmp_path / "lake",
        [
            other(1, session_id="s/1", role="app", outcome="success"),
            other(2, session_id="s/2", role="app", operation="disconnect", occurred_at_us=NOON_US + 2 * DAY_US),
            change(3, session_id="s/1", occurred_at_us=day, captured_at_us=day),
            other(
                4, kind="gap", occurred_at_us=NOON_US + 3 * DAY_US,
                detail={"reason": "stats_unread", "since_us": NOON_US},
            ),
            other(5, kind="gap", occurred_at_us=NOON_US, detail={"reason": "sessions_unwatched", "until_us": day + 1}),
            other(6, kind="gap", database="shop", occurred_at_us=NOON_US + 3 * DAY_US, detail={"reason": "slot_lost"}),
            other(7, kind="gap", database="shop", occurred_at_us=NOON_US - DAY_US, detail={"reason": "slot_made"}),
            other(8, kind="gap", occurred_at_us=day, detail={"reason": "odd", "since_us": 2**63 - 1}),
        ],
        {0: Judgement(["p"], 0.5, [], [finding])},
    )  # fmt: skip
    with connect(tmp_path / "lake") as opened:
        within = gather(opened, Subject(since_us=day, until_us=day + DAY_US))
        before = gather(opened, Subject(since_us=NOON_US - 2 * DAY_US, until_us=NOON_US - DAY_US))
    assert [row[2] for row in within.gaps.rows] == ["odd", "sessions_unwatched", "slot_lost", "stats_unread"]
    assert [row[1] for row in within.findings.rows] == ["went on"]
    assert sum(row[5] for row in within.logins.rows) == 1, "the one that was used"
    assert [row[2] for row in before.gaps.rows] == ["slot_made", "odd"], "nothing says since when"


def test_a_login_with_the_collectors_role_shows(tmp_path: Path) -> None:
    """Who has their password could come and go unseen; sessions of our own stand in one row, without their codes."""
    names = ["pgwitness log " + "a" * 24, "pgwitness log " + "b" * 24, "psql"]
    landed(
        tmp_path / "lake",
        [
            other(place, session_id=f"s/{place}", role="pgwitness", application=name, outcome="success")
            for place, name in enumerate(names)
        ],
    )
    with connect(tmp_path / "lake") as opened:
        rows = gather(opened, Subject()).logins.rows
    assert [(row[0], row[1], row[5]) for row in rows] == [
        ("role pgwitness", "pgwitness log", 2), ("role pgwitness", "psql", 1),
    ]  # fmt: skip


def test_what_one_source_vouches_for_is_not_said_of_anothers_name(tmp_path: Path) -> None:
    """The client calls itself the CFO, first and later; the server knows that it was eve."""
    said = {"session_id": "s/1", "outcome": "success"}
    landed(
        tmp_path / "lake",
        [
            other(1, principal="cfo", principal_kind="human", assurance="asserted", application="app", **said),
            other(2, principal="eve", principal_kind="agent", assurance="verified", on_behalf_of="mal", **said),
            other(3, principal="cfo", principal_kind="human", assurance="asserted", application="cfo", **said),
        ],
    )
    with connect(tmp_path / "lake") as opened:
        (row,) = query.ask(
            opened, "SELECT principal, principal_kind, on_behalf_of, assurance, application FROM logins"
        ).rows
    assert row == ("eve", "agent", "mal", "verified", "app")


@pytest.mark.parametrize(("days", "unit", "bars"), [(1, "hour", 25), (30, "day", 31), (500, "month", 18)])
def test_the_chart_has_all_of_a_long_time_and_the_time_between(tmp_path: Path, days: int, unit: str, bars: int) -> None:
    """However long it is, the last access shows, and what lies between has its room."""
    landed(tmp_path / "lake", [change(1), change(2, occurred_at_us=NOON_US + days * DAY_US)])
    with connect(tmp_path / "lake") as opened:
        table = gather(opened, Subject()).activity
    assert table.columns[0] == unit
    assert [row[1] for row in table.rows] == [1, *[0] * (bars - 2), 1]


def test_a_page_is_of_one_moment(tmp_path: Path) -> None:
    """What lands while the page is made is in none of its figures."""
    landed(tmp_path / "lake", [change(1)])
    with connect(tmp_path / "lake") as opened:
        with still(opened):
            landed(tmp_path / "lake", [change(2)])
            assert list(query.ask(opened, "SELECT count(*) FROM changes").rows) == [(1,)]
        assert list(query.ask(opened, "SELECT count(*) FROM changes").rows) == [(2,)]


def test_what_a_page_rests_on_is_the_digest_of_all_ids(connection: duckdb.DuckDBPyConnection) -> None:
    """As DuckDB computes it, where they fit into its memory."""
    told = "SELECT sha256(string_agg(event_id, ',' ORDER BY event_id)) FROM events"
    ((digest,),) = query.ask(connection, told).rows
    facts = gather(connection, Subject())
    assert facts.rests_on.columns[-1] == "sha256_of_ids"
    assert [row[-1] for row in facts.rests_on.rows] == [digest]


@pytest.mark.parametrize("macro", ["timeline(NULL)", "touched(NULL, 7)"])
def test_nobody_is_no_principal_and_no_relation(connection: duckdb.DuckDBPyConnection, macro: str) -> None:
    """An empty answer would say that nothing was done."""
    with pytest.raises(NotInOrder, match="NULL"):
        list(query.ask(connection, f"SELECT * FROM {macro}").rows)


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("9999-12-31T23:59:59.999999", 253_402_300_799_999_999),
        ("2026-03-01T00:30:00.000001+02:00", 1_772_317_800_000_001),
        ("1900-01-01", 0),
        ("99999999d", 0),
    ],
)
def test_a_period_may_begin_and_end_anywhere(connection: duckdb.DuckDBPyConnection, text: str, at_us: int) -> None:
    """To the microsecond, in any time zone; what is before the epoch begins with it, and every end can be written."""
    assert when(text, NOON_US) == at_us
    assert "until before" in render(gather(connection, Subject(until_us=at_us)))
