"""*Ask*, *Records* and *People*: what they answer, what they refuse, and that no question ends the console."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from pgwitness.core.config import Console
from sinks.console import asking, charting, csvfile, reader
from sinks.console.people import DAYS, heat
from sinks.report.questions import FILE, QUESTIONS
from tests.sinks.console.conftest import HOSTILE, World, document, token
from tests.sinks.console.test_pages import words

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "answer-an-auditor.md"
PART = re.compile(
    r"^## (?P<standard>[^\n]+)$|^### (?P<number>\d+)\. (?P<words>[^\n]+)$|```sql\n(?P<query>.*?)```",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def browser(world: World) -> TestClient:
    """An analyst's browser."""
    return world.visit("analyst")


def ask(browser: TestClient, query: str, **more: str) -> httpx2.Response:
    """Send the form of *Ask*."""
    return browser.post("/ask", data={"csrf": token(browser.get("/ask")), "query": query, **more})


def test_an_answer_is_a_table_and_a_file(world: World, browser: TestClient) -> None:
    """The query stands there again, and is written down as it was asked."""
    query = "SELECT kind, count(*) AS events FROM events GROUP BY kind ORDER BY kind"
    tree = document(ask(browser, query))
    assert tree.find(".//textarea").text.strip() == query
    assert "change 2" in words(tree)
    assert tree.find(".//figure/*") is not None
    assert world.records.told[-1][0] == "query"
    assert world.records.told[-1][2] == {"query": query, "outcome": "success"}
    file = ask(browser, query, **{"as": "csv"})
    assert "attachment" in file.headers["content-disposition"]
    assert ["change", "2"] in list(csv.reader(io.StringIO(file.content.decode("utf-8-sig"))))


def test_what_a_strangers_database_says_is_text_in_an_answer(browser: TestClient) -> None:
    """Also as the name of a column."""
    name = HOSTILE.replace('"', '""')
    tree = document(ask(browser, f"""SELECT role AS "{name}", application FROM events"""))
    assert [e.tag for e in tree.iter() if e.tag in ("img", "style")] == []
    assert len([e for e in tree.iter() if e.tag == "script"]) == 3
    assert "<script>alert(1)</script>" in words(tree)


REFUSED = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "FROM glob('/*')",
    "ATTACH '/tmp/x.db' AS x",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "PRAGMA database_list",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW events AS SELECT 1",
    "EXPORT DATABASE '/tmp/x'",
    "SELECT 1; COPY (SELECT 1) TO '/tmp/x.csv'",
    "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
    "SELECT * FROM query('SELECT 1')",
    "SELECT getenv('HOME')",
    "SELECT 'not ended",
    "SELECT * FROM nowhere",
]


def test_what_does_more_than_read_the_views_is_refused(world: World, browser: TestClient) -> None:
    """With a sentence on the page, and as evidence of a failure."""
    form = {"csrf": token(browser.get("/ask"))}
    for query in REFUSED:
        answer = browser.post("/ask", data={**form, "query": query})
        assert answer.status_code == 422, query
        tree = document(answer)
        assert tree.find(".//p[@role='alert']") is not None
        assert "root:" not in words(tree)
        assert world.records.told[-1][2] == {"query": query, "outcome": "failure"}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM range(100000000000)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT repeat('x', 100000000) FROM range(2000)",
        "SELECT list(range) FROM range(100000000)",
        "SELECT a.range FROM range(100000000) AS a, range(100000000) AS b ORDER BY hash(a.range, b.range)",
    ],
)
def test_a_question_that_asks_for_too_much_ends_and_the_next_is_answered(browser: TestClient, query: str) -> None:
    """Of time as of memory, also where DuckDB itself keeps no account of it."""
    answer = ask(browser, query)
    assert answer.status_code == 422
    assert re.search("took longer|memory|Memory", words(document(answer)))
    assert ask(browser, "SELECT 42 AS n").status_code == 200


def test_a_large_answer_is_cut_off_and_says_so(browser: TestClient) -> None:
    """In rows, in the page's rows, in the length of a cell, and as a whole."""
    said = words(document(ask(browser, "SELECT range FROM range(1000000)")))
    assert "1000 of 3000 rows, and there are more" in said
    assert len(ask(browser, "SELECT range FROM range(1000000)", **{"as": "csv"}).text.splitlines()) == 3_001
    assert len(ask(browser, "SELECT repeat('x', 1000000)").text) < 50_000
    wide = ask(browser, "SELECT repeat('x', 10000) FROM range(3000)", **{"as": "csv"})
    assert 1_000_000 < len(wide.content) < 32 * 1024**2


def test_no_cell_of_a_file_is_a_formula() -> None:
    """Numbers stay numbers; a stranger's text begins with an apostrophe."""
    written = csvfile.written(["=c", "n"], [["=HYPERLINK(1)", -1], ["@x", 2.5], ["\t=1", None], ["plain", True]])
    rows = list(csv.reader(io.StringIO(written.decode("utf-8-sig"))))
    assert [row[0] for row in rows] == ["'=c", "'=HYPERLINK(1)", "'@x", "'\t=1", "plain"]
    assert [row[1] for row in rows] == ["n", "-1", "2.5", "", "True"]


def page_questions() -> list[dict[str, object]]:
    """Read the page."""
    told: list[dict[str, object]] = []
    standard, number, said = "", 0, ""
    for part in PART.finditer(PAGE.read_text(encoding="utf-8")):
        if part["standard"]:
            standard = part["standard"]
        elif part["number"]:
            number, said = int(part["number"]), part["words"]
        elif number:
            told.append({"number": number, "standard": standard, "words": said, "query": part["query"].strip()})
    return told


def test_the_questions_are_those_of_the_page() -> None:
    """Of docs/how-to/answer-an-auditor.md, whose answers a test holds."""
    assert [asdict(one) for one in QUESTIONS] == page_questions(), "python -m tests.sinks.console.test_questions"
    assert len(QUESTIONS) >= 20


def test_a_question_is_put_into_the_form(browser: TestClient) -> None:
    """By its number; another number puts nothing there."""
    assert document(browser.get("/ask?question=1")).find(".//textarea").text.strip() == QUESTIONS[0].query.strip()
    assert (document(browser.get("/ask?question=none")).find(".//textarea").text or "").strip() == ""


def test_a_record_shows_everything_that_touched_it(world: World, browser: TestClient) -> None:
    """Its changes with their images; the evidence that it was looked at has the events, and not the key."""
    form = {"csrf": token(browser.get("/records")), "relation": "public.orders", "key": "1"}
    tree = document(browser.post("/records", data=form))
    said = words(tree)
    assert "changed: insert" in said
    assert "changed: update" in said
    assert '"status":"new"' in said
    assert len(tree.findall(".//tbody/tr")) == 2
    operation, _, what = world.records.told[-1]
    assert operation == "console_look"
    assert (what["relation"], what["events"], "key" in what) == ("public.orders", 2, False)


@pytest.mark.parametrize("relation", ["public.nothing", "x' OR 1=1 --", "../../etc/passwd", HOSTILE + "2"])
def test_a_relation_that_nothing_names_is_said(browser: TestClient, relation: str) -> None:
    """Whatever it is called; those that come near are named."""
    form = {"csrf": token(browser.get("/records")), "relation": relation, "key": "' OR 1=1 --"}
    answer = browser.post("/records", data=form)
    assert answer.status_code == 422
    assert "no event names the relation" in words(document(answer))


def test_a_person_has_a_week_relations_networks_and_findings(browser: TestClient) -> None:
    """As the evidence has it, whatever they are called."""
    said = words(document(browser.get("/people", params={"name": HOSTILE})))
    assert "203.0.113.9" in said
    assert "public.orders" in said
    assert "They acted for nobody" in said
    assert browser.get("/people", params={"name": "nobody"}).status_code == 404


def test_hours_have_a_shade_by_the_busiest() -> None:
    """Nothing is white, and whoever did anything is not."""
    since = date(2026, 9, 16)
    rows = [{"day": since, "hour": 3, "events": 1}, {"day": date(2026, 9, 22), "hour": 23, "events": 1_000}]
    days = heat(rows, since)
    assert len(days) == DAYS
    assert days[0][1][3] == (1, 1)
    assert days[-1][1][23] == (1_000, 5)
    assert days[1][1][0] == (0, 0)
    assert heat([], since)[0][1][0] == (0, 0)


def test_a_chart_is_drawn_of_what_has_the_form_of_one() -> None:
    """Times and numbers, or a few names and numbers; not of numbers alone, negative ones, or a single row."""
    at = datetime(2026, 9, 22, tzinfo=UTC)
    assert charting.drawn(["t", "n"], [[at, 1], [at, 2.5]]) is not None
    drawn = charting.drawn(["who", "<n>"], [[HOSTILE, 1], ["b", 0]])
    assert drawn is not None
    assert "<script" not in drawn
    for rows in ([[at, 1]], [[1, 1], [2, 2]], [["a", -1], ["b", 1]], [["a", float("nan")], ["b", 1]], [["a", "x"]] * 2):
        assert charting.drawn(["a", "b"], rows) is None


def test_others_who_ask_at_the_same_time_are_told_to_wait(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all processes are taken, a question is refused and not queued without end."""
    monkeypatch.setattr(reader, "BORROW_S", 0.01)
    world = make_world()
    browser = world.visit("analyst")
    asker = world.asker
    with asker._child():
        assert "others are asking" in words(document(ask(browser, "SELECT 1")))


def test_a_text_stays_one_cell_whatever_separates_cells() -> None:
    """Spreadsheets of half of Europe take semicolons for it, and would find a formula behind one."""
    content = csvfile.written(["a", "n"], [["x;=1+1", 3], ["y\t=1+1", None]]).decode("utf-8-sig")
    assert content == '"a","n"\r\n"x;=1+1",3\r\n"y\t=1+1",""\r\n'


def test_not_everybody_waits_for_a_question() -> None:
    """Those who ask take no more than a few threads of the pages: the next one is told at once."""
    places: reader.Places[object] = reader.Places(1, 2)
    held = places.take()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(places.take) for _ in range(3)]
        told, waiting = wait(asked, return_when="FIRST_COMPLETED")
        assert isinstance(told.pop().exception(), reader.Busy)
        assert len(waiting) == 2
        places.give(held)
        wait(waiting, return_when="FIRST_COMPLETED")
        places.give(held)
    assert [one.exception() for one in waiting] == [None, None]
    assert asking.WAITING_MAX + Console().query_parallel < 40 / 2


def test_a_value_that_cannot_be_written_is_named(browser: TestClient) -> None:
    """And not taken for a lack of memory, nor does its process end."""
    assert "CAST(" in words(document(ask(browser, "SELECT INTERVAL '100000000 years'")))


def test_a_question_has_some_of_the_disk_and_not_all_of_it(browser: TestClient) -> None:
    """Eight times its memory, by default, which the world of these tests makes small."""
    answer = words(document(ask(browser, "SELECT current_setting('max_temp_directory_size')")))
    assert "512.0 MiB" in answer


if __name__ == "__main__":  # after the page was changed
    FILE.write_text(json.dumps(page_questions(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
