"""The doors of the shop's database: its gateway, by which people and programs come in, and the server's own, past it.

Each comes as it would in earnest. Services and people show a password, the support agent and `maria` a token as their
password, over TLS, and the pricing agent a token by OAUTHBEARER. `pgwitness gateway` is a process
(`pgwitness.demo.daemons`); what it needs beside its configuration is written here.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql

from pgwitness.demo import bearer
from pgwitness.demo.helpdesk import ISSUER, Helpdesk
from pgwitness.demo.rules import LABELS, MASKS
from pgwitness.demo.servers import LOOPBACK, free_port
from pgwitness.demo.shop import MARIA, NORA, PRICING_AGENT, ROLES, SUPPORT_AGENT, Principal

BY_TOKEN = ("shop_app", "pricing_agent", "maria", NORA.role)
"""The roles that tokens log in as."""
CERTIFICATE, KEY = "gateway.crt", "gateway.key"
USERS, LOGINS = "gateway-users", "gateway-roles"
SETTINGS = """\
[gateway]
listen = "{host}:{port}"
tls = {{ cert_file = "{certificate}", key_file = "{key}" }}
spool = {{ path = "state/gateway" }}

[gateway.databases.shop]
cluster = "shop"
upstream = "host={host} port={server_port} sslmode=disable"
auth = ["scram", "token", "oauthbearer"]
ask = {{ maria = "token", nora = "token", "agent_*" = "token", "oauth_*" = "oauthbearer" }}   # others by password
users_file = "{users}"
roles_file = "{logins}"

[gateway.databases.shop.token]
issuer = "{issuer}"
keys = "helpdesk.pem"

[[gateway.databases.shop.logins]]
claim = {{ actor = "support-agent" }}
role = "shop_app"

[[gateway.databases.shop.logins]]
claim = {{ actor = "pricing-agent" }}
role = "pricing_agent"

[[gateway.databases.shop.logins]]
claim = {{ actor = "maria" }}
role = "maria"

[[gateway.databases.shop.logins]]
claim = {{ actor = "nora" }}
role = "analysts"

[[gateway.databases.shop.logins]]
claim = {{ actor = "study-agent" }}
role = "analysts"

"""

Proof = Literal["password", "token", "oauthbearer"]
PROOFS: Mapping[str, tuple[str, Proof]] = {
    MARIA.name: ("maria", "token"),
    NORA.name: ("nora", "token"),
    SUPPORT_AGENT.name: ("agent_support", "token"),
    PRICING_AGENT.name: ("oauth_pricing", "oauthbearer"),
}
"""Under which name somebody comes who has a token, and how he shows it; all others show their role's password."""


@dataclass(frozen=True)
class Way:
    """How somebody comes in: libpq's parameters, and what to show when asked for a password."""

    parameters: Mapping[str, str]
    password: Callable[[], str] | None = field(default=None, repr=False)

    def opened(self) -> dict[str, Any]:
        """Return the parameters of one login, with its password."""
        return {**self.parameters, **({"password": self.password()} if self.password is not None else {})}


@dataclass(frozen=True)
class Doors:
    """The server's port and the gateway's, the roles' passwords, and who signs tokens."""

    server_port: int
    port: int
    certificate: Path
    helpdesk: Helpdesk
    passwords: Mapping[str, str] = field(repr=False)

    def around(self, who: Principal) -> Way:
        """Come to the server itself, which lets everybody in from this machine."""
        return Way(_common(who) | {"port": str(self.server_port), "user": who.role})

    def through(self, who: Principal, port: int | None = None, *, tls: bool = True) -> Way:
        """Come through the gateway, over TLS; `port` is that of a forwarder before it.

        A client that knows no TLS comes by its role's password.
        """
        parameters = _common(who) | {"port": str(port or self.port)}
        if not tls:
            return Way(parameters | {"user": who.role, "sslmode": "disable"}, lambda: self.passwords[who.role])
        parameters |= {"sslmode": "verify-full", "sslrootcert": str(self.certificate)}
        user, proof = PROOFS.get(who.name, (who.role, "password"))
        if proof == "password":
            return Way(parameters | {"user": user}, lambda: self.passwords[who.role])
        if proof == "oauthbearer" and bearer.available():
            oauth = {"user": user, "oauth_issuer": ISSUER, "oauth_client_id": who.name}
            return Way(parameters | oauth)  # libpq asks its hook for the token
        user = user.replace("oauth_", "agent_")
        return Way(parameters | {"user": user}, lambda: self.helpdesk.login(who))


def _common(who: Principal) -> dict[str, str]:
    return {"host": LOOPBACK, "dbname": "shop", "application_name": who.application, "connect_timeout": "10"}


def psql_environment() -> dict[str, str] | None:
    """Return what lets the psql of the PostgreSQL wheel speak TLS, None where nothing does.

    That wheel's libpq is built without; psycopg's, of the same version, stands in for it.
    """
    library = bearer.libpq()
    if sys.platform != "linux" or library is None or not bearer.available():
        return None
    return {"LD_PRELOAD": str(library)}


def make(place: Path, server_port: int, helpdesk: Helpdesk) -> tuple[Doors, str]:
    """Make the gateway's certificate and port and the roles' passwords; gives its part of the configuration, too."""
    certify(place)
    passwords = {role: secrets.token_urlsafe(12) for role in ROLES}
    doors = Doors(server_port, free_port(), place / CERTIFICATE, helpdesk, passwords)
    settings = SETTINGS.format(
        host=LOOPBACK,
        port=doors.port,
        server_port=server_port,
        issuer=ISSUER,
        certificate=CERTIFICATE,
        key=KEY,
        users=USERS,
        logins=LOGINS,
    )
    return doors, settings + LABELS + MASKS


def furnish(place: Path, doors: Doors, admin: psycopg.Connection[Any]) -> None:
    """Give the shop's roles their passwords, and the gateway the verifiers of those and what its tokens log in with."""
    admin.execute("SET password_encryption = 'scram-sha-256'")
    for role, password in doors.passwords.items():
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))
    asked = admin.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY(%s)", [list(doors.passwords)])
    _write(place / USERS, {str(role): str(verifier) for role, verifier in asked})
    _write(place / LOGINS, {role: doors.passwords[role] for role in BY_TOKEN})


def _write(path: Path, lines: Mapping[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f'"{role}" "{second}"\n' for role, second in lines.items()))


def certify(place: Path) -> None:
    """Make a certificate for this machine's own address that is signed by itself: clients are given it to check by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the demo's gateway")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (place / KEY).touch(mode=0o600)
    (place / KEY).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
