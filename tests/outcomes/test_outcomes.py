"""What is said of a statement's outcome is what came of it, on PostgreSQL 18 and 15."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.log import statuses
from collectors.log.interpretation.interpret import Seen
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Event, Statement
from pgwitness.demo.servers import Postgres
from tests.collectors.log_server import SETTINGS, files
from tests.conftest import DEBIAN_BIN, leave_out
from tests.outcomes import sessions
from tests.outcomes.ways import OUTCOMES, WAYS

EVERYTHING = {"log_min_duration_statement": "0", "log_min_messages": "warning"}
SEED, MADE_UP, MADE_UP_MANY = 1, 1_000, 60
"""Sessions that chance made up, and the number of the first."""
ASKED = {
    "alone, extended, then the end": "s",
    "a needless ROLLBACK behind what was extended": "ss",
    "errors are kept out of the log": "r",
    "prepared and committed": "ss",
    "prepared and rolled back": "rs",
}
"""Ways of which more is known where the server was asked."""
NUMBERS = {name: number for number, name in enumerate(WAYS)}


@pytest.fixture(scope="module", params=[18, pytest.param(15, marks=pytest.mark.debian)])
def server(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """A server that logs every statement as jsonlog."""
    binaries = None if request.param == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    more = {"log_destination": "jsonlog", "log_directory": "log", "max_prepared_transactions": "5"}
    with Postgres(servers_path / f"outcomes{request.param}", bin=binaries, settings={**SETTINGS, **more}) as made:
        yield made


@pytest.fixture(scope="module")
def lines(server: Postgres) -> list[Seen]:
    """Every way, run once, and its lines."""
    return run_all(server)


@pytest.fixture(scope="module")
def events(lines: list[Seen]) -> list[Event]:
    """What became of the lines by themselves."""
    return sessions.fold(lines, EVERYTHING)


@pytest.fixture(scope="module")
def asked(server: Postgres, lines: list[Seen]) -> list[Event]:
    """What became of them where the server was asked about its transactions."""
    xids = [line.xid for line in lines if isinstance(line, Statement) and line.xid]
    with psycopg.connect(server.dsn("other"), autocommit=True) as anybody:
        answers = statuses.ask(anybody, xids)
    assert set(answers) == set(xids)
    return sessions.fold(lines, EVERYTHING, statuses.record(answers))


def run_all(server: Postgres) -> list[Seen]:
    """Run every way."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for text in (
            "CREATE ROLE owner LOGIN", "CREATE ROLE other LOGIN",
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "CREATE TABLE kept(i int)", "CREATE TABLE once(i int PRIMARY KEY)", "GRANT ALL ON once TO PUBLIC",
            "ALTER TABLE kept OWNER TO owner", "GRANT SELECT ON kept TO PUBLIC",
        ):  # fmt: skip
            admin.execute(text.encode())
    for name, one in WAYS.items():
        sessions.run(server.dsn(), name, one, NUMBERS[name])
    for number in range(MADE_UP, MADE_UP + MADE_UP_MANY):
        sessions.run(server.dsn(), "made up", sessions.made_up(SEED, number), number)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"SELECT 1 AS {sessions.END.replace(' ', '_')}".encode())
    return sessions.lines(files(server, "jsonlog"), "postgres", sessions.END.replace(" ", "_"))


def test_every_way_is_reported_as_what_it_was(events: list[Event]) -> None:
    """Committed, rolled back, failed, denied; unknown only where the log does not tell."""
    wrong = {}
    for name, one in WAYS.items():
        found = sessions.in_order(sessions.told(events, NUMBERS[name]))
        said = [event.outcome for event in found]
        if said != [OUTCOMES[letter] for letter in one.outcomes]:
            wrong[name] = (one.outcomes, [(event.outcome, event.statement) for event in found])
    assert wrong == {}


def test_of_what_chance_makes_up_nothing_false_is_reported(server: Postgres, events: list[Event]) -> None:
    """Sessions of any steps in any order: a table that is told as made is there, one that was rolled back is not."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        there = {str(name) for (name,) in admin.execute("SELECT relname::text FROM pg_class WHERE relkind = 'r'")}
    false, known, unknown = sessions.false_outcomes(events, there)
    assert false == []
    assert known > unknown


def test_who_asks_the_server_knows_what_the_log_does_not_show(server: Postgres, asked: list[Event]) -> None:
    """Ends that no line shows; what one text did in part stays unknown, and all else is as by the log alone."""
    wrong = {}
    for name, one in WAYS.items():
        found = [event.outcome for event in sessions.in_order(sessions.told(asked, NUMBERS[name]))]
        if found != [OUTCOMES[letter] for letter in ASKED.get(name, one.outcomes)]:
            wrong[name] = (ASKED.get(name, one.outcomes), found)
    assert wrong == {}
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        there = {str(name) for (name,) in admin.execute("SELECT relname::text FROM pg_class WHERE relkind = 'r'")}
    assert sessions.false_outcomes(asked, there)[0] == []


def test_who_asks_the_server_leaves_less_unknown(events: list[Event], asked: list[Event]) -> None:
    """Of what chance made up, too."""
    unknown = [
        sum(event.outcome == "unknown" for event in sessions.in_order(made) if event.kind == "statement")
        for made in (events, asked)
    ]
    assert 0 < unknown[1] < unknown[0]


def test_sentences_say_what_happened(events: list[Event]) -> None:
    """Refused, absent, temporary and rolled back: no alert says of these that they were done, and none is High."""
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    alerts: dict[str, set[tuple[str, str]]] = {}
    for event in sorted(events, key=lambda event: event.captured_at_us):
        for alert in judge.judge(event).alerts:
            alerts.setdefault(alert.action.application, set()).add((alert.severity, alert.message))
    told = {name: alerts.get(f"way {NUMBERS[name]}", set()) for name in WAYS}
    where = "in database postgres of cluster shop"
    kept = {f"way {NUMBERS[name]}" for name in WAYS if name.startswith(("denied", "absent", "temporary", "savepoint"))}
    assert {severity for name in kept for severity, _ in alerts.get(name, ())} <= {"low", "medium"}
    assert told["denied"] == {
        ("medium", f"Somebody with the role other tried to drop kept {where}; the server refused it")
    }
    assert {message for _, message in told["denied database"]} == {
        f"Somebody with the role other tried to drop database postgres {where}; the server refused it"
    }
    assert told["absent"] == told["absent, if it is there"] == told["temporary"] == set()
    table = f"t{NUMBERS['dropped and rolled back']}_1"
    assert told["dropped and rolled back"] == {
        ("low", f"Somebody with the role owner tried to drop {table} {where}; it was rolled back")
    }
    table = f"t{NUMBERS['truncated and rolled back']}_1"
    assert told["truncated and rolled back"] == {
        ("low", f"Somebody with the role owner tried to empty {table} by TRUNCATE, {where}; it was rolled back")
    }
