"""Both ways to a server: its own port, and a gateway's in front of it, which runs as a daemon as it is deployed.

Both ask for the same role's password, which is a service's. The gateway asks the packaged policies of each statement,
and refuses nothing by them: suites read the server's files and make functions in C, which is what those forbid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port, wait_for
from tests.bench.latency import daemon, pgwitness

ROLE, PASSWORD = "postgres", "not-a-secret"
HBA = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
IDENTITIES = "rules:\n  - {id: suite, match: {role: '*'}, principal: suite, kind: service}\n"
DENIED = """\
id: never_in_a_suite
title: What no suite does
description: Something is denied, so that all is judged that could hide it.
severity: low
kinds: [statement]
when: '"public.never_in_a_suite" in relations'
effect: deny
message: "{who} asked for {what}"
runbook: Nothing.
tests:
  - {name: asked for, match: true, action: {relations: [public.never_in_a_suite]}}
  - {name: another, match: false, action: {relations: [public.other]}}
"""
READY_S_MAX = 60.0


@dataclass(frozen=True)
class Way:
    """A way to a server's database: `name` is `direct` or `gateway`."""

    name: str
    port: int
    database: str
    host: str = LOOPBACK
    user: str = ROLE
    password: str = PASSWORD

    @property
    def dsn(self) -> str:
        """Where a client of libpq connects."""
        return make_conninfo(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=self.database,
            sslmode="disable", gssencmode="disable",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The same as a URL, for clients of other drivers."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}?sslmode=disable"


def ask_for_passwords(server: Postgres) -> None:
    """Let nobody in over TCP without a password, and give the role one."""
    with psycopg.connect(server.socket_dsn(), autocommit=True) as admin:
        admin.execute("SET password_encryption = 'scram-sha-256'")
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), PASSWORD))
        (server.data / "pg_hba.conf").write_text(HBA)
        admin.execute("SELECT pg_reload_conf()")


@contextmanager
def gateway(place: Path, server: Postgres, broker: Broker, database: str, prefix: str = "suites.") -> Iterator[Way]:
    """Run a gateway in front of a server, in a folder of its own."""
    place.mkdir()
    pgwitness(place, "init", str(place))
    (place / "identities.yaml").write_text(IDENTITIES)
    for file in (place / "policies").glob("*.yaml"):
        file.write_text(file.read_text().replace("\neffect: deny\n", "\neffect: alert\n"))
    (place / "policies" / "suites.yaml").write_text(DENIED)
    port = free_port()
    (place / "pgwitness.toml").write_text(
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\nprefix = "{prefix}"\n'
        f'[clusters.suites]\ndsn = "{server.socket_dsn()}"\ndatabases = ["{database}"]\n'
        f'[privacy]\nkey_file = "privacy.key"\n[identities]\nfile = "identities.yaml"\n[policies]\npath = "policies/"\n'
        f'[gateway]\nlisten = "{LOOPBACK}:{port}"\n[gateway.databases."*"]\ncluster = "suites"\n'
        f'upstream = "host={LOOPBACK} port={server.port} sslmode=disable"\n'
    )
    pgwitness(place, "topics", "apply")
    process = daemon(place, "gateway", "--port", "0")
    way = Way("gateway", port, database)
    try:
        wait_for(lambda: _answers(way, process, place), READY_S_MAX, "the gateway")
        yield way
    finally:
        process.terminate()
        psutil.wait_procs([process], timeout=20)


def _answers(way: Way, process: psutil.Popen, place: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the gateway has ended:\n{(place / 'gateway.log').read_text()[-2000:]}")
    try:
        psycopg.connect(way.dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def both(
    folder: Path, settings: Mapping[str, str], programs: Path | None = None, database: str = "postgres"
) -> Iterator[tuple[Way, Way]]:
    """Have one server with both ways to it."""
    folder.chmod(0o755)
    server = Postgres(folder / "postgres", bin=programs, settings={"fsync": "off", **settings})
    with server, Broker(folder / "broker") as broker:
        ask_for_passwords(server)
        with gateway(folder / "gateway", server, broker, database) as way:
            yield Way("direct", server.port, database), way
