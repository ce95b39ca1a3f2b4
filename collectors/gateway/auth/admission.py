"""Who a client is, by the way that its database asks it; and as which role it logs in at the server.

A token is asked for over TLS only: in the open, whoever reads it is its bearer. It is a bearer token also in that who
has it may come as often as it holds; its session may outlast it. So tokens are to be short-lived, and their audience
this database.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cryptography import x509
from cryptography.x509.oid import NameOID

from collectors.gateway.auth import client as exchange
from collectors.gateway.auth.bearer import BearerError
from collectors.gateway.auth.logins import Logins
from collectors.gateway.auth.scram import ScramError, Secret
from collectors.gateway.auth.tokens import VERIFIED, Tokens, said_of
from collectors.gateway.auth.users import Users
from collectors.gateway.link import Link
from collectors.gateway.wire.violation import PROTOCOL_VIOLATION
from pgwitness.core.claims import by_path
from pgwitness.core.config.gateway import GatewayWay
from pgwitness.core.errors import PgwitnessError
from pgwitness.core.events import Certificate, Token

DENIED = "28000"
WRONG = "28P01"
OVER_TLS = "a token is taken over TLS only: connect with sslmode=verify-full"


@dataclass(frozen=True)
class Ways:
    """Which way a client is asked who it is: the first whose glob fits its name, else `default`."""

    default: GatewayWay = "scram"
    asked: tuple[tuple[str, GatewayWay], ...] = ()

    def of(self, user: str) -> GatewayWay:
        """Return the way for a name that a client gives."""
        return next((way for glob, way in self.asked if fnmatchcase(user, glob)), self.default)


@dataclass(frozen=True)
class Admission:
    """How a database lets clients in. `users` serve SCRAM, `tokens` tokens, `logins` tokens and certificates."""

    users: Users | None
    ways: Ways = Ways()
    tokens: Tokens | None = None
    logins: Logins | None = None

    def forget(self, user: str) -> None:
        """Ask again for what is known of a name: the server has another opinion."""
        if self.users is not None:
            self.users.forget(user)


@dataclass(frozen=True)
class Shown:
    """What is known of a client before it is asked: the name that it gives, and what TLS says (None: in the open)."""

    user: str
    tls: ssl.SSLObject | None
    at_us: int


@dataclass(frozen=True)
class Proven:
    """Who a client is: the role that it logs in as at the server and with what, and what it has shown for that."""

    role: str
    secret: Secret
    method: str
    token: Token | None = None
    certificate: Certificate | None = None


class Denied(PgwitnessError):
    """A client is not let in; the text is what it is told, `token` what was found of its token.

    `asked`: it has only asked where tokens come from, as libpq does before it comes with one; that is no failed login.
    """

    def __init__(self, message: str, sqlstate: str, token: Token | None = None, *, asked: bool = False) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.token = token
        self.asked = asked


async def prove(link: Link, admission: Admission, shown: Shown, mock: bytes, binding: bytes | None) -> Proven:
    """Ask a client who it is. Raise `Denied`, or another `PgwitnessError` where that cannot be known.

    `mock` makes up what a name that nobody has is asked; `binding` is what SCRAM-SHA-256-PLUS binds to.
    """
    way = admission.ways.of(shown.user)
    if way == "scram":
        assert admission.users is not None
        return await _scram(link, admission.users, shown, mock, binding)
    assert admission.logins is not None
    if way == "certificate":
        return _by_certificate(admission.logins, shown)
    assert admission.tokens is not None
    return await _by_token(link, admission.tokens, admission.logins, shown, bearer=way == "oauthbearer")


async def _scram(link: Link, users: Users, shown: Shown, mock: bytes, binding: bytes | None) -> Proven:
    role = shown.user
    try:
        verifier = await users.verifier(role)
        keys = await exchange.scram(link, role, verifier, mock, binding if shown.tls is not None else None)
    except ScramError as error:
        if error.denied:
            users.doubt(role)
            raise Denied(f'password authentication failed for user "{role}"', WRONG) from error
        raise Denied(str(error), PROTOCOL_VIOLATION) from error
    return Proven(role, keys, "scram-sha-256")


async def _by_token(link: Link, tokens: Tokens, logins: Logins, shown: Shown, *, bearer: bool) -> Proven:
    if shown.tls is None:
        raise Denied(OVER_TLS, DENIED)
    failed = f'token authentication failed for user "{shown.user}"'
    try:
        text = await exchange.bearer_token(link) if bearer else await exchange.password(link)
    except BearerError as error:
        raise Denied(str(error), PROTOCOL_VIOLATION) from error
    token = await tokens.judge(text, shown.at_us) if text else None
    if token is not None and token.verdict == VERIFIED:
        found = logins.find(shown.user, by_path(token))
        if found is not None:
            return Proven(*found, "oauth", token)
        raise Denied(f"{failed}: no login of this database fits its claims", DENIED, token)
    if bearer:
        try:
            await exchange.bearer_failed(link, tokens.settings.issuer, tokens.settings.scope)
        except BearerError as error:
            raise Denied(str(error), PROTOCOL_VIOLATION, token) from error
    why = said_of(token.verdict) if token is not None else "there is none"
    raise Denied(f"{failed}: {why}", DENIED, token, asked=bearer and token is None)


def _by_certificate(logins: Logins, shown: Shown) -> Proven:
    """Take the certificate that TLS has checked against `gateway.tls.client_ca_file`."""
    der = shown.tls.getpeercert(binary_form=True) if shown.tls is not None else None
    if der is None:
        raise Denied("connection requires a valid client certificate", DENIED)
    parsed = x509.load_der_x509_certificate(der)
    certificate = _told(parsed)
    found = logins.find(shown.user, {}, names_of(parsed))
    if found is None:
        raise Denied(f'certificate authentication failed for user "{shown.user}"', DENIED)
    return Proven(*found, "cert", certificate=certificate)


def names_of(certificate: x509.Certificate) -> Sequence[str]:
    """List the names of a certificate: its common name, then its alternative names of every kind that is a text."""
    found = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
    return [*found, *(name.value for name in others if isinstance(name, kinds))]


def _told(certificate: x509.Certificate) -> Certificate:
    """Tell of a certificate as pg_stat_ssl does."""
    return Certificate(_dn(certificate.subject), _dn(certificate.issuer), str(certificate.serial_number))


def _dn(name: x509.Name) -> str:
    return "".join(f"/{one.rfc4514_attribute_name}={one.value!s}" for one in name)
