"""The server's log over SQL: rights, what stands in the way, and how it does not feed on itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql

from collectors.log import collector
from collectors.log.sources.server import ServerLog
from pgwitness.core.config import Cluster, Config, Log
from pgwitness.core.errors import Retry
from pgwitness.core.events import Event, Gap, RawEvent, Statement
from pgwitness.demo.servers import Broker, Postgres
from tests.collectors.log_server import files, logging_server
from tests.collectors.raw_topic import SECONDS_MAX, Bench, bench, context_of
from tests.collectors.test_log_collector import await_marks, collecting, marks, running, say, told

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "server-log.md"


@pytest.fixture(scope="module")
def server(servers_path: Path) -> Iterator[Postgres]:
    """A server that writes its log in all three formats."""
    with logging_server(servers_path / "logsql") as made:
        yield made


@pytest.fixture
def admin(server: Postgres) -> Iterator[psycopg.Connection]:
    """A superuser's connection."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(admin: psycopg.Connection) -> Iterator[str]:
    """A login role without any right."""
    name = 'log "reader"'
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    admin.execute("DROP SCHEMA IF EXISTS pgwitness_log CASCADE")
    admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def over_sql(
    tmp_path: Path, server: Postgres, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> Iterator[Bench]:
    """A configuration that follows the server's jsonlog over SQL."""
    extra = '[clusters.shop.log]\nfrom = "sql"\ninterval = "50ms"\n'
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, server.dsn(), cluster_extra=extra)) as made:
        yield made


def open_log(server: Postgres, role: str, log_format: str = "jsonlog") -> ServerLog:
    """Open the log as a role."""
    dsn = psycopg.conninfo.make_conninfo(server.dsn(), user=role)
    return ServerLog(Cluster(dsn=dsn), dsn, Log(from_="sql", format=log_format))  # type: ignore[arg-type]


def test_a_missing_right_is_named_by_its_grant(server: Postgres, admin: psycopg.Connection, role: str) -> None:
    """The error holds the statements that help; with them the log can be read, and the server has logged no refusal."""
    with pytest.raises(Retry, match=r"GRANT pg_monitor TO .*GRANT EXECUTE ON FUNCTION pg_read_binary_file") as refused:
        open_log(server, role)
    for grant in str(refused.value).split("superuser: ")[1].split("; "):
        admin.execute(grant.encode())
    opened = open_log(server, role)
    try:
        entries = opened.entries()
        assert entries is not None
        newest = max((entry for entry in entries if entry.name.endswith(".json")), key=lambda entry: entry.name)
        answer = opened.read(newest.name, 10, 20)
        content = (server.place / "log" / newest.name).read_bytes()
        assert answer == (content[10:30], content[:512])
        assert opened.heads(["none.json", newest.name]) == {newest.name: content[:512]}
        assert opened.read("none.json", 0, 1) is None
        assert opened.read(newest.name, 1 << 40, 10) == (b"", content[:512])
        assert opened.trouble is None
    finally:
        opened.close()
    assert b"permission denied" not in content


def test_the_function_of_the_how_to_reads_the_log_and_nothing_else(
    server: Postgres, admin: psycopg.Connection, role: str
) -> None:
    """Where a role may not read every file of the server, a function that a superuser makes opens those of the log."""
    (block,) = [
        text for text in re.findall(r"```sql\n(.*?)```", HOW_TO.read_text(), re.DOTALL) if "pgwitness_log" in text
    ]
    admin.execute(block.replace("TO pgwitness;", f"TO {sql.Identifier(role).as_string(admin)};").encode())
    opened = open_log(server, role)
    try:
        entries = opened.entries()
        assert entries is not None
        name = next(entry.name for entry in entries if entry.name.endswith(".json"))
        assert opened.heads([name]) == {name: (server.place / "log" / name).read_bytes()[:512]}
        assert opened.read("none.json", 0, 1) is None
        for path in ("../PG_VERSION", "/etc/passwd", "..", "PG_VERSION", "a/../../PG_VERSION"):
            try:
                assert opened.heads([path]) == {}
            except Retry as refused:
                assert "no file of the log" in str(refused)  # noqa: PT017 - either is right
    finally:
        opened.close()


def test_what_stands_in_the_way_is_said(server: Postgres, database18: str) -> None:
    """Another log_destination than configured, and a server without files of its own."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET log_destination = 'csvlog,stderr'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            opened = open_log(server, "postgres")
            try:
                deadline = time.monotonic() + SECONDS_MAX
                while not opened.entries() or opened.trouble is None:
                    assert time.monotonic() < deadline, "the server does not take its new log_destination"
                assert "ALTER SYSTEM SET log_destination = 'jsonlog'" in opened.trouble
            finally:
                opened.close()
        finally:
            admin.execute("ALTER SYSTEM RESET log_destination")
            admin.execute("SELECT pg_reload_conf()")
    without = ServerLog(Cluster(dsn=database18), database18, Log(from_="sql", format="stderr"))
    try:
        without.entries()
        assert "logging_collector" in str(without.trouble)
    finally:
        without.close()


def test_reading_does_not_feed_on_itself(over_sql: Bench, server: Postgres) -> None:
    """With every statement logged, looking makes the log grow: none of it is published, and the looks grow rare."""
    with psycopg.connect(over_sql.dsn, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET log_statement = 'all'")
        admin.execute("SELECT pg_reload_conf()")
    try:
        with collecting(over_sql) as raised:
            say(over_sql, 0, 3)
            await_marks(over_sql, 3)
            path = files(server, "jsonlog")[-1]
            before = path.stat().st_size
            over_sql.raw.wait(lambda: b"pg_ls_logdir" in path.read_bytes()[before:], "a look that was logged")
            seen = path.stat().st_size
            over_sql.raw.wait(lambda: path.stat().st_size > seen, "another")
            say(over_sql, 3, 6)
            await_marks(over_sql, 6)
    finally:
        with psycopg.connect(over_sql.dsn, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM RESET log_statement")
            admin.execute("SELECT pg_reload_conf()")
    assert raised == []
    assert set(marks(told(over_sql))) == {str(number) for number in range(6)}
    texts = [event.statement or "" for event in over_sql.raw.of(Statement)]
    assert [text for text in texts if "pg_read_binary_file" in text or "pg_ls_logdir" in text] == []


class Sent:
    """Stands for a `Reading` that has sent so many events."""

    sent = 0


def test_pauses_grow_while_nobody_but_the_collector_acts() -> None:
    """Twice as long each time, up to a limit; as soon as an event comes, as often as configured."""
    reading = Sent()
    pace = collector.Pace(0.2, reading)  # type: ignore[arg-type]
    assert [pace.pause(True) for _ in range(5)] == [0.4, 0.8, 1.6, 2.0, 2.0]
    reading.sent = 1
    assert pace.pause(True) == 0.2
    slow = collector.Pace(30.0, reading)  # type: ignore[arg-type]
    assert [slow.pause(False) for _ in range(2)] == [30.0, 30.0]


def test_a_lost_server_is_tried_again_from_where_it_stood(over_sql: Bench, server: Postgres) -> None:
    """The connection is ended in the middle: the collector raises `Retry`, and its successor goes on without a gap."""
    with collecting(over_sql) as raised:
        say(over_sql, 0, 6)
        await_marks(over_sql, 6)
        with psycopg.connect(over_sql.dsn, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE application_name LIKE 'pgwitness log%'"
            )
        over_sql.raw.wait(lambda: raised != [], "the error")
    assert isinstance(raised[0], Retry)
    say(over_sql, 6, 12)
    with collecting(over_sql):
        await_marks(over_sql, 12)
    assert marks(told(over_sql)) == [str(number) for number in range(12)]
    assert over_sql.raw.of(Gap) == []


def test_each_instance_has_a_log_and_a_state_of_its_own(over_sql: Bench, server: Postgres) -> None:
    """Two instances of a cluster: each log is read by its own collector and says whose it is."""
    other = psycopg.conninfo.make_conninfo(server.dsn(), host="localhost")
    cluster = replace(over_sql.config.cluster("shop"), replicas=[other])
    config = replace(over_sql.config, clusters={"shop": cluster})
    context = context_of(config, over_sql.publisher)
    parts = collector.instances(context)
    assert len(parts) == 2
    first, second = parts.values()
    with (
        running(lambda stop: collector.run(context, stop, first)),
        running(lambda stop: collector.run(context, stop, second)),
    ):
        over_sql.raw.wait(lambda: len(list(config.collectors.state_path.glob("log-*.json"))) == 2, "two states")
        say(over_sql, 0, 1)
        over_sql.raw.wait(lambda: len(_marked(over_sql.raw.seen)) == 2, "the line from both")


def _marked(events: list[RawEvent]) -> list[RawEvent | Event]:
    return [event for event in events if isinstance(event, Statement) and "m_0_" in (event.statement or "")]
