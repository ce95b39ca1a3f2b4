"""Fixtures that every test may use: real servers, a fresh database, topics of one's own, a configuration.

Servers start when the first test asks for them and run to the end of the session. Tests do not disturb each other:
each gets a database that nobody else uses (`database`, `database18`) and a prefix for its topics (`topic_prefix`);
roles and slots that a test leaves behind are removed with its database.

A test that asks for `postgres`, or for a database on it, runs on PostgreSQL 18 and 15; one that is marked
`every_postgres`, because versions differ in what it looks at, on 16 and 17 too.

Apache Kafka and the PostgreSQL of Debian and of Maven are left out where they are not installed, with one line at the
end that says so; with CI=true leaving anything out is a failure.
"""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psycopg
import pytest
from psycopg import sql

from pgwitness.core import config as configuration
from pgwitness.core.config import Config
from pgwitness.core.privacy import write_key
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres
from tests.servers import kafka
from tests.servers.kafka import Kafka

if TYPE_CHECKING:
    from tests.servers.s3 import S3Server

# No assertion on time: what is first in a process loads tables, and cores are shared.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Hundreds of tests share a server: their statements must not push each other out of its statistics.
SHARED = {**FAST_AND_FORGETFUL, "max_prepared_transactions": "10", "pg_stat_statements.max": "50000"}
DEBIAN_BIN = Path(os.environ.get("POSTGRES15_BIN", "/usr/lib/postgresql/15/bin"))
MAVEN = Path(__file__).parents[1] / "deploy" / "postgres" / "lib"
"""Where `make postgres` puts the servers 16 and 17."""
PACK = Path(__file__).parents[1] / "detectors" / "pack"
AnyBroker = Broker | Kafka
LONGEST = (
    "twin", "contract/test_spine.py", "chaos", "detectors/test_laws.py", "contract", "docs/test_tutorial.py", "demo",
    "collectors/test_beacon_ways_round.py", "servers", "streams", "sinks", "collectors",
)  # fmt: skip
"""What takes minutes, first: a file that begins last ends alone, while the other test processes wait."""
SLOW = (
    "chaos", "cli/test_doctor_storage.py", "cli/test_policy.py", "cli/test_program.py", "cli/test_wide.py",
    "collectors/test_log_secrets.py", "collectors/test_log_shipped.py", "collectors/test_log_texts.py",
    "collectors/test_log_tries.py", "collectors/test_wal_plan.py", "contract", "contract_suites", "demo", "deploy",
    "detectors/test_guards.py", "detectors/test_laws.py", "detectors/test_reads.py", "detectors/test_rhythm.py",
    "docs/test_tutorial.py", "golden", "judgement", "outcomes", "quality", "servers", "sinks/console/test_browser.py",
    "sinks/seal", "sinks/test_adoption.py", "sinks/test_catalogue.py", "sinks/test_chain_model.py",
    "sinks/test_columns.py", "sinks/test_compaction.py", "sinks/test_digest.py", "sinks/test_faults.py",
    "sinks/test_lake.py", "sinks/test_lake_put_back.py", "sinks/test_modes.py", "sinks/test_reading_only.py",
    "sinks/test_reconciliation.py", "sinks/test_report.py", "sinks/test_spill.py", "streams/test_admin.py",
    "streams/test_fold_replay.py", "streams/test_log_coverage.py", "streams/test_log_join_truth.py", "twin",
)  # fmt: skip
"""What takes seconds without asking for a server's fixture; `--quick` leaves it out."""
SERVERS = frozenset((
    "servers_path", "postgres", "database", "database18", "broker", "embedded_broker", "apache_kafka", "installation",
    "server",
))  # fmt: skip
"""Fixtures behind which a server stands."""
LEFT_OUT = "left out: "

# Test processes are given a width of 80 columns, which would bend the tables that tests look at.
os.environ.pop("COLUMNS", None)


def leave_out(what: str) -> None:
    """End the test that asks for something not installed here: skipped, or failed with CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; with CI=true nothing may be left out", pytrace=False)
    pytest.skip(LEFT_OUT + what)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out, by the reasons of skipped tests: they come from every process."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    left_out = {reason.split(LEFT_OUT, 1)[1].rstrip("')") for reason in reasons if LEFT_OUT in reason}
    if left_out:
        terminalreporter.write_line(LEFT_OUT + "; ".join(sorted(left_out)), yellow=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make check` leave out what takes a server or minutes."""
    parser.addoption("--quick", action="store_true", help="only tests that take neither a server nor long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; within a file, and among the short ones, the order stays."""
    if config.getoption("--quick"):
        quick, left_out = list[pytest.Item](), list[pytest.Item]()
        for item in items:
            (quick if _quick(item) else left_out).append(item)
        config.hook.pytest_deselected(items=left_out)
        items[:] = quick
    items.sort(key=lambda item: _place(item.path, LONGEST))


@functools.cache  # asked for each of thousands of tests, in each process
def _place(file: Path, names: Sequence[str]) -> int:
    """Give where a file, or its folder, stands among some; their number where it does not."""
    path = file.relative_to(Path(__file__).parent)
    return next((n for n, name in enumerate(names) if path.is_relative_to(name)), len(names))


def _quick(item: pytest.Item) -> bool:
    """Tell whether a test takes neither a server nor long."""
    assert isinstance(item, pytest.Function)
    return _place(item.path, SLOW) == len(SLOW) and SERVERS.isdisjoint(item.fixturenames)


@pytest.fixture(scope="session")
def servers_path() -> Iterator[Path]:
    """A folder for the servers' data that PostgreSQL's own system user can enter."""
    path = Path(tempfile.mkdtemp(prefix="pgwitness-tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres18(servers_path: Path) -> Iterator[Postgres]:
    """PostgreSQL 18 from the wheel; shared by all tests, so none may stop it."""
    with Postgres(servers_path / "postgres18", settings=SHARED) as server:
        yield server


@pytest.fixture(scope="session")
def postgres15(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """PostgreSQL 15 from Debian's package; shared by all tests, so none may stop it."""
    if not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    with Postgres(servers_path / "postgres15", bin=DEBIAN_BIN, settings=SHARED) as server:
        yield server


def maven_bin(version: int) -> Path:
    """Give the programs of PostgreSQL 16 or 17; leaves the test out where they are not."""
    programs = MAVEN / str(version) / "server" / "bin"
    if not (programs / "postgres").exists():
        leave_out(f"PostgreSQL {version} is not in {MAVEN} (run `make postgres`)")
    return programs


@pytest.fixture(scope="session")
def postgres16(servers_path: Path) -> Iterator[Postgres]:
    """PostgreSQL 16 from Maven; shared by all tests, so none may stop it."""
    with Postgres(servers_path / "postgres16", bin=maven_bin(16), settings=SHARED) as server:
        yield server


@pytest.fixture(scope="session")
def postgres17(servers_path: Path) -> Iterator[Postgres]:
    """PostgreSQL 17 from Maven; shared by all tests, so none may stop it."""
    with Postgres(servers_path / "postgres17", bin=maven_bin(17), settings=SHARED) as server:
        yield server


POSTGRES = ["postgres18", pytest.param("postgres15", marks=pytest.mark.debian)]
EVERY_POSTGRES = [*POSTGRES, *(pytest.param(f"postgres{version}", marks=pytest.mark.maven) for version in (16, 17))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `postgres` on each that it is for."""
    if "postgres" in metafunc.fixturenames:
        every = metafunc.definition.get_closest_marker("every_postgres") is not None
        metafunc.parametrize("postgres", EVERY_POSTGRES if every else POSTGRES, indirect=True)


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """Each PostgreSQL in turn: a test that asks for it runs once on every one."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, Postgres)
    return server


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    """An S3 server on loopback."""
    from tests.servers.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with credentials for it in the environment."""
    from tests.servers.s3 import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return s3_process


@pytest.fixture(scope="session")
def embedded_broker(servers_path: Path) -> Iterator[Broker]:
    """The embedded broker; shared by all tests, so none may stop it."""
    with Broker(servers_path / "broker") as server:
        yield server


@pytest.fixture(scope="session")
def apache_kafka(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Kafka]:
    """Apache Kafka 4; shared by all tests, so none may stop it."""
    absent = kafka.missing()
    if absent is not None:
        leave_out(f"Apache Kafka: {absent} not found")
    with Kafka(servers_path / "kafka") as server:
        yield server


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> AnyBroker:
    """Each broker in turn: a test that asks for it runs once on every one."""
    server = request.getfixturevalue({"embedded": "embedded_broker", "apache": "apache_kafka"}[request.param])
    assert isinstance(server, Broker | Kafka)
    return server


_numbers = itertools.count(1)


@contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """Make a database for one test and give the superuser's DSN for it.

    At the end the database goes, and with it the slots and the roles that were made since, and what a test that failed
    had prepared and not ended: no slot is made on this server as long as that is there.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        before = _roles(admin)
        admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
    try:
        yield server.dsn(dbname=name)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            _roll_back_prepared(server, admin, name)
            _drop_slots(admin, name)
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            for role in sorted(_roles(admin) - before):
                admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _roles(admin: psycopg.Connection) -> set[str]:
    return {str(name) for (name,) in admin.execute("SELECT rolname FROM pg_roles").fetchall()}


def _roll_back_prepared(server: Postgres, admin: psycopg.Connection, database: str) -> None:
    """Roll back a database's prepared transactions, which only a session in it can."""
    listed = admin.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [database]).fetchall()
    if listed:
        with psycopg.connect(server.dsn(dbname=database), autocommit=True) as inside:
            for (gid,) in listed:
                inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


def _drop_slots(admin: psycopg.Connection, database: str) -> None:
    """Drop a database's slots; one that a walsender still holds is taken from it first."""
    slots = admin.execute("SELECT slot_name FROM pg_replication_slots WHERE database = %s", [database]).fetchall()
    for (slot,) in slots:
        admin.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            [slot],
        )
        admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The superuser's DSN of a fresh database, on each PostgreSQL in turn."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture
def database18(postgres18: Postgres) -> Iterator[str]:
    """The superuser's DSN of a fresh database on PostgreSQL 18."""
    with fresh_database(postgres18) as dsn:
        yield dsn


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics that no other test uses."""
    return f"t{secrets.token_hex(4)}."


@pytest.fixture
def config_factory(topic_prefix: str) -> Callable[..., Config]:
    """`write_config` with the test's own topic prefix."""

    def write(directory: Path, bootstrap: str, dsn: str, databases: Sequence[str] = (), **options: Any) -> Config:
        return write_config(directory, bootstrap, dsn, databases, **{"prefix": topic_prefix, **options})

    return write


def write_config(
    directory: Path,
    bootstrap: str,
    dsn: str,
    databases: Sequence[str] = (),
    *,
    prefix: str,
    cluster: str = "shop",
    raw_partitions: int = 2,
    event_partitions: int = 2,
    replicas: Sequence[str] = (),
    cluster_extra: str = "",
    extra: str = "",
) -> Config:
    """Write `pgwitness.toml` into a folder and give the loaded configuration.

    What is not there yet is written too: `privacy.key`, the packaged policies, an `identities.yaml` without rules.

    `extra` is TOML that is appended as it is, `cluster_extra` likewise to the table of the cluster. Free ports serve
    the metrics, and everything is done more often than by default.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "pgwitness.toml"
    path.write_text(
        f"""\
[kafka]
bootstrap = "{bootstrap}"
prefix = "{prefix}"

[topics]
raw_partitions = {raw_partitions}
event_partitions = {event_partitions}

[worker]
group = "{prefix}worker"
grace = "500ms"
checkpoint_interval = "1s"
session_timeout = "6s"

[collectors]
heartbeat_interval = "1s"

[lake]
flush_interval = "500ms"

[http]
collect_port = 0
worker_port = 0
deliver_port = 0

[clusters.{cluster}]
dsn = "{dsn}"
databases = {_toml(databases)}
replicas = {_toml(replicas)}
labels = {{ env = "test", owner = "payments" }}
stats_interval = "1s"
sessions_interval = "200ms"
posture_interval = "500ms"
{cluster_extra}
{extra}
"""
    )
    if not (directory / "privacy.key").exists():
        write_key(directory / "privacy.key", secrets.token_bytes(32))
    if not (directory / "policies").exists():
        shutil.copytree(PACK, directory / "policies", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if not (directory / "identities.yaml").exists():
        (directory / "identities.yaml").write_text("rules: []\n")
    return configuration.load(path)


def _toml(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
