"""Of several servers a session goes to the one that it is for, as libpq means `target_session_attrs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from collectors.gateway.upstream import TARGETS, Place, unfit
from pgwitness.core.errors import ConfigurationError
from pgwitness.demo.servers import Postgres, free_port
from tests.conftest import SHARED
from tests.gateway.conftest import Running, running

PORTS = "SELECT inet_server_port(), pg_is_in_recovery()"


@dataclass
class Pair:
    """A primary and its standby, and a gateway in front of them."""

    primary: Postgres
    standby: Postgres
    gateway: Running

    def to(self, target: str, hosts: list[int]) -> None:
        """Have sessions go to hosts in this order, for what they are to be."""
        names = ",".join(["127.0.0.1"] * len(hosts))
        ports = ",".join(map(str, hosts))
        place = Place.parse(f"host={names} port={ports} sslmode=disable target_session_attrs={target}")
        self.gateway.house.databases["*"] = replace(self.gateway.house.databases["*"], place=place)

    def came_to(self, target: str, hosts: list[int]) -> int:
        """Where a session comes to."""
        self.to(target, hosts)
        with psycopg.connect(self.gateway.dsn(), autocommit=True) as client:
            row = client.execute(PORTS).fetchone()
            assert row is not None
        assert self.gateway.opened()[-1].instance == f"127.0.0.1:{row[0]}"
        return int(row[0])


@pytest.fixture
def pair(servers_path: Path, tmp_path: Path) -> Iterator[Pair]:
    """Both servers."""
    with Postgres(servers_path / "hosts-primary", settings=SHARED) as primary:
        standby = Postgres.standby_of(primary, servers_path / "hosts-standby")
        try:
            standby.start()
            both = f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port}"
            dsn = f"{both} user=postgres dbname=postgres target_session_attrs=primary"
            with running(tmp_path, dsn, where=f"{both} sslmode=disable") as gateway:
                _until_known(standby, gateway.role)
                yield Pair(primary, standby, gateway)
        finally:
            standby.remove()


def _until_known(standby: Postgres, role: str) -> None:
    from tests.gateway.test_fleet import until

    with psycopg.connect(standby.dsn(), autocommit=True) as replica:
        asked = "SELECT 1 FROM pg_roles WHERE rolname = %s"
        until(lambda: replica.execute(asked, [role]).fetchone() is not None, "the standby has the role")


def test_sessions_find_their_server(pair: Pair) -> None:
    """Each that it is for, also after a failover."""
    _each_target(pair)
    _a_server_that_refuses(pair)
    _a_role_that_only_reads(pair)
    _a_failover(pair)


def _each_target(pair: Pair) -> None:
    """In whichever order they stand, with one that is not there among them; what nobody is, is told."""
    primary, standby, nobody = pair.primary.port, pair.standby.port, free_port()
    for hosts in ([primary, standby], [standby, primary], [nobody, standby, primary], [standby, nobody, primary]):
        there = [port for port in hosts if port != nobody]
        assert pair.came_to("any", hosts) == there[0]
        assert pair.came_to("read-write", hosts) == primary
        assert pair.came_to("primary", hosts) == primary
        assert pair.came_to("standby", hosts) == standby
        assert pair.came_to("read-only", hosts) == standby
        assert pair.came_to("prefer-standby", hosts) == standby
    assert pair.came_to("prefer-standby", [nobody, primary]) == primary
    pair.to("standby", [primary, nobody])
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(pair.gateway.dsn())
    assert f"finds no server that is a standby: 127.0.0.1:{primary} is no standby; " in str(refused.value)
    assert f"does not reach the server 127.0.0.1:{nobody}" in str(refused.value)


def _a_server_that_refuses(pair: Pair) -> None:
    """It is not passed over: a database that is not there is not looked for at the next host, as libpq does not."""
    pair.to("any", [pair.standby.port, pair.primary.port])
    with pytest.raises(psycopg.OperationalError, match='database "absent" does not exist'):
        psycopg.connect(pair.gateway.dsn(dbname="absent"))


def _a_role_that_only_reads(pair: Pair) -> None:
    """What the session reports counts: a role may be read-only at the primary."""
    with psycopg.connect(pair.primary.dsn(), autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {pair.gateway.role} SET default_transaction_read_only = on")
        try:
            assert pair.came_to("read-only", [pair.primary.port]) == pair.primary.port
            pair.to("read-write", [pair.primary.port])
            with pytest.raises(psycopg.OperationalError, match="is read-only"):
                psycopg.connect(pair.gateway.dsn())
        finally:
            admin.execute(f"ALTER ROLE {pair.gateway.role} RESET default_transaction_read_only")


def _a_failover(pair: Pair) -> None:
    """Those that were at the old one have ended; who connects again writes at the new one."""
    hosts = [pair.primary.port, pair.standby.port]
    assert pair.came_to("read-write", hosts) == pair.primary.port
    with psycopg.connect(pair.gateway.dsn(), autocommit=True) as client:
        client.execute("SELECT 1")
        pair.primary.kill()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    pair.standby.promote()
    assert pair.came_to("read-write", hosts) == pair.standby.port


@pytest.mark.parametrize("target", TARGETS)
def test_what_servers_report(target: str) -> None:
    """As libpq's own table: neither, read-only, a standby; one that reports nothing serves any only."""

    def fits(standby: str, read_only: str) -> bool:
        reported = {"in_hot_standby": standby, "default_transaction_read_only": read_only}
        return unfit(target, reported) is None  # type: ignore[arg-type]

    found = (fits("off", "off"), fits("off", "on"), fits("on", "off"))
    assert (
        found
        == {
            "any": (True, True, True),
            "read-write": (True, False, False),
            "read-only": (False, True, True),
            "primary": (True, True, False),
            "standby": (False, False, True),
            "prefer-standby": (True, True, True),
        }[target]
    )
    assert (unfit(target, {}) is None) == (target in ("any", "prefer-standby"))  # type: ignore[arg-type]


def test_a_target_that_nobody_knows_is_refused() -> None:
    """In the configuration."""
    with pytest.raises(ConfigurationError, match="target_session_attrs: one of any, read-write"):
        Place.parse("host=a target_session_attrs=master")
