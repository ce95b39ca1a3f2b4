"""Whatever is killed or restarted under load: committed rows are landed rows, once, of the same principals."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psycopg
import pytest

from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres, wait_for
from tests.chaos.workload import BULKY, MODEST, Workload
from tests.conftest import fresh_database, leave_out, write_config
from tests.contract.system import LAND_EVERY_S, Daemon, System
from tests.often import often
from tests.servers import kafka
from tests.servers.kafka import Kafka

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

KILLS = often(3, 20)
SECONDS_MAX = 20.0
"""How long to wait for the next moment to kill when nothing can be committed."""
LAND_SECONDS_MAX = 120.0

LANDED = """
SELECT principal, operation, count(*) FROM events
WHERE kind = 'change' AND relations = ['public.orders'] GROUP BY ALL
"""
LEDGER = """
SELECT principal, CAST(json_extract(after, '$.number') AS BIGINT) FROM changes WHERE relations = ['public.ledger']
"""
NAMELESS_LATER = """
SELECT count(*) FROM events WHERE kind = 'change' AND principal IS NULL
AND relations IN (['public.orders'], ['public.ledger']) AND occurred_at >
coalesce((SELECT max(occurred_at) FROM events WHERE operation = 'beacon_renew_key'), '-infinity')
"""
DOUBLES = "SELECT event_id, count(*) FROM events GROUP BY ALL HAVING count(*) > 1"


@pytest.fixture
def dice() -> tuple[int, Random]:
    """A seed, printed by a failing test and set again with CHAOS_SEED, and the dice made from it."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"CHAOS_SEED={seed}")
    return seed, Random(seed)


@pytest.fixture
def own_postgres(servers_path: Path, topic_prefix: str) -> Iterator[Postgres]:
    """A PostgreSQL 18 that the test may stop and kill."""
    server = Postgres(servers_path / f"chaos-{topic_prefix}", settings=FAST_AND_FORGETFUL)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kafka]:
    """An Apache Kafka that the test may stop and kill."""
    absent = kafka.missing()
    if absent is not None:
        leave_out(f"Apache Kafka: {absent} not found")
    with Kafka(tmp_path / "kafka") as server:
        yield server


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """An embedded broker of the test's own."""
    with Broker(tmp_path / "broker") as server:
        yield server


def make(tmp_path: Path, bootstrap: str, dsn: str, database: str, prefix: str, seed: int) -> tuple[System, Workload]:
    """Make the workload's database and a configuration for it, and install what the source needs."""
    workload = Workload(dsn, prefix.strip("."), seed=seed, sizes=often(MODEST, BULKY))
    workload.prepare()
    directory = tmp_path / "system"
    directory.mkdir()
    (directory / "identities.yaml").write_text(workload.identities())
    config = write_config(
        directory,
        bootstrap,
        dsn.replace("postgres@", "pgwitness@"),
        [database],
        prefix=prefix,
        extra="[behaviour]\nenabled = false",
    )
    system = System(directory, config, dsn)
    system.prepare()
    return system, workload


def collectors(system: System) -> list[Daemon]:
    """Start the collectors in two processes, so that one can be killed without the other."""
    others = system.daemon("collect", "stats", "sessions", name="collect-others")
    return [system.collect("wal"), others]


def prove(system: System, workload: Workload, *, key_lost: bool = False) -> None:
    """Hold the lake against the workload's books: every transaction, every row, every name, nothing twice.

    `key_lost`: the database may have lost the beacon's key in a crash or a promotion; what was written until another
    one was made has no proven name, which a gap says, and is nobody else's.
    """
    books = workload.rows()
    assert books, "the workload committed nothing, so this proves nothing"

    def landed() -> bool:
        return sum(int(count) for _, _, count in system.query(LANDED)) >= sum(books.values())

    try:
        wait_for(landed, LAND_SECONDS_MAX, "all committed rows land", every_s=LAND_EVERY_S)
    except Exception:
        # What is missing says more than that something is.
        missing = workload.transactions() - set(system.query(LEDGER))
        logs = "\n\n".join(daemon.complaint() for daemon in system.daemons if daemon.running)
        shown = {(who, what): count for who, what, count in system.query(LANDED)}
        raise AssertionError(
            f"of {len(workload.transactions())} transactions {len(missing)} are missing: {sorted(missing)[:10]}\n"
            f"committed {books}\nlanded    {shown}\n\n{logs}"
        ) from None
    # A clean end lands what is still under way, so that a double could not come later. One that has only just been
    # started again does not know yet how to end cleanly.
    running = [daemon.ready() for daemon in system.daemons if daemon.running]
    for daemon in running:
        assert daemon.stop() == 0, daemon.complaint()
    rows = {(who, what): count for who, what, count in system.query(LANDED)}
    ledger = system.query(LEDGER)
    named = [pair for pair in ledger if pair[0] is not None]
    assert len(named) == len(set(named))
    nameless = [number for who, number in ledger if who is None]
    if key_lost and nameless:
        assert system.query(NAMELESS_LATER) == [(0,)]
        # Clients count alike, so of what has no name the numbers come as often as they are missing.
        missing = workload.transactions() - set(named)
        assert sorted(nameless) == sorted(number for _, number in missing)
        assert set(named) <= workload.transactions()
        assert sums(rows) == sums(books)
        assert all(count <= books.get(pair, 0) for pair, count in rows.items() if pair[0] is not None)
    else:
        assert set(ledger) == workload.transactions()
        assert rows == books
    assert system.query(DOUBLES) == []


def sums(rows: dict[tuple[str | None, str], int]) -> dict[str, int]:
    """Add up rows by operation, whoever's they are."""
    found: dict[str, int] = {}
    for (_, what), count in rows.items():
        found[what] = found.get(what, 0) + count
    return found


def test_kill_nine_of_any_daemon_at_random_moments(
    own_kafka: Kafka, postgres18: Postgres, tmp_path: Path, topic_prefix: str, dice: tuple[int, Random]
) -> None:
    """SIGKILL of collector and workers at random moments under load loses nothing and doubles nothing.

    Two workers share the partitions, so every kill of one and every start is a rebalance too.
    """
    seed, random = dice
    with fresh_database(postgres18) as dsn:
        database = dsn.rpartition("/")[2]
        system, workload = make(tmp_path, own_kafka.bootstrap, dsn, database, topic_prefix, seed)
        with system:
            daemons = [*collectors(system), system.worker(1), system.worker(2)]
            for daemon in daemons:
                daemon.ready()
            workload.start()
            for _ in range(KILLS):
                workload.wait_for_more(random.randint(20, 400), SECONDS_MAX)
                victim: Daemon = random.choice(daemons)
                victim.kill()
                workload.wait_for_more(random.randint(0, 200), SECONDS_MAX)
                victim.start()
            workload.end()
            prove(system, workload)


def test_restarts_of_kafka_and_postgres(
    own_kafka: Kafka, own_postgres: Postgres, tmp_path: Path, topic_prefix: str, dice: tuple[int, Random]
) -> None:
    """Kafka and PostgreSQL that are restarted, in order or by SIGKILL, are waited for: nothing is lost or doubled."""
    seed, random = dice
    dsn = own_postgres.dsn()
    system, workload = make(tmp_path, own_kafka.bootstrap, dsn, "postgres", topic_prefix, seed)
    with system:
        for daemon in (*collectors(system), system.worker(1)):
            daemon.ready()
        workload.start()
        ends = [own_kafka.stop, own_postgres.stop, own_kafka.kill, own_postgres.kill]
        random.shuffle(ends)
        for end in ends * often(1, 2):
            workload.wait_for_more(random.randint(50, 300), SECONDS_MAX)
            end()
            workload.wait_for_more(50, 1.0)
            own_postgres.start()
            own_kafka.start()
        workload.wait_for_more(100, SECONDS_MAX)
        workload.end()
        prove(system, workload, key_lost=True)
        starts = "SELECT count(DISTINCT detail ->> '$.started_us') FROM events WHERE operation = 'server_started'"
        assert system.query(starts)[0][0] >= 1


def test_a_promoted_standby_is_followed(
    own_broker: Broker,
    own_postgres: Postgres,
    servers_path: Path,
    tmp_path: Path,
    topic_prefix: str,
    dice: tuple[int, Random],
) -> None:
    """When the primary dies and its standby is promoted, the collector goes on there from the failover slot.

    The new timeline is a gap in the evidence that says so, and no row is lost or doubled.
    """
    seed, random = dice
    standby = Postgres.standby_of(own_postgres, servers_path / f"standby-{topic_prefix}")
    try:
        standby.start()
        protect(own_postgres)
        dsn = (
            f"postgresql://postgres@127.0.0.1:{own_postgres.port},127.0.0.1:{standby.port}/postgres"
            "?target_session_attrs=read-write"
        )
        system, workload = make(tmp_path, own_broker.bootstrap, dsn, "postgres", topic_prefix, seed)
        with system:
            for daemon in (*collectors(system), system.worker(1)):
                daemon.ready()
            workload.start()
            workload.wait_for_more(random.randint(100, 400), SECONDS_MAX)
            wait_for(lambda: slot_is_synced(standby), 60, "the failover slot is copied to the standby")
            workload.wait_for_more(random.randint(100, 400), SECONDS_MAX)
            own_postgres.kill()
            standby.promote()
            workload.wait_for_more(random.randint(200, 400), 60)
            workload.end()
            prove(system, workload, key_lost=True)
            assert system.query("SELECT count(*) > 0 FROM gaps WHERE detail LIKE '%timeline%'") == [(True,)]
    finally:
        standby.remove()


def protect(primary: Postgres) -> None:
    """Make the primary wait for its standby: no commit is lost, no logical slot runs ahead of it."""
    with psycopg.connect(primary.dsn(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        admin.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
        admin.execute("SELECT pg_reload_conf()")


def slot_is_synced(standby: Postgres) -> bool:
    """Say whether the standby has a copy of the logical slot that outlives a promotion."""
    query = "SELECT count(*) > 0 FROM pg_replication_slots WHERE synced AND NOT temporary AND NOT conflicting"
    with psycopg.connect(standby.dsn()) as connection:
        return connection.execute(query).fetchone() == (True,)
