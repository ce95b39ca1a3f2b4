"""The page of `pgwitness report`: right figures, no way for a name in the evidence to become markup, equal bytes."""

from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.core.errors import NotInOrder
from pgwitness.core.privacy import write_key
from sinks.lake.writer import Lake
from sinks.report.facts import Facts, Subject, gather
from sinks.report.page import render
from sinks.sql.catalogue import connect
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
    assert [row[1:] for row in facts.activity.rows] == [(2, 1, 1), (1, 0, 0)]
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
