"""Forty sessions over five routes: by the beacon every change has its name, by the log alone the right one or none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import sql

from pgwitness.core.config import Config, load
from pgwitness.demo.servers import Broker, Postgres, wait_for
from tests.collectors.log_server import SETTINGS, TIMEZONE, pattern
from tests.conftest import leave_out, write_config
from tests.contract.system import System
from tests.contract.workload import IDENTITIES, ROLES, Change, Workload, calm, make, run_psql
from tests.servers import pgbouncer
from tests.servers.pgbouncer import PgBouncer

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
TABLES = ("by_beacon", "by_announced", "by_statement", "by_duration")
LOGS = {
    "by_announced": ("all", "0"),
    "by_statement": ("all", "-1"),
    "by_duration": ("none", "0"),
}
"""For each table written without a beacon: log_statement and log_min_duration_statement meanwhile. The first are the
server's from its start: who changes them may have taken sessions out of the log, and nobody is believed to be alone."""
SECONDS_MAX = 30.0
LIES = (-1, -2, -3, -4, -5)
"""Keys of what was written under a false name."""


def token(who: str, key: Ed25519PrivateKey = KEY, database: str = "postgres", lasts_s: int = 600) -> str:
    """Sign that an agent acts for a person."""
    claims = {
        "sub": f"person of {who}", "act": {"sub": who}, "agent": {"name": who}, "aud": f"shop/{database}",
        "exp": int(time.time()) + lasts_s, "jti": who,
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm="EdDSA")


@pytest.fixture(scope="module")
def server(servers_path: Path) -> Iterator[Postgres]:
    """A server that announces every statement in its log, and tells when it has ended."""
    settings = {
        **SETTINGS,
        "log_destination": "jsonlog",
        "log_error_verbosity": "verbose",
        "log_directory": "log",
        "log_statement": "all",
    }
    with Postgres(servers_path / "workload", settings=settings) as made:
        yield made


def test_every_change_has_the_right_name_or_none(
    server: Postgres,
    embedded_broker: Broker,
    tmp_path: Path,
    servers_path: Path,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the lake says of each change, against what the sessions wrote down themselves, however it was captured."""
    if pgbouncer.program() is None:
        leave_out("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    monkeypatch.setenv("PGWITNESS_WORKER__GRACE", "5s")
    make(server.dsn(), list(TABLES))
    with System(*configure(server, embedded_broker, tmp_path, topic_prefix)) as system:
        system.prepare()
        uncover(server.dsn(), [table for table in TABLES if table != "by_beacon"])
        system.collect("wal", "sessions", "log").ready()
        system.worker().ready()
        posture(system, "log_statement", "all")
        ledgers: dict[str, Counter[Change]] = {}
        told: dict[str, Counter[str]] = {}
        for table in TABLES:
            if table in LOGS and table != "by_announced":
                log(server, *LOGS[table])
            with PgBouncer(servers_path / f"pgbouncer-{table}", server, ROLES) as pool:
                claim = token if table == "by_beacon" else None
                ledgers[table] = Workload(server, pool.dsn("pooled"), table, claim).perform()
                if table == "by_beacon":
                    lie(server, pool)
            if table in LOGS:
                ledgers[table] += calm(server, table, 12)
            if table == "by_announced":  # before the log is changed, and with it what it proves
                told[table] = compare(system, table, ledgers.pop(table))
        told |= {table: compare(system, table, ledger) for table, ledger in ledgers.items()}
        caught(system)
        assert [daemon.stop() for daemon in system.daemons] == [0, 0]
    with capsys.disabled():
        for table, counted in told.items():
            print(f"\n{table}: {dict(sorted(counted.items()))}", end="")
    assert set(told["by_beacon"]) == {"beacon exact"}
    for table in LOGS:
        assert set(told[table]) <= {"log exact", "log strong", "log weak", "none none"}
        assert told[table]["log exact"] > sum(told[table].values()) / 4
    assert told["by_announced"]["log strong"] > 0
    assert told["by_duration"]["log weak"] > 0
    assert not any(told[table]["log strong"] for table in ("by_statement", "by_duration"))


def configure(server: Postgres, broker: Broker, directory: Path, prefix: str) -> tuple[Path, Config, str]:
    """Write the configuration; gives what a system is made of."""
    log_table = (
        f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\n'
        'start = "beginning"\ninterval = "50ms"\n'
    )
    (directory / "claims.pem").write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (directory / "identities.yaml").write_text(IDENTITIES)
    write_config(
        directory, broker.bootstrap, server.dsn("pgwitness"), ["postgres"], prefix=prefix, cluster_extra=log_table,
        extra='[identities]\nclaims_keys = "claims.pem"\n',
    )  # fmt: skip
    path = directory / "pgwitness.toml"
    # Looks at sessions would name transactions by their samples, which is not what is tested.
    path.write_text(path.read_text().replace('sessions_interval = "200ms"', 'sessions_interval = "1h"'))
    return directory, load(path), server.dsn()


def uncover(admin_dsn: str, tables: list[str]) -> None:
    """Take the beacon off tables, as on a database where none may be installed; they stay published."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        for table in tables:
            triggers = admin.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table]
            ).fetchall()
            for (name,) in triggers:
                admin.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), sql.Identifier(table)))
        admin.execute("DELETE FROM pgwitness.covered WHERE relation::text <> 'by_beacon'")


def log(server: Postgres, statements: str, duration: str) -> None:
    """Change what the server writes into its log, and wait until new sessions do so."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET log_statement = '{statements}'")
        admin.execute(f"ALTER SYSTEM SET log_min_duration_statement = '{duration}'")
        admin.execute("SELECT pg_reload_conf()")

    def is_so() -> bool:
        with psycopg.connect(server.dsn()) as session:
            found = session.execute(
                "SELECT current_setting('log_statement'), current_setting('log_min_duration_statement')"
            ).fetchone()
        return found == (statements, duration)

    wait_for(is_so, SECONDS_MAX, "the settings of the log")


def posture(system: System, name: str, value: str) -> None:
    """Wait until a setting was seen."""
    found = f"SELECT count(*) FROM posture WHERE json_extract_string(detail, '$.name') = '{name}'"
    found += f" AND json_extract_string(detail, '$.after.value') = '{value}'"
    system.landed(found, lambda rows: rows != [] and rows[0][0] > 0)


def lie(server: Postgres, pool: PgBouncer) -> None:
    """Claims that are forged, expired, for another database; a comment against a claim, and one against a role."""
    bad = (token("forged", OTHER), token("expired", lasts_s=-600), token("elsewhere", database="billing"))
    with psycopg.connect(
        pool.dsn("pooled"), application_name="liar", autocommit=True, prepare_threshold=None
    ) as connection:
        for number, said in enumerate(bad):
            with connection.transaction():
                connection.execute("SELECT pgwitness.claim(%s)", [said])
                connection.execute("INSERT INTO by_beacon VALUES (%s, 'lie')", [-1 - number])
        with connection.transaction():
            connection.execute("SELECT pgwitness.claim(%s)", [token("triage")])
            connection.execute("INSERT INTO by_beacon VALUES (-4, 'lie') /*agent='chief',on_behalf_of='cfo'*/")
    run_psql(server, "own_1", "INSERT INTO by_beacon VALUES (-5, 'lie') /*agent='bot',on_behalf_of='own_2'*/;")


def caught(system: System) -> None:
    """Each lie is a finding, and nobody's name."""
    named = system.query(
        "SELECT json_extract_string(row_key, '$.id')::int, principal, assurance,"
        " json_extract_string(detail, '$.finding') FROM changes WHERE list_contains(relations, 'public.by_beacon')"
        " AND json_extract_string(row_key, '$.id')::int < 0 ORDER BY 1"
    )
    assert named == [
        (-5, "own_1", "role_only", None),
        (-4, "triage", "verified", None),
        (-3, "liar", "asserted", "claim_refused"),
        (-2, "liar", "asserted", "claim_refused"),
        (-1, "liar", "asserted", "claim_refused"),
    ]
    refused = system.query(
        "SELECT json_extract_string(detail, '$.reason') FROM control WHERE operation = 'claim_refused' ORDER BY 1"
    )
    assert refused == [("audience",), ("expired",), ("signature",)]
    conflicts = system.landed(
        "SELECT json_extract_string(detail, '$.stronger.principal') FROM control"
        " WHERE operation = 'identity_conflict' ORDER BY 1",
        lambda rows: len(rows) >= 2,
    )
    assert conflicts == [("own_1",), ("triage",)]


def compare(system: System, table: str, ledger: Counter[Change]) -> Counter[str]:
    """Hold each change that landed against the ledger: the right name or none; gives how many were bound how."""
    mine = f"FROM changes WHERE relations = ['public.{table}'] AND json_extract_string(row_key, '$.id')::bigint NOT IN"
    mine += f" ({', '.join(str(key) for key in LIES)})"
    total = sum(ledger.values())
    system.landed(f"SELECT count(*) {mine}", lambda rows: rows == [(total,)])
    told = system.query(
        f"SELECT operation, json_extract_string(row_key, '$.id')::bigint, principal, binding, certainty {mine}"
    )
    owners = {(operation, key): who for who, operation, key in ledger}
    assert Counter((operation, key) for operation, key, *_ in told) == Counter(
        {(operation, key): number for (_, operation, key), number in ledger.items()}
    )
    wrong = [(row, owners[row[0], row[1]]) for row in told if row[2] is not None and row[2] != owners[row[0], row[1]]]
    assert wrong == []
    assert all((who is None) == (certainty == "none") for _, _, who, _, certainty in told)
    return Counter(f"{binding} {certainty}" for *_, binding, certainty in told)
