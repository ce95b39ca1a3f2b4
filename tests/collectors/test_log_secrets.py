"""No secret that a statement, an error or a plan carries leaves the collector of the log in clear."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.connection import connect
from collectors.log import catalogues
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from collectors.names import Names
from collectors.own import OwnSessions
from detectors.alerts.ocsf import finding
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as BehaviourSettings
from pgwitness.core.config import Cluster, Log
from pgwitness.core.events import SCHEMA_VERSION, LogFormat, RawBatch, RawEvent, RawHeader, Statement, encode_event
from pgwitness.core.privacy import tokenizer
from pgwitness.demo.servers import Postgres
from sinks.lake.rows.columns import Columns
from tests.collectors.log_secrets import MARKS, SETUP, secrets, statements
from tests.collectors.log_server import PREFIX, SECONDS_MAX, TIMEZONE, files, logging_server
from tests.conftest import DEBIAN_BIN
from tests.streams.folding import fold_all

LEAK = re.compile(rb"(?i).{0,60}(?:" + b"|".join(MARKS) + rb").{0,20}")

SESSION = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_verbose = on;
SET auto_explain.log_nested_statements = on; SET log_parameter_max_length_on_error = -1; SET log_statement = 'all';
"""


@pytest.fixture(scope="module", params=[pytest.param("15", marks=pytest.mark.debian), "18"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server to which every statement was sent, in both protocols, with plans in each format."""
    binaries = DEBIAN_BIN if request.param == "15" else None
    with logging_server(tmp_path_factory.mktemp("secrets") / "data", binaries) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(SETUP)
            connection.execute(SESSION)
            for verbosity, plan in (("default", "text"), ("verbose", "json")):
                connection.execute(f"SET log_error_verbosity = {verbosity}; SET auto_explain.log_format = {plan}")
                send_all(connection)
        yield server


def send_all(connection: psycopg.Connection) -> None:
    """Send every statement; most fail."""
    for text in statements():
        with contextlib.suppress(psycopg.Error):
            connection.execute(text)  # type: ignore[call-overload]
        connection.rollback()
    with contextlib.suppress(psycopg.Error), connection.cursor().copy("COPY customers FROM stdin") as copy:
        copy.write("8\thush8888@x.example\tHush8888\tno number\n")
    for text in ("SELECT id FROM customers WHERE email = %s", "SELECT %s::text::int", "SELECT casts(%s)"):
        with contextlib.suppress(psycopg.Error):
            connection.execute(text, ["hush9999@x.example"])  # type: ignore[call-overload]


def raw(server: Postgres, log_format: LogFormat, names: Names, own: OwnSessions | None = None) -> list[RawEvent]:
    """Read the server's whole log as the collector does."""
    settings = Log(format=log_format, line_prefix=PREFIX, timezone=TIMEZONE)
    make, parser = formats(settings)
    interpreter = Interpreter(tokenizer(b"k" * 32), log_format, own, names)
    found: list[RawEvent] = []
    for path in files(server, log_format):
        splitter, offset = make(), 0
        for piece in [*splitter.feed(path.read_bytes()), *splitter.idle()]:
            if piece.readable:
                found += interpreter.read(parser.parse(piece.data), path.name, offset, 1)
            offset += piece.length
        found += interpreter.idle(path.name, offset)
    return found


@pytest.fixture(
    scope="module",
    params=[("jsonlog", True), ("csvlog", False), ("stderr", False)],
    ids=["jsonlog", "csvlog", "stderr"],
)
def events(request: pytest.FixtureRequest, told: Postgres) -> list[RawEvent]:
    """What the collector sends of that log; in one format it could read the catalogues."""
    log_format, looked = request.param
    names = Names()
    if looked:
        with psycopg.connect(told.dsn()) as connection:
            names.learn(catalogues.known(connection))
    return raw(told, log_format, names)


def test_no_secret_of_a_statement_leaves(events: list[RawEvent]) -> None:
    """Not in raw, not in an event, in any format, whether the catalogues could be read or not."""
    assert len(events) > len(statements())
    errors = [event for event in events if isinstance(event, Statement) and event.source == "error"]
    assert sum(event.error is not None for event in errors) > len(errors) / 2  # the server's own words are told
    written = [encode_event(event) for event in events]
    written += [
        encode_event(event)
        for event in fold_all([RawBatch(SCHEMA_VERSION, "test", RawHeader("shop", "log", "db:5432"), events)])
    ]
    leaks = sorted({found[0] for text in written for found in re.finditer(LEAK, text)})
    assert not leaks, "\n".join(map(repr, leaks))


def test_an_execute_says_what_it_runs(events: list[RawEvent]) -> None:
    """The server's DETAIL has the text that was prepared, in every format."""
    executed = [
        event
        for event in events
        if isinstance(event, Statement) and event.statement == "EXECUTE q($1)" and event.outcome == "success"
    ]
    assert executed
    for event in executed:
        assert event.parsed is not None
        assert (event.parsed.operations, event.parsed.relations) == (["select", "execute"], ["customers"])


def test_there_are_enough_secrets() -> None:
    """The corpus is as large as it is said to be."""
    assert secrets() >= 200


@pytest.mark.parametrize(("told", "events"), [("18", ("csvlog", False))], indirect=True, ids=["csvlog-18"])
def test_no_secret_reaches_an_alert_or_the_lake(events: list[RawEvent]) -> None:
    """Not in a verdict, nor in an alert as it is sent, nor in any column of the lake."""
    folded = fold_all([RawBatch(SCHEMA_VERSION, "test", RawHeader("shop", "log", "db:5432"), events)])
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(BehaviourSettings()))
    verdicts = [judge.judge(event) for event in folded]
    alerts = [msgspec.json.encode(finding(alert)) for verdict in verdicts for alert in verdict.alerts]
    assert alerts
    columns = Columns()
    columns.add(folded, verdicts)
    written = [str(table.to_pylist()).encode() for table in columns.tables().values()]
    assert sum(map(len, written)) > len(folded)
    written += [msgspec.json.encode(list(verdict.reasons)) for verdict in verdicts]
    leaks = sorted({found[0] for text in [*alerts, *written] for found in re.finditer(LEAK, text)})
    assert not leaks, "\n".join(map(repr, leaks))


def test_the_collectors_session_is_known_by_its_code(told: Postgres) -> None:
    """What a collector reads is left out of the server's own log; of who copies its name, everything is told."""
    key = b"k" * 32
    role = conninfo_to_dict(told.dsn())["user"]
    with connect(Cluster(dsn=told.dsn()), application_name="pgwitness sessions", key=key) as ours:
        name = ours.execute("SELECT current_setting('application_name')").fetchone()
        ours.execute("SELECT 1 AS known")
        assert name is not None
        with psycopg.connect(told.dsn(), application_name=name[0], autocommit=True) as theirs:
            theirs.execute("SELECT 1 AS copied")
    deadline = time.monotonic() + SECONDS_MAX
    texts: set[str | None] = set()
    while "SELECT $1 AS copied" not in texts:
        assert time.monotonic() < deadline, "the log does not tell of the copied name"
        found = raw(told, "jsonlog", Names(), OwnSessions(key, str(role)))
        texts = {event.statement for event in found if isinstance(event, Statement)}
    assert "SELECT $1 AS known" not in texts
