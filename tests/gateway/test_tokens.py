"""Clients that come with a token or a certificate: who gets in, as whom, and what stays behind of what they showed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace
from psycopg import sql

from collectors.gateway.auth.admission import Admission
from collectors.gateway.service import admission_of, tls_of
from collectors.gateway.spool.records import Opened
from collectors.gateway.wire import startup
from collectors.gateway.wire.frames import frame
from pgwitness.core.config import load
from pgwitness.core.config.capture import Cluster
from pgwitness.core.config.gateway import Gateway, GatewayDatabase, GatewayLogin, GatewayTls, GatewayToken
from pgwitness.core.config.tables import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.privacy import tokenizer
from pgwitness.demo.bearer import handing_over
from tests.collectors.tls import Authority, tls_server
from tests.conftest import DEBIAN_BIN, leave_out
from tests.gateway.conftest import Running, running
from tests.gateway.oauth import AUDIENCE, ISSUER, Issuer

LOGINS = [
    GatewayLogin(role="{name}_role", name="bot_*"),
    GatewayLogin(role="triage_role", claim={"actor": "triage", "iss": "*"}),
    GatewayLogin(role="{sub}"),
]


class House:
    """A gateway with TLS whose clients come by token or certificate, the issuer of those, and the files it reads."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.issuer, self.authority = Issuer(), Authority(folder)
        self.keys, self.roles = folder / "jwks.json", folder / "roles"
        self.keys.write_text(self.issuer.jwks())
        self.roles.touch(mode=0o600)
        password = secrets.token_hex(8)
        self.roles.write_text("".join(f'"{name}" "{password}"\n' for name in ("triage_role", "bot_1_role")))
        with psycopg.connect(dsn, autocommit=True) as admin:
            for name in ("triage_role", "bot_1_role", "maria"):
                admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), password))
        certificate, key, _ = self.authority.issue("gateway", "127.0.0.1")
        self.tls = GatewayTls(cert_file=certificate, key_file=key, client_ca_file=self.authority.path)

    def admission(self) -> Admission:
        """Whom the gateway lets in."""
        token = GatewayToken(issuer=ISSUER, audience=AUDIENCE, keys=self.keys)
        database = GatewayDatabase(
            cluster="shop", upstream="", auth=["token", "oauthbearer", "certificate"], token=token,
            ask={"bearer*": "oauthbearer", "bot*": "certificate"}, logins=LOGINS, roles_file=self.roles,
        )  # fmt: skip
        config = Config(clusters={"shop": Cluster(dsn="")}, gateway=Gateway(tls=self.tls))
        return admission_of(config, "*", database, tokenizer(b"k" * 32))


@pytest.fixture
def house(tmp_path: Path, database18: str) -> House:
    """What a gateway of tokens needs."""
    return House(tmp_path, database18)


@pytest.fixture
def gateway(tmp_path: Path, house: House, database18: str) -> Iterator[Running]:
    """A gateway that lets in who has a token or a certificate."""
    context, binding = tls_of(Gateway(tls=house.tls))
    assert context is not None
    assert binding is not None
    with running(tmp_path, database18, (context, binding), admission=house.admission()) as one:
        yield one


def connect(gateway: Running, house: House, **more: str) -> psycopg.Connection[Any]:
    """Connect by TLS."""
    given = {"user": "anyone", "sslmode": "verify-full", "sslrootcert": str(house.authority.path), **more}
    return psycopg.connect(gateway.dsn(**given), autocommit=True)


def test_a_token_is_a_password(gateway: Running, house: House) -> None:
    """Its claims decide the role, and land in the session's evidence with its id; the token lands nowhere."""
    token = house.issuer.token()
    with connect(gateway, house, password=token) as client:
        assert client.execute("SELECT session_user").fetchone() == ("triage_role",)
    opened = gateway.opened()[0]
    assert (opened.role, opened.auth_method, opened.encrypted) == ("triage_role", "oauth", True)
    assert opened.token is not None
    assert (opened.token.verdict, opened.token.token_id) == ("verified", "t-1")
    assert opened.token.claims["sub"] == "maria"
    assert opened.token.claims["actors"] == ["triage"]
    assert opened.token.claims["agent"] == {"name": "triage", "tools": ["sql"], "conversation": "c9"}
    for part in token.split("."):
        assert part.encode() not in b"".join(path.read_bytes() for path in gateway.spool.folder.iterdir())


def test_psql_takes_a_token_as_its_password(gateway: Running, house: House) -> None:
    """As any client does that can send a password."""
    dsn = gateway.dsn(user="anyone", sslmode="verify-full", sslrootcert=str(house.authority.path))
    given = " ".join(part for part in dsn.split() if not part.startswith("password="))
    done = subprocess.run(
        ["psql", "-XAt", "-c", "SELECT session_user", given],
        env={**os.environ, "PGPASSWORD": house.issuer.token()}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == "triage_role\n", done.stderr


def test_libpq_hands_a_token_over(gateway: Running, house: House) -> None:
    """By OAUTHBEARER, first asking the gateway where tokens come from, then with one; a wrong one is refused."""
    more = {"user": "bearer", "oauth_issuer": ISSUER, "oauth_client_id": "tests"}
    with handing_over(house.issuer.token) as asked, connect(gateway, house, **more) as client:
        assert client.execute("SELECT session_user").fetchone() == ("triage_role",)
    assert asked == [f"{ISSUER}/.well-known/openid-configuration"]
    assert [one.sqlstate for one in gateway.opened()] == [None]
    with (
        handing_over(lambda: house.issuer.token(exp=1)),
        pytest.raises(psycopg.OperationalError, match=r"token authentication failed.*expired"),
    ):
        connect(gateway, house, **more)


def forged(issuer: Issuer) -> dict[str, str]:
    """Tokens that nobody may come in by, with what was found of each."""
    other = Ed25519PrivateKey.generate()
    public = issuer.keys["one"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = issuer.token()
    head, body, signature = whole.split(".")
    return {
        "signature": issuer.token(key=other),
        "unknown_key": issuer.token("two", key=other),
        "expired": issuer.token(exp=time.time() - 60),
        "not_yet": issuer.token(nbf=time.time() + 60),
        "audience": issuer.token(aud="warehouse/*"),
        "issuer": issuer.token(iss="https://other.example"),
        "no_expiry": issuer.token(exp=None),
        "no_subject": issuer.token(sub=""),
        "algorithm": issuer.token(key=b"k" * 32, algorithm="HS256"),
        "algorithm ": _by_public_key(body, public),
        "unsigned": issuer.token(key="", algorithm="none"),
        "malformed": "no.token.at.all",
        "signature ": f"{head}.{issuer.token(sub='cfo').split('.')[1]}.{signature}",
        "too_long": issuer.token(filler="x" * 20_000),
    }


def _by_public_key(body: str, public: bytes) -> str:
    """Sign with the public key as if it were a secret that both have."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=").decode()
    signature = hmac.digest(public, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def test_tokens_that_do_not_hold_are_refused(gateway: Running, house: House, capfd: pytest.CaptureFixture[str]) -> None:
    """Each with its reason for the client and in the evidence, as nobody's, and without a trace of the token."""
    tokens = forged(house.issuer)
    for token in tokens.values():
        with pytest.raises(psycopg.OperationalError, match="token authentication failed") as raised:
            connect(gateway, house, password=token)
        assert token[-20:] not in str(raised.value)
    found = gateway.opened()
    assert [one.token.verdict for one in found if one.token is not None] == [name.strip() for name in tokens]
    assert {(one.sqlstate, one.auth_method, one.role) for one in found} == {("28000", None, "anyone")}
    out = capfd.readouterr()
    spooled = b"".join(path.read_bytes() for path in gateway.spool.folder.iterdir()).decode()
    for token in tokens.values():
        assert token[-30:] not in spooled + out.out + out.err


def test_a_claim_opens_no_role_that_the_gateway_was_not_given(gateway: Running, house: House) -> None:
    """`{sub}` would be `maria`, who is a role of the server, but not one of the roles' file."""
    with pytest.raises(psycopg.OperationalError, match="no login of this database fits its claims"):
        connect(gateway, house, password=house.issuer.token(act=None))
    assert gateway.opened()[0].sqlstate == "28000"


@pytest.mark.parametrize("user", ["anyone", "bearer"])
def test_no_token_is_asked_for_in_the_open(gateway: Running, user: str) -> None:
    """Without TLS the login ends before the client could send it."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as bare:
        bare.sendall(startup.startup_packet({"user": user, "database": gateway.database}))
        bare.settimeout(10)
        said = bare.recv(1_000)
    assert said[:1] == b"E"
    assert b"over TLS only" in said


@pytest.mark.parametrize(
    "message",
    [
        b"OAUTHBEARER\0" + (9).to_bytes(4, "big") + b"n,,\x01auth=",
        b"OAUTHBEARER\0\xff\xff\xff\xffmore",
        b"SCRAM-SHA-256\0" + (4).to_bytes(4, "big") + b"n,,n",
        b"OAUTHBEARER\0" + (60_000).to_bytes(4, "big") + b"n,,\x01auth=Bearer " + b"x" * 59_983 + b"\x01\x01",
        b"OAUTHBEARER",
        b"",
    ],
)
def test_malformed_bearers_are_refused(gateway: Running, house: House, message: bytes) -> None:
    """With an error or an end, and the gateway serves on."""
    context = ssl.create_default_context(cafile=str(house.authority.path))
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as bare:
        bare.sendall(startup.ssl_request())
        assert bare.recv(1) == b"S"
        with context.wrap_socket(bare, server_hostname="127.0.0.1") as client:
            client.sendall(startup.startup_packet({"user": "bearer", "database": gateway.database}))
            assert client.recv(100)[:1] == b"R"
            client.sendall(frame(b"p", message))
            assert client.recv(1_000)[:1] in (b"E", b"R")
    with connect(gateway, house, password=house.issuer.token()):
        pass


def test_a_key_that_is_withdrawn_opens_nothing_more(gateway: Running, house: House) -> None:
    """A new key is taken on with the file, and the old one is gone with it."""
    old = house.issuer.token()
    house.issuer.keys = {"two": Ed25519PrivateKey.generate()}
    house.keys.write_text(house.issuer.jwks())
    with connect(gateway, house, password=house.issuer.token("two")):
        pass
    with pytest.raises(psycopg.OperationalError, match="token authentication failed"):
        connect(gateway, house, password=old)


def test_a_certificate_names_its_client(gateway: Running, house: House) -> None:
    """By its common name; who has none of our authority, or one that no login fits, does not come in."""
    certificate, key, serial = house.authority.issue("bot_1")
    with connect(gateway, house, user="bot", sslcert=str(certificate), sslkey=str(key)) as client:
        assert client.execute("SELECT session_user").fetchone() == ("bot_1_role",)
    opened = gateway.opened()[0]
    assert (opened.auth_method, opened.role) == ("cert", "bot_1_role")
    assert opened.certificate is not None
    assert (opened.certificate.dn, opened.certificate.serial) == ("/CN=bot_1", str(serial))
    with pytest.raises(psycopg.OperationalError, match="requires a valid client certificate"):
        connect(gateway, house, user="bot")
    certificate, key, _ = house.authority.issue("root")
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        connect(gateway, house, user="bot", sslcert=str(certificate), sslkey=str(key))


@pytest.mark.debian
def test_the_server_asks_for_the_roles_password(tmp_path: Path, servers_path: Path) -> None:
    """The gateway proves itself at the server by SCRAM, with the password of the roles' file."""
    if not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN}")
    with tls_server(servers_path / "tokens", DEBIAN_BIN, Authority(tmp_path), "nobody") as server:
        house = House(tmp_path, server.dsn())
        lines = ("local all all trust", "host all postgres all trust", "host all all all scram-sha-256", "")
        (server.place / "pg_hba.conf").write_text("\n".join(lines))
        server.restart()
        context, binding = tls_of(Gateway(tls=house.tls))
        assert context is not None
        assert binding is not None
        tls = (context, binding)
        where = f"host=127.0.0.1 port={server.port} sslmode=disable"
        with running(tmp_path, server.dsn(), tls, where, house.admission()) as gateway:
            for _ in range(2):
                with connect(gateway, house, dbname="postgres", password=house.issuer.token()) as client:
                    assert client.execute("SELECT session_user").fetchone() == ("triage_role",)
            house.roles.write_text('"triage_role" "another"\n')
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect(gateway, house, dbname="postgres", password=house.issuer.token())
            last: Opened = gateway.opened()[-1]
            assert (last.sqlstate, last.auth_method) == ("28P01", "oauth")


def test_the_how_to_can_be_used(tmp_path: Path) -> None:
    """What it shows is a configuration, with paths relative to its file; what could let nobody in is refused."""
    text = Path("docs/how-to/gateway.md").read_text(encoding="utf-8")
    shown = next(part for part in text.split("```")[1::2] if "keys_url" in part).removeprefix("toml\n")
    shown = shown.replace('keys_url = "https://idp.example/jwks.json"', 'keys = "idp.jwks.json"')
    path = tmp_path / "pgwitness.toml"
    begin = "[gateway]\ntls = {cert_file = 'a', key_file = 'b'}\n[clusters.shop]\ndsn = 'postgresql://db/shop'\n"
    path.write_text(begin + shown)
    loaded = load(path, {})
    database = loaded.gateway.databases["shop"]
    assert database.token is not None
    assert database.token.keys == tmp_path / "idp.jwks.json"
    assert database.roles_file == tmp_path / "gateway-roles"
    database.token.keys.write_text(Issuer().jwks())
    assert database.roles_file is not None
    database.roles_file.touch(mode=0o644)
    with pytest.raises(ConfigurationError, match="others may read or write it"):
        admission_of(loaded, "shop", database, tokenizer(b"k" * 32))
    database.roles_file.chmod(0o600)
    assert admission_of(loaded, "shop", database, tokenizer(b"k" * 32)).ways.of("oauth_x") == "oauthbearer"
    without = replace(loaded, gateway=replace(loaded.gateway, tls=None))
    with pytest.raises(ConfigurationError, match="go over TLS only"):
        admission_of(without, "shop", database, tokenizer(b"k" * 32))
    path.write_text(begin + shown.replace('"oauthbearer"]', '"oauthbearer", "certificate"]'))
    with pytest.raises(ConfigurationError, match="client_ca_file"):
        admission_of(loaded, "shop", load(path, {}).gateway.databases["shop"], tokenizer(b"k" * 32))
