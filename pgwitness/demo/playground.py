"""A system to play with: `pgwitness demo --serve` keeps servers, collectors and worker running until Ctrl-C.

A database `shop` with one table and one role `app` that every program shares, and an `identities.yaml` without rules:
where most installations start. The tutorial goes on from here. What was witnessed stays in the folder; the servers
and the database's data are gone afterwards.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pgwitness.core.config import load
from pgwitness.demo import configuration, office, report
from pgwitness.demo.daemons import fresh, prepare, servers, unwinding, watching
from pgwitness.demo.doors import certify
from pgwitness.demo.keeping import serve_console
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port

LOOK_S = 0.5
SCHEMA = """
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL, total numeric(10, 2) NOT NULL, status text NOT NULL DEFAULT 'placed');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app;
"""
TITLE = "The configuration of `pgwitness demo --serve`: short intervals, so that nobody waits."
MORE = """\
[identities]
claims_keys = "claims.pem"          # whose signed tokens are believed
claims_issuer = "https://portal.example"

[console]
listen = "{host}:{port}"

"""
APPROVER, APPROVER_KEY, GROUP = "ada", "ada.key", "owners"
ROLES_FILE = '"agent" "the server asks nobody of this machine for a password"\n'
CONSOLE_USER = "demo"
IDENTITIES = """\
# Who is who: the first rule that matches wins. There is none yet, so nobody has a name.
rules:
"""
ENVIRONMENT = """\
# Where the database is, for psql and every other client of libpq: `. {place}/environment`
export PGHOST={host} PGPORT={port} PGDATABASE=shop PGUSER=app
# For the tutorial: psql, the server's superuser, and a port for a gateway.
export PATH="$PATH:{psql}" ADMIN=postgresql://postgres@{host}:{port}/shop GATEWAY_PORT={gateway_port}
"""


def main(folder: Path) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    Raise `ConfigurationError` when the folder is in use, `Unreachable` when something does not start, or ends.
    """
    place = fresh(folder)
    tell = report.Narrator(sys.stderr)
    with unwinding(), contextlib.ExitStack() as stack:
        with tell:
            tell("starting PostgreSQL 18 and the broker")
            postgres, broker = stack.enter_context(servers(place))
            config = _configure(place, postgres, broker)
            with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
                admin.execute("CREATE ROLE app LOGIN")
                admin.execute("CREATE EXTENSION pg_stat_statements")
                admin.execute("CREATE DATABASE shop")
            with psycopg.connect(postgres.dsn(dbname="shop")) as owner:
                owner.execute(SCHEMA)
            tell("installing the beacon, creating the topics")
            prepare(config, postgres.dsn())
            tell("starting the collectors and the worker")
            daemons = stack.enter_context(watching(config, place / "logs"))
            tell("starting the console")
            password, console = serve_console(config, CONSOLE_USER, place / "logs", stack)
            daemons.append(console)
        _say(postgres, _named(place), load(config).console.listen, password)
        pause = threading.Event()
        with contextlib.suppress(KeyboardInterrupt):
            while not pause.wait(LOOK_S):
                for daemon in daemons:
                    daemon.check()


def _say(postgres: Postgres, place: Path, console: str, password: str) -> None:
    for line in (
        "ready: every transaction of this database is witnessed",
        f"  {postgres.dsn('app', 'shop')}",
        f"  psql: {postgres.psql_bin / 'psql'}",
        f"  console: http://{console}/ as {CONSOLE_USER} with the password {password}",
        f"In another terminal: . {place}/environment sets PGHOST, PGPORT, PGDATABASE and PGUSER for your programs,",
        f'and pgwitness sql --config {place}/pgwitness.toml "SELECT * FROM changes" shows what they did.',
        "Ctrl-C ends it; the evidence stays.",
    ):
        print(line, flush=True)


def _named(place: Path) -> Path:
    """Return the folder as one would type it from here."""
    here = Path.cwd()
    return place.relative_to(here) if place.is_relative_to(here) and place != here else place


def _configure(place: Path, postgres: Postgres, broker: Broker) -> Path:
    from pgwitness.cli.init import write

    more = MORE.format(host=LOOPBACK, port=free_port()) + office.furnish(place, APPROVER, APPROVER_KEY, GROUP)
    path = configuration.write(
        place, postgres, broker, title=TITLE, clear=["public.orders.status"], flush_interval="1s", more=more
    )
    (place / "identities.yaml").write_text(IDENTITIES)
    environment = {"host": LOOPBACK, "port": postgres.port, "psql": postgres.psql_bin, "gateway_port": free_port()}
    (place / "environment").write_text(ENVIRONMENT.format(place=_named(place), **environment))
    certify(place)
    (place / "gateway-roles").touch(mode=0o600)
    (place / "gateway-roles").write_text(ROLES_FILE)
    # Nobody keeps the private half: until somebody puts a key of their own here, no token is believed.
    (place / "claims.pem").write_bytes(
        Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    write(place)  # the policies and the masking key; what is there already stays
    return path
