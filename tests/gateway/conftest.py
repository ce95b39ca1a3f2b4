"""A gateway in front of a test's own database, with a role that logs in through it."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.auth.admission import Admission
from collectors.gateway.auth.rolefile import Roles
from collectors.gateway.auth.users import ServerUsers
from collectors.gateway.connection import Database, House
from collectors.gateway.control.server import open_socket
from collectors.gateway.judging.judge import Judging, Rules
from collectors.gateway.masking.audiences import Audiences
from collectors.gateway.service import listen, serve_clients
from collectors.gateway.spool.records import Begun, Closed, Ended, Opened, Record
from collectors.gateway.spool.spool import Reader, Spool
from collectors.gateway.upstream import Place
from pgwitness.core.config.gateway import GatewayDatabase
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime.health import Health

DEADLINE_S = 20.0
_numbers = itertools.count(1)


class Running:
    """A gateway that runs in this process, without a broker: what it writes down is read from its spool."""

    def __init__(self, spool: Spool, port: int, dsn: str, password: str, house: House) -> None:
        self.spool, self.port, self.password, self.house = spool, port, password, house
        given = conninfo_to_dict(dsn)
        self.database = str(given["dbname"])
        self.role = f"client_{self.database}_{next(_numbers)}"
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("SET password_encryption = 'scram-sha-256'")
            role = sql.Identifier(self.role)
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
            admin.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))

    def dsn(self, **more: str) -> str:
        """Where a client connects."""
        settings = {
            "host": "127.0.0.1", "port": str(self.port), "dbname": self.database, "user": self.role,
            "password": self.password, "application_name": "test", "sslmode": "disable", **more,
        }  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in settings.items())

    def records(self) -> list[Record]:
        """All that stands on the spool."""
        return [record for _, record in Reader(self.spool.folder, 0).read(self.spool.end)]

    def until(self, reached: Callable[[list[Record]], bool]) -> list[Record]:
        """Wait for records."""
        deadline = time.monotonic() + DEADLINE_S
        while not reached(records := self.records()):
            assert time.monotonic() < deadline, records
            time.sleep(0.02)
        return records

    def statements(self, sessions: int = 1) -> list[tuple[Begun, Ended]]:
        """Every statement with what came of it, when so many sessions have ended."""
        records = self.until(lambda found: sum(isinstance(one, Closed) for one in found) >= sessions)
        ended = {(one.session, one.number): one for one in records if isinstance(one, Ended)}
        return [(one, ended[one.session, one.number]) for one in records if isinstance(one, Begun)]

    def opened(self) -> list[Opened]:
        """The sessions."""
        return [one for one in self.records() if isinstance(one, Opened)]


@contextmanager
def running(
    folder: Path,
    dsn: str,
    tls: tuple[object, bytes] | None = None,
    where: str | None = None,
    admission: Admission | None = None,
    rules: Rules | None = None,
    audiences: Audiences | None = None,
    roles: Roles | None = None,
) -> Iterator[Running]:
    """Run a gateway in front of a database; `where` is its upstream, by default the database's own, in the open.

    `admission` is whom it lets in, by default the server's own roles by their passwords. Without `rules` nothing is
    refused, without `audiences` nothing is rewritten. `roles` are those that audiences are logged in as.
    """
    given = conninfo_to_dict(dsn)
    listener = listen("127.0.0.1:0")
    spool = Spool(folder / "spool", 1 << 30)
    place = Place.parse(where or f"host={given['host']} port={given['port']} sslmode=disable")
    users = ServerUsers(dsn, GatewayDatabase(cluster="shop", upstream="").users_query)
    admission = admission or Admission(users)
    context, binding = tls if tls is not None else (None, None)
    house = House(
        {"*": Database("shop", place, admission, roles)},
        spool,
        Judging(tokenizer(b"k" * 32), rules),
        context,  # type: ignore[arg-type]
        binding,
        10.0,
        200,
        audiences=audiences,
    )
    house.control = open_socket(folder / "control", 0, None)
    stop, served = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve_clients, args=(house, listener, stop, Health(), served))
    thread.start()
    try:
        yield Running(spool, listener.getsockname()[1], dsn, secrets.token_hex(8), house)
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        listener.close()
        house.control.close()
        spool.close()
        assert not thread.is_alive()


@pytest.fixture
def gateway(tmp_path: Path, database: str) -> Iterator[Running]:
    """A gateway in front of a database, on each PostgreSQL in turn."""
    with running(tmp_path, database) as one:
        yield one
