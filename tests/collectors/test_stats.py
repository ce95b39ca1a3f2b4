"""The statistics collector on real servers, into a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from collectors.stats.collector import only_catalogues, run
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.events import Gap, QueryStats
from pgwitness.core.sql.statements import facts
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres
from tests.collectors.raw_topic import Bench, bench

pytestmark = pytest.mark.every_postgres

ConfigFactory = Callable[..., Config]


@pytest.fixture
def shop(tmp_path: Path, embedded_broker: Broker, database: str, config_factory: ConfigFactory) -> Iterator[Bench]:
    """A fresh database with the extension on each PostgreSQL in turn, and a topic of its own."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        # What the tests before this one ran on the shared server would be read with each look.
        admin.execute("SELECT pg_stat_statements_reset()")
        admin.execute("CREATE TABLE orders (id int, note text)")
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, database)) as made:
        yield made


@pytest.fixture
def own_server(tmp_path: Path, servers_path: Path) -> Iterator[Postgres]:
    """A server of the test's own, with room for few statements."""
    settings = {**FAST_AND_FORGETFUL, "pg_stat_statements.max": "100"}
    with Postgres(servers_path / tmp_path.name, settings=settings) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
        yield server
        server.remove()


@pytest.fixture
def own(tmp_path: Path, embedded_broker: Broker, own_server: Postgres, config_factory: ConfigFactory
        ) -> Iterator[Bench]:  # fmt: skip
    """A bench for the server of the test's own."""
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, own_server.dsn())) as made:
        yield made


def execute(dsn: str, *statements: str) -> None:
    """Run statements, each in its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def name_of(dsn: str) -> str:
    """The database of a DSN."""
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])


def calls(at: Bench, statement: str) -> int:
    """How often a statement ran in the bench's database, by what arrived so far."""
    found = at.raw.of(QueryStats)
    return sum(e.calls for e in found if e.statement == statement and e.database == name_of(at.dsn))


def reasons(at: Bench) -> list[str]:
    """The reasons of the gaps that arrived so far."""
    return [gap.reason for gap in at.raw.of(Gap)]


def begun(at: Bench) -> None:
    """Wait until the collector has a reading to compare with."""
    at.raw.wait(lambda: "stats_begun" in reasons(at), "the first reading")


INSERT = "INSERT INTO orders VALUES ($1, $2)"


def test_every_call_is_counted_once_and_masked(shop: Bench) -> None:
    """Calls and rows sum up exactly over windows, DDL is there, and no literal leaves the collector."""
    with shop.running(run) as raised:
        begun(shop)
        for n in range(30):
            execute(shop.dsn, f"INSERT INTO orders VALUES ({n}, 'a secret')")
            shop.raw.read(0.05)
        execute(
            shop.dsn, "DELETE FROM orders WHERE true", "CREATE ROLE r_stats PASSWORD 'hunter2'", "DROP TABLE orders"
        )
        shop.raw.wait(lambda: calls(shop, "DROP TABLE orders") == 1, "the drop")
        shop.raw.wait(lambda: calls(shop, INSERT) >= 30, "the inserts")
    assert raised == []
    assert calls(shop, INSERT) == 30
    deleted = [event for event in shop.raw.of(QueryStats) if event.statement == "DELETE FROM orders WHERE $1"]
    assert [(event.calls, event.rows, event.role) for event in deleted] == [(1, 30, "postgres")]
    assert b"hunter2" not in msgspec.json.encode(shop.raw.seen)
    assert b"a secret" not in msgspec.json.encode(shop.raw.seen)
    for event in shop.raw.of(QueryStats):
        assert event.window_start_us <= event.window_end_us


def test_what_ran_while_the_collector_was_down_is_counted(shop: Bench) -> None:
    """The reading before survives a restart of the collector, so nothing is lost and nothing counted twice."""
    with shop.running(run):
        begun(shop)
        execute(shop.dsn, "INSERT INTO orders VALUES (1, 'x')")
        shop.raw.wait(lambda: calls(shop, INSERT) == 1, "the first insert")
    execute(shop.dsn, "INSERT INTO orders VALUES (2, 'x')", "INSERT INTO orders VALUES (3, 'x')")
    with shop.running(run):
        shop.raw.wait(lambda: calls(shop, INSERT) >= 3, "the inserts made meanwhile")
        execute(shop.dsn, "INSERT INTO orders VALUES (4, 'x')")
        shop.raw.wait(lambda: calls(shop, INSERT) >= 4, "the last insert")
    assert calls(shop, INSERT) == 4
    assert reasons(shop).count("stats_begun") == 1


def test_events_that_may_not_have_arrived_are_sent_again_the_same(shop: Bench) -> None:
    """After a crash between remembering and delivery the very same events are sent, so they can be told apart."""
    with shop.running(run):
        begun(shop)
        execute(shop.dsn, "INSERT INTO orders VALUES (1, 'x')")
        shop.raw.wait(lambda: calls(shop, INSERT) == 1, "the insert")
    first = [event for event in shop.raw.of(QueryStats) if event.statement == INSERT]
    folder = shop.config.collectors.state_path
    (mark,) = folder.glob("*-sent.json")
    # As if the broker's confirmation had not come: the state as it was when the insert was about to be sent.
    (state_path,) = (path for path in folder.glob("stats-*.json") if path != mark)
    state = msgspec.json.decode(state_path.read_bytes())
    state["state"]["pending"] = msgspec.to_builtins(first)
    state_path.write_bytes(msgspec.json.encode(state))
    mark.unlink()
    with shop.running(run):
        shop.raw.wait(lambda: calls(shop, INSERT) == 2, "the same events again")
    assert [event for event in shop.raw.of(QueryStats) if event.statement == INSERT] == [*first, *first]


def test_a_reset_is_a_gap(shop: Bench) -> None:
    """Somebody resets the statistics: that is seen, and counting goes on exactly."""
    with shop.running(run):
        begun(shop)
        execute(shop.dsn, "SELECT pg_stat_statements_reset()")
        shop.raw.wait(lambda: "stats_reset" in reasons(shop), "the reset")
        execute(shop.dsn, "INSERT INTO orders VALUES (1, 'x')")
        shop.raw.wait(lambda: calls(shop, INSERT) == 1, "what came after")


def test_state_that_cannot_be_read_is_a_gap(shop: Bench) -> None:
    """A damaged state file is no silence, and no reason to stop."""
    with shop.running(run):
        begun(shop)
    for path in shop.config.collectors.state_path.glob("stats-*.json"):
        path.write_bytes(b'{"version":1,"sta')
    with shop.running(run):
        shop.raw.wait(lambda: "collector_state_lost" in reasons(shop), "the loss")
        shop.raw.wait(lambda: reasons(shop).count("stats_begun") == 2, "a new beginning")


def test_a_missing_extension_says_what_to_do(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: ConfigFactory
) -> None:
    """Without the extension the collector waits, says how to get it, and leaves one gap however often it tries."""
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, database18)) as at:
        for _ in range(2):
            with at.running(run) as raised:
                at.raw.wait(lambda: len(raised) == 1, "the error")
            assert isinstance(raised[0], Retry)
            assert "CREATE EXTENSION pg_stat_statements" in str(raised[0])
        assert reasons(at) == ["stats_unavailable"]
        execute(at.dsn, "CREATE EXTENSION pg_stat_statements")
        with at.running(run):
            begun(at)


def test_statements_hidden_from_the_collector_are_a_gap(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: ConfigFactory
) -> None:
    """A role that may not see other roles' statements says so, with the grant that mends it."""
    execute(database18, "CREATE EXTENSION pg_stat_statements", "CREATE ROLE weak LOGIN", "SELECT 1 AS something")
    weak = database18.replace("postgres@", "weak@")
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, weak)) as at, at.running(run):
        at.raw.wait(lambda: "stats_insufficient_privilege" in reasons(at), "the gap")
        (gap,) = (gap for gap in at.raw.of(Gap) if gap.reason == "stats_insufficient_privilege")
        assert "GRANT pg_read_all_stats TO weak" in str(gap.detail["fix"])


def test_evictions_are_a_gap(own: Bench) -> None:
    """When the server throws statements out because there are too many, the loss is reported."""
    with own.running(run):
        begun(own)
        execute(own.dsn, *("SELECT 1" + ", 1" * n for n in range(300)))
        own.raw.wait(lambda: "stats_evicted" in reasons(own), "the eviction")
    gap = next(gap for gap in own.raw.of(Gap) if gap.reason == "stats_evicted")
    assert isinstance(gap.detail["dealloc"], int)
    assert gap.detail["dealloc"] > 0


def test_a_restart_of_the_server_loses_nothing(own: Bench, own_server: Postgres) -> None:
    """The server goes and comes back: the collector asks to be started again and goes on where it was."""
    execute(own.dsn, "CREATE TABLE orders (id int, note text)")
    with own.running(run) as raised:
        begun(own)
        execute(own.dsn, "INSERT INTO orders VALUES (1, 'x')")
        own_server.restart()
        own.raw.wait(lambda: len(raised) == 1, "the loss of the connection")
    assert isinstance(raised[0], Retry)
    with own.running(run):
        execute(own.dsn, "INSERT INTO orders VALUES (2, 'x')")
        own.raw.wait(lambda: calls(own, INSERT) >= 2, "both inserts")
    assert calls(own, INSERT) == 2
    assert "stats_reset" not in reasons(own)


def test_a_crash_of_the_server_is_a_gap(own: Bench, own_server: Postgres) -> None:
    """A killed server loses its statistics; what they held since the last reading is a named loss."""
    with own.running(run) as raised:
        begun(own)
        own_server.kill()
        own.raw.wait(lambda: len(raised) == 1, "the loss of the connection")
    own_server.start()
    with own.running(run):
        own.raw.wait(lambda: "stats_reset" in reasons(own), "the reset")
    gap = next(gap for gap in own.raw.of(Gap) if gap.reason == "stats_reset")
    assert gap.detail["restarted"] is True


def test_only_catalogue_reads_of_our_own_are_left_out() -> None:
    """Stolen credentials of the witness hide nothing that touches data, files, other servers or sessions."""
    assert only_catalogues(facts("SELECT a FROM pg_catalog.pg_class"))
    assert only_catalogues(facts("SELECT dealloc FROM public.pg_stat_statements_info"))
    for text in (
        "SELECT * FROM orders",
        "SELECT pg_read_file('x')",
        "SELECT pg_terminate_backend(1)",
        "COPY pg_authid TO STDOUT",
        "DELETE FROM pg_class",
        "not sql",
    ):
        assert not only_catalogues(facts(text))
