"""`pgwitness db` as an administrator runs it: for several databases, with libpq's own way to a password."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgwitness.cli.program import main
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

DATABASES = ("shop", 'it\'s "billing"')


@pytest.fixture(scope="module")
def server(servers_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that asks everybody for a password, by SCRAM; two databases with a table each."""
    with Postgres(servers_path / "scram", settings=FAST_AND_FORGETFUL) as made:
        for database in DATABASES:
            with psycopg.connect(made.dsn(), autocommit=True) as admin:
                admin.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(database)))
            with psycopg.connect(made.dsn(), dbname=database, autocommit=True) as admin:
                admin.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        with psycopg.connect(made.dsn(), autocommit=True) as admin:
            admin.execute("ALTER ROLE postgres PASSWORD 'of the administrator'")
            admin.execute("CREATE ROLE pgwitness LOGIN PASSWORD 'of the collectors'")
            (made.place / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8")
            admin.execute("SELECT pg_reload_conf()")
        yield made


@pytest.fixture
def config(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with the collectors' password, and the administrator's where libpq looks for it."""
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:postgres:of the administrator\n", encoding="utf-8")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    (tmp_path / "collectors").write_text("of the collectors\n", encoding="utf-8")
    path = tmp_path / "pgwitness.toml"
    path.write_text(
        f'[clusters.shop]\ndsn = "{server.dsn("pgwitness")}"\npassword_file = "{tmp_path / "collectors"}"\n'
        + "databases = ["
        + ", ".join('"' + name.replace('"', '\\"') + '"' for name in DATABASES)
        + "]\n",
        encoding="utf-8",
    )
    return path


def run(config: Path, *arguments: str) -> Result:
    """Run a command of `pgwitness db`."""
    return CliRunner().invoke(main, ["db", *arguments, "--config", str(config)])


def test_the_administrator_logs_in_as_psql_does(server: Postgres, config: Path) -> None:
    """With --dsn the password is PGPASSFILE's, not the collectors'; one printed file installs into both databases."""
    printed = run(config, "install", "--print", "--dsn", server.dsn())
    assert printed.exit_code == 0, printed.output
    assert printed.output.count("CREATE ROLE") == 1
    assert "CREATE EXTENSION" not in printed.output, "statistics are read in another database, which the DSN names"
    config.with_name("here.toml").write_text(config.read_text(encoding="utf-8").replace("/postgres", "/shop"), "utf-8")
    here = run(config.with_name("here.toml"), "install", "--print", "--dsn", server.dsn())
    assert here.output.count("CREATE EXTENSION pg_stat_statements") == 1
    file = config.with_name("install.sql")
    file.write_text(printed.output, encoding="utf-8")
    psql = [str(server.psql_bin / "psql"), server.dsn(), "-q", "-X", "--set", "ON_ERROR_STOP=1", "--file", str(file)]
    done = subprocess.run(psql, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    again = run(config, "install", "--print", "--dsn", server.dsn())
    assert "BEGIN" not in again.output
    status = run(config, "status", "--json", "--dsn", server.dsn())
    assert status.exit_code == 0, status.output
    removed = run(config, "uninstall", "--dsn", server.dsn())
    assert removed.exit_code == 0, removed.output
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        roles = admin.execute("SELECT rolname, rolreplication FROM pg_roles WHERE rolname ~ '^pgwitness'").fetchall()
    assert roles == [("pgwitness", False)]
