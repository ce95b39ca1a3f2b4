"""The log collector on real servers, into a real broker: every statement once, through rotation and restarts."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from collectors.daemon import run_collectors, tasks
from collectors.log import collector
from pgwitness.core.config import Config, Log
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import SCHEMA_VERSION, Event, Gap, Posture, RawBatch, RawHeader, Session, Statement, Tick
from pgwitness.core.runtime.health import Health
from pgwitness.core.units import Duration
from pgwitness.demo.servers import Broker, Postgres
from tests.collectors.log_server import (
    ENDINGS,
    PREFIX,
    TIMEZONE,
    files,
    logging_server,
    pattern,
    rotate,
)
from tests.collectors.raw_topic import Bench, bench, context_of
from tests.conftest import DEBIAN_BIN, leave_out
from tests.streams.folding import fold_all

SOURCES = [*ENDINGS, "jsonlog over sql", "stderr over sql"]


@pytest.fixture(scope="module", params=[18, pytest.param(15, marks=pytest.mark.debian)])
def server(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """A server of each version that writes its log in all three formats."""
    binaries = None if request.param == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    with logging_server(servers_path / f"log{request.param}", binaries) as made:
        yield made


@pytest.fixture(params=SOURCES)
def at(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server: Postgres,
    embedded_broker: Broker,
    config_factory: Callable[..., Config],
) -> Iterator[Bench]:
    """A configuration that follows the server's log in each format in turn, its files and over SQL."""
    config = config_factory(
        tmp_path, embedded_broker.bootstrap, server.dsn(), cluster_extra=table(server, request.param)
    )
    with bench(config) as made:
        yield made


def table(server: Postgres, source: str) -> str:
    """The table of the configuration; over SQL the server says itself what its lines look like."""
    log_format = source.split()[0]
    if source.endswith("sql"):
        return f'[clusters.shop.log]\nfrom = "sql"\nformat = "{log_format}"\ninterval = "50ms"\n'
    return f"""\
[clusters.shop.log]
path = "{pattern(server, log_format)}"
format = "{log_format}"
line_prefix = "{PREFIX}"
timezone = "{TIMEZONE}"
interval = "50ms"
"""


def settings_of(at: Bench) -> Log:
    """The log's settings."""
    log = at.config.cluster("shop").log
    assert log is not None
    return log


@contextmanager
def collecting(at: Bench) -> Iterator[list[BaseException]]:
    """Run the collector for the length of a block, from its first look on."""
    context = context_of(at.config, at.publisher)
    with running(lambda stop: collector.run(context, stop)) as raised:
        (part,) = collector.instances(context)
        context.health.expect(part)
        at.raw.wait(lambda: context.health.not_ready() == [] or raised != [], "the first look")
        yield raised


@contextmanager
def running(task: Callable[[threading.Event], object]) -> Iterator[list[BaseException]]:
    """Run something in a thread until the block ends; gives what it raised."""
    stop, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            task(stop)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def say(at: Bench, first: int, end: int) -> None:
    """Run statements that can be told apart without their literals: some simple, some extended, some long."""
    with psycopg.connect(at.dsn, autocommit=True, application_name="talker") as connection:
        for number in range(first, end):
            if number % 3 == 0:
                connection.execute(f"SELECT {number}\n AS m_{number}_")
            elif number % 3 == 1:
                connection.execute(f"SELECT %s::int AS m_{number}_", [number])
            else:
                connection.execute(f"SELECT '{'x' * 20_000}' AS m_{number}_")


def marks(events: list[Event]) -> list[str]:
    """The marks of the statements, as often as they came, by number."""
    found = [event.statement.split("m_")[1].split("_")[0] for event in events if "m_" in (event.statement or "")]
    return sorted(found, key=int)


def told(at: Bench) -> list[Event]:
    """What the fold makes of everything that arrived."""
    batch = RawBatch(SCHEMA_VERSION, "test", RawHeader("shop", "log", "db:5432"), at.raw.seen)
    return fold_all([batch])


def await_marks(at: Bench, number: int) -> None:
    """Wait until that many different statements have arrived."""
    at.raw.wait(
        lambda: len({mark for mark in marks_raw(at) if mark}) >= number,
        f"{number} statements",
    )


def marks_raw(at: Bench) -> list[str]:
    """The marks in raw, repeats included."""
    texts = [event.statement or "" for event in at.raw.of(Statement)]
    return [text.split("m_")[1].split("_")[0] for text in texts if "m_" in text]


def expected(number: int) -> list[str]:
    """Every mark once."""
    return [str(mark) for mark in range(number)]


def test_what_became_of_a_transaction_is_asked(at: Bench) -> None:
    """A session that ends behind a statement leaves no line that says so: the server does, to whoever asks."""
    with collecting(at) as raised:
        at.raw.wait(lambda: ended(at) is not None, "the word that it is asked")
        with psycopg.connect(at.dsn, autocommit=True) as connection:
            for way in ("ROLLBACK", "COMMIT"):
                with connection.cursor() as cursor:
                    cursor.execute("BEGIN")
                    cursor.execute("CREATE TABLE asked_about(i int)")
                    row = cursor.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
                    assert row is not None
                    cursor.execute(way)
                found = {"COMMIT": "committed", "ROLLBACK": "aborted"}[way]
                at.raw.wait(lambda xid=row[0], found=found: xid in (ended(at) or {})[found], f"{found} {row[0]}")
            connection.execute("DROP TABLE asked_about")
    assert raised == []
    assert told(at)
    assert {event.kind for event in told(at)} <= {"statement", "session", "control", "gap"}


def ended(at: Bench) -> dict[str, list[int]] | None:
    """Everything that the server said of transactions; None before it was asked."""
    answers = [event.after for event in at.raw.of(Posture) if event.object_type == "transactions" and event.after]
    if not answers:
        return None
    return {how: [xid for after in answers for xid in after[how]] for how in ("committed", "aborted")}


def test_rotation_and_restarts_lose_and_repeat_nothing(at: Bench, server: Postgres) -> None:
    """Statements over the server's own rotation, a collector that ends and begins again: each exactly once."""
    log_format = settings_of(at).format
    with collecting(at) as raised:
        say(at, 0, 12)
        rotate(server, log_format)
        say(at, 12, 24)
        await_marks(at, 24)
    say(at, 24, 36)
    rotate(server, log_format)
    say(at, 36, 48)
    rotate(server, log_format)
    with collecting(at) as again:
        say(at, 48, 60)
        await_marks(at, 60)
    assert (raised, again) == ([], [])
    assert marks(told(at)) == expected(60)
    assert at.raw.of(Gap) == []


def test_a_crash_repeats_lines_and_the_fold_drops_them(at: Bench, server: Postgres) -> None:
    """What is sent again after a crash has the place it had: every statement is evidence once."""
    with collecting(at):
        say(at, 0, 6)
        await_marks(at, 6)
    (state,) = at.config.collectors.state_path.glob("log-*.json")
    stored = state.read_bytes()
    with collecting(at):
        say(at, 6, 18)
        rotate(server, settings_of(at).format)
        say(at, 18, 24)
        await_marks(at, 24)
    state.write_bytes(stored)
    with collecting(at):
        at.raw.wait(lambda: len(marks_raw(at)) >= 24 + 18, "the repeats")
    assert len(marks_raw(at)) > 24
    assert marks(told(at)) == expected(24)


def test_it_says_how_far_the_log_was_read(at: Bench) -> None:
    """A tick of the log comes when all that there was has been sent, however quiet it is: after the statements."""
    with collecting(at):
        say(at, 0, 6)
        await_marks(at, 6)
        last = max(event.occurred_at_us for event in at.raw.of(Statement))
        at.raw.wait(lambda: any(tick.captured_at_us > last for tick in at.raw.of(Tick)), "a tick")
        end = next(n for n, e in enumerate(at.raw.seen) if isinstance(e, Tick) and e.captured_at_us > last)
        assert not [e for e in at.raw.seen[end:] if isinstance(e, Statement) and e.occurred_at_us <= last]


def test_a_session_and_its_statements(at: Bench, server: Postgres) -> None:
    """Connect, statements with their transaction, an error, disconnect: one session id, and no value in anything."""
    with collecting(at):
        with psycopg.connect(at.dsn, application_name="till 4") as connection:
            pid = connection.info.backend_pid
            connection.execute("CREATE TEMP TABLE c (id int PRIMARY KEY, mail text)")
            connection.execute("INSERT INTO c VALUES (1, %s)", ["geheim@example.org"])
            row = connection.execute("SELECT pg_current_xact_id()::text::int8").fetchone()
            connection.commit()
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO c VALUES (1, 'geheim')")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(user="nobody_there"))
        at.raw.wait(
            lambda: (
                {("disconnect", True), ("login_failed", False)}
                <= {(event.operation, event.pid == pid) for event in at.raw.of(Session)}
            ),
            "the end",
        )
    events = [event for event in told(at) if event.pid == pid]
    assert [event.operation for event in events if event.kind == "session"] == ["connect", "disconnect"]
    assert len({event.session_id for event in events}) == 1
    assert {(event.binding, event.role) for event in events} == {("log", "postgres")}
    # Without the source location nothing is exact, and into a text log others can write lines.
    sure = "weak" if settings_of(at).format == "stderr" else "strong"
    assert {event.certainty for event in events} == {sure}
    assert {event.application for event in events} == {"till 4"}
    (insert,) = [event for event in events if event.operation == "insert" and event.outcome == "success"]
    assert row is not None
    assert (insert.xid, insert.relations) == (row[0] % 2**32, ["pg_temp.c"])
    assert insert.duration_ms is not None
    (failed,) = [event for event in events if event.outcome == "failure"]
    assert (failed.sqlstate, failed.detail["source"]) == ("23505", "error")
    assert str(failed.detail["error_detail"]).startswith(("Key (id)=(tok_", "Key (…)=(tok_"))
    (refused,) = [event for event in told(at) if event.operation == "login_failed"]
    assert (refused.outcome, refused.role, refused.sqlstate) == ("denied", "nobody_there", "28000")
    assert b"geheim" not in json.dumps([event.statement for event in events]).encode()


def test_log_statement_is_paired_with_its_duration(at: Bench) -> None:
    """With log_statement and log_duration a statement is one event, with its duration."""
    with collecting(at):
        with psycopg.connect(at.dsn, autocommit=True) as connection:
            connection.execute("SET log_min_duration_statement = -1")
            connection.execute("SET log_statement = 'all'")
            connection.execute("SET log_duration = on")
            connection.execute("SELECT 1 AS m_0_")
            connection.execute("SELECT %s::int AS m_1_", [1])
        await_marks(at, 2)
    found = [event for event in told(at) if "m_" in (event.statement or "")]
    assert marks(found) == expected(2)
    assert all(event.duration_ms is not None and event.outcome == "success" for event in found)


def test_garbage_is_counted_and_told(at: Bench, server: Postgres) -> None:
    """Bytes that are no message are a gap with a hash of them; what follows is read."""
    with collecting(at):
        say(at, 0, 1)
        await_marks(at, 1)
        with files(server, settings_of(at).format)[-1].open("ab") as file:
            file.write(b"geheimer M\xfcll \0\0\n")
        say(at, 1, 4)
        await_marks(at, 4)
        at.raw.wait(lambda: at.raw.of(Gap) != [], "the gap")
    (gap,) = at.raw.of(Gap)
    assert (gap.reason, gap.detail["lines"]) == ("log_unreadable", 1)
    assert "geheim" not in str(gap.detail)
    assert marks(told(at)) == expected(4)


@pytest.fixture
def copy(tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]) -> Iterator[Bench]:
    """A log of files that the test writes itself."""
    extra = f'[clusters.shop.log]\npath = "{tmp_path}/log/*.json"\ninterval = "20ms"\n'
    dsn = "postgresql://pgwitness@db.example/postgres"
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, dsn, cluster_extra=extra)) as made:
        yield made


def line(number: int) -> bytes:
    """A line of jsonlog."""
    return json.dumps(
        {
            "timestamp": f"2026-11-22 21:26:30.{number:03d} UTC", "pid": 41, "user": "app", "dbname": "shop",
            "session_id": "6b035d50.29", "line_num": number, "error_severity": "LOG",
            "message": f"duration: 0.1 ms  statement: SELECT 1 AS m_{number}_",
        }
    ).encode() + b"\n"  # fmt: skip


def test_a_folder_that_vanishes_is_a_gap_and_comes_back(copy: Bench, tmp_path: Path) -> None:
    """While there is nothing to follow the collector says so, is not ready, and goes on afterwards."""
    folder = tmp_path / "log"
    context = context_of(copy.config, copy.publisher)
    with running(lambda stop: collector.run(context, stop)) as raised:
        copy.raw.wait(lambda: [gap.reason for gap in copy.raw.of(Gap)] == ["log_missing"], "the gap")
        assert "log_directory" in context.health.not_ready()[0]
        folder.mkdir()
        (folder / "a.json").write_bytes(line(0))
        await_marks(copy, 1)
        copy.raw.wait(lambda: context.health.not_ready() == [], "readiness")
        folder.rename(tmp_path / "away")
        copy.raw.wait(lambda: len(copy.raw.of(Gap)) == 2, "the second gap")
        with (tmp_path / "away" / "a.json").open("ab") as file:
            file.write(line(1))
        (tmp_path / "away").rename(folder)
        await_marks(copy, 2)
    assert raised == []
    assert marks(told(copy)) == expected(2)


def test_a_lost_file_and_a_lost_state_are_gaps(copy: Bench, tmp_path: Path) -> None:
    """What was rotated away before it was read, and a state file that cannot be used, are told."""
    folder = tmp_path / "log"
    folder.mkdir()
    with running(lambda stop: collector.run(context_of(copy.config, copy.publisher), stop)):
        # What is there at the first look is read from its end: the file must come after it.
        state_path = copy.config.collectors.state_path
        copy.raw.wait(lambda: any(state_path.glob("log-*.json")), "the first look")
        (folder / "a.json").write_bytes(line(0))
        await_marks(copy, 1)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "b.json").write_bytes(line(5))
    with running(lambda stop: collector.run(context_of(copy.config, copy.publisher), stop)):
        copy.raw.wait(lambda: any(gap.reason == "log_rotated_away" for gap in copy.raw.of(Gap)), "the loss")
        await_marks(copy, 2)
    (state,) = copy.config.collectors.state_path.glob("log-*.json")
    state.write_text("{")
    with running(lambda stop: collector.run(context_of(copy.config, copy.publisher), stop)):
        copy.raw.wait(lambda: any(gap.reason == "collector_state_lost" for gap in copy.raw.of(Gap)), "the state")


def test_standard_input_is_read_to_its_end(copy: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipper pipes the log in: half lines wait, and the end of the pipe ends nothing else."""
    log = replace(settings_of(copy), from_="stdin", interval=Duration(0.02))
    config = replace(copy.config, clusters={"shop": replace(copy.config.cluster("shop"), log=log)})
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        with running(lambda stop: collector.run(context_of(config, copy.publisher), stop)) as raised:
            os.write(writer, line(0) + line(1)[:30])
            await_marks(copy, 1)
            os.write(writer, line(1)[30:])
            os.close(writer)
            await_marks(copy, 2)
    assert raised == []
    assert marks(told(copy)) == expected(2)


def test_a_log_is_only_collected_where_one_is_configured(copy: Bench) -> None:
    """Clusters without a log have no task, over SQL each instance has one; what cannot be is an error that says so."""
    context = context_of(copy.config, copy.publisher)
    assert sorted(tasks(context, ["log"])) == ["log shop", "tick shop"]
    without = replace(copy.config, clusters={"shop": replace(copy.config.cluster("shop"), log=None)})
    assert sorted(tasks(context_of(without, copy.publisher), ["log"])) == ["tick shop"]
    with pytest.raises(ConfigurationError, match=r"clusters\.NAME\.log"):
        run_collectors(without, ["log"], threading.Event(), Health())
    replica = "postgresql://pgwitness@db-ro.example/postgres"
    over_sql = replace(context.cluster, log=replace(settings_of(copy), from_="sql", path="*.json"), replicas=[replica])
    assert sorted(tasks(replace_context(context, over_sql), ["log"])) == [
        "log shop db-ro.example:5432", "log shop db.example:5432", "tick shop",
    ]  # fmt: skip
    folder = replace(context.cluster, log=replace(settings_of(copy), from_="sql", path="/var/log/*.json"))
    with pytest.raises(ConfigurationError, match="log_directory"):
        tasks(replace_context(context, folder), ["log"])


def replace_context(context: object, cluster: object) -> collector.Context:
    """A context with another cluster."""
    import dataclasses

    return dataclasses.replace(context, cluster=cluster)  # type: ignore[type-var]
