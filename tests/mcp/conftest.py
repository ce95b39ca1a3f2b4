"""A gateway that lets agents in by token, refuses what a policy says, and a server of tools in front of it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from collectors.gateway.judging.judge import Person, Rules
from collectors.gateway.service import admission_of, tls_of
from collectors.gateway.spool.records import Begun, Opened
from detectors.gatekeeper import Gatekeeper
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.config import Config, load
from pgwitness.core.config.capture import Cluster
from pgwitness.core.config.gateway import Gateway, GatewayDatabase, GatewayLogin, GatewayTls, GatewayToken
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime.health import Health
from pgwitness.demo.servers import Postgres, free_port, wait_for
from pgwitness.mcp.serving import run_http
from tests.collectors.tls import Authority
from tests.conftest import fresh_database
from tests.gateway.conftest import Running, running
from tests.gateway.oauth import AUDIENCE, ISSUER, Issuer
from tests.gateway.test_refusals import policy

BOTH = [AUDIENCE, "https://mcp.example"]
"""Whom the tokens of these tests are for: the gateway's database, and the server of tools."""


@dataclass
class World:
    """What runs, and the configuration of the tools."""

    gateway: Running
    issuer: Issuer
    folder: Path
    admin: str
    port: int

    def config(self) -> Config:
        """The configuration as it stands in the file."""
        return load(self.folder / "pgwitness.toml", {})

    @property
    def url(self) -> str:
        """Where the tools are served over HTTP."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Ask the server itself."""
        with psycopg.connect(self.admin, autocommit=True) as admin:
            return admin.execute(query.encode()).fetchall()

    def begun(self, text: str) -> list[Begun]:
        """What stands on the gateway's spool of statements that contain a text."""
        return [one for one in self.gateway.records() if isinstance(one, Begun) and text in (one.said.statement or "")]

    def opened(self, number: int) -> Opened:
        """The session of that number."""
        return next(one for one in self.gateway.opened() if one.session == number)


TOML = """
[policies]
path = "policies"
[mcp]
gateway = "host=127.0.0.1 port={port} sslmode=verify-full sslrootcert={ca}"
user = "anyone"
databases = ["{database}", "other"]
token_file = "agent.jwt"
listen = "127.0.0.1:{http}"
url = "http://127.0.0.1:{http}/mcp"
rows = 50
answer = "8KB"
timeout = "2s"
[mcp.token]
issuer = "{issuer}"
audience = "https://mcp.example"
keys = "jwks.json"
"""


@contextmanager
def world_of(folder: Path, dsn: str, rules: Rules, more: str = "") -> Iterator[World]:
    """A shop whose agents come in by token; `more` stands in the tools' configuration."""
    issuer, authority = Issuer(), Authority(folder)
    (folder / "jwks.json").write_text(issuer.jwks())
    (folder / "agent.jwt").write_text(issuer.token(aud=BOTH))
    password, roles = secrets.token_hex(8), folder / "roles"
    roles.touch(mode=0o600)
    roles.write_text(f'"triage_role" "{password}"\n')
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE triage_role LOGIN PASSWORD '{password}'")
        admin.execute("CREATE TABLE ticket (id int PRIMARY KEY, body text NOT NULL)")
        admin.execute("INSERT INTO ticket SELECT n, 'ticket ' || n FROM generate_series(1, 1000) AS n")
        admin.execute("COMMENT ON TABLE ticket IS 'What customers wrote'; CREATE TABLE hidden (id int)")
        admin.execute("GRANT ALL ON ticket TO triage_role")
    certificate, key, _ = authority.issue("gateway", "127.0.0.1")
    tls = GatewayTls(cert_file=certificate, key_file=key)
    database = GatewayDatabase(
        cluster="shop", upstream="", auth=["token"], logins=[GatewayLogin(role="triage_role")],
        token=GatewayToken(issuer=ISSUER, audience=AUDIENCE, keys=folder / "jwks.json"), roles_file=roles,
    )  # fmt: skip
    configured = Config(clusters={"shop": Cluster(dsn="")}, gateway=Gateway(tls=tls))
    admission = admission_of(configured, "*", database, tokenizer(b"k" * 32))
    with running(folder, dsn, tls_of(Gateway(tls=tls)), admission=admission, rules=rules) as gateway:  # type: ignore[arg-type]
        http = free_port()
        text = TOML.format(port=gateway.port, ca=authority.path, database=gateway.database, http=http, issuer=ISSUER)
        (folder / "pgwitness.toml").write_text(text + more)
        yield World(gateway, issuer, folder, dsn, http)


@pytest.fixture(scope="module")
def world(postgres18: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A shop whose agents may delete nothing."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "policies").mkdir()
    (folder / "policies" / "no_delete.yaml").write_text(policy())
    agent = Person("triage", "agent")
    rules = Rules(Gatekeeper(Bundle.load(folder / "policies"), Sensitive([])), lambda _o, _a: agent)
    with fresh_database(postgres18) as dsn, world_of(folder, dsn, rules) as made:
        yield made


@contextmanager
def serving(world: World) -> Iterator[None]:
    """Serve the tools over HTTP while the block runs."""
    stop, health = threading.Event(), Health()
    thread = threading.Thread(target=run_http, args=(world.config(), health, stop))
    thread.start()
    try:
        wait_for(lambda: health.not_ready() == [], 20, "the MCP server")
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
