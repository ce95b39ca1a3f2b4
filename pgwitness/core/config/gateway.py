"""The tables of the gateway, of the audiences that it serves, and of the guard."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from msgspec import field

from pgwitness.core.config.capture import OF_DATABASE
from pgwitness.core.config.section import Section
from pgwitness.core.units import Duration, Size


class GatewayTls(Section, frozen=True, kw_only=True):
    """Table `[gateway.tls]`: the gateway's certificate and key, and whose certificates clients may show."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class GatewaySpool(Section, frozen=True, kw_only=True):
    """Table `[gateway.spool]`: where statements are written down before they are forwarded.

    It holds `max` bytes at most that the broker has not taken; then nothing is let through. With `sync` `always` each
    write waits for the disk, so that a host that loses power loses no record of what it forwarded.
    """

    path: Path = Path("./state/gateway")
    max: Size = Size(1000**3)
    on_full: Literal["refuse"] = "refuse"
    sync: Literal["always", "never"] = "never"


GatewayWay = Literal["scram", "token", "oauthbearer", "certificate"]
"""How a client says who it is: a password, a JWT as its password, a JWT by SASL OAUTHBEARER, its TLS certificate."""


class GatewayLogin(Section, frozen=True, kw_only=True):
    """Table `[[gateway.databases.NAME.logins]]`: as which role a token or a certificate logs in at the server.

    `user` are globs of the name that the client gives, `claim` globs of the token's claims by path (`actor` is who acts
    now, `person` the first of whom it acts for), `name` those of the certificate's common name and alternative names.
    """

    role: str
    user: str | list[str] = "*"
    claim: dict[str, str | list[str]] = {}
    name: str | list[str] = "*"


class GatewayToken(Section, frozen=True, kw_only=True):
    """Table `[gateway.databases.NAME.token]`: whose tokens are believed; `claims` are the issuer's names of claims."""

    issuer: str
    audience: str = OF_DATABASE
    keys: Path | None = None
    keys_url: str | None = None
    keys_age: Duration = Duration(300.0)
    leeway: Duration = Duration(5.0)
    scope: str = "openid"
    claims: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what says nothing of whose tokens are believed."""
        if not self.issuer or not self.audience:
            raise ValueError("issuer and audience must be there: a token for others must not open this database")
        if (self.keys is None) == (self.keys_url is None):
            raise ValueError("keys (a file) or keys_url: the one or the other")
        if self.keys_url is not None and not safe_url(self.keys_url):
            raise ValueError("keys_url must begin with https://; http:// is for this host itself")


def safe_url(url: str) -> bool:
    """Return whether nobody between reads what is asked there: it is encrypted, or this host."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))


class GatewayUnparsable(Section, frozen=True, kw_only=True):
    """Table `[gateway.databases.NAME.unparsable]`: what becomes of a statement of which nobody can tell what it does.

    By the kind of principal that sends it. It is passed on where no policy denies anything.
    """

    agent: Literal["refuse", "pass"] = "refuse"
    human: Literal["refuse", "pass"] = "pass"
    service: Literal["refuse", "pass"] = "pass"
    unknown: Literal["refuse", "pass"] = "refuse"


class GatewayDatabase(Section, frozen=True, kw_only=True):
    """Table `[gateway.databases.NAME]`: a database that clients name so, `"*"` any other one.

    `upstream` is where its server is, without a user; a database in it is the one that is connected to. `auth` are the
    ways in which a client may say who it is; the first is asked for, unless `ask` has another for its name (by glob).
    SCRAM is against verifiers in `users_file` or those that `users_query` reads with `users_dsn`, by default the
    cluster's dsn. A token or a certificate logs in by the first of `logins` that fits, as a role whose password stands
    in `roles_file`.
    """

    cluster: str
    upstream: str
    auth: list[GatewayWay] = field(default_factory=lambda: ["scram"])
    ask: dict[str, GatewayWay] = {}
    token: GatewayToken | None = None
    logins: list[GatewayLogin] = []
    roles_file: Path | None = None
    users_file: Path | None = None
    users_dsn: str | None = None
    users_query: str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = %s AND rolcanlogin"
    unparsable: GatewayUnparsable = GatewayUnparsable()

    def __post_init__(self) -> None:
        """Refuse ways that cannot work."""
        if not self.auth:
            raise ValueError("auth is empty: nobody could log in")
        if unknown := sorted(set(self.ask.values()) - set(self.auth)):
            raise ValueError(f"ask: {unknown[0]} is not in auth")
        if self.token is None and not {"token", "oauthbearer"}.isdisjoint(self.auth):
            raise ValueError("auth by token needs a table token: whose tokens are believed")
        if set(self.auth) != {"scram"} and not (self.logins and self.roles_file):
            raise ValueError("a token or certificate needs logins and roles_file: as which role it logs in")


PROCESSES_MAX = 64


class Gateway(Section, frozen=True, kw_only=True):
    """Table `[gateway]`: the proxy that native clients connect through.

    Its `processes` share the port, each with its own spool and with `connections_max` sessions.
    In the folder `control`, by default in the spool's, it answers who asks on this machine: its own user, and
    the members of `control_group`.
    """

    listen: str = "127.0.0.1:6432"
    tls: GatewayTls | None = None
    spool: GatewaySpool = GatewaySpool()
    databases: dict[str, GatewayDatabase] = {}
    processes: int = 1
    control: Path | None = None
    control_group: str | None = None
    connections_max: int = 1_000
    login_timeout: Duration = Duration(30.0)

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        if not 1 <= self.processes <= PROCESSES_MAX:
            raise ValueError(f"processes: from 1 to {PROCESSES_MAX}; more than the machine has cores serve nobody")


def control_folder(gateway: Gateway) -> Path:
    """Return where the processes of a gateway answer on this machine."""
    return gateway.control or gateway.spool.path / "control"


class AudienceColumn(Section, frozen=True, kw_only=True):
    """One entry of `masks.NAME.columns`: a column (globs allowed), and how the audience sees it."""

    column: str
    as_: Literal["token", "last4", "generalise", "null", "clear"] = field(name="as", default="token")


class AudienceMatch(Section, frozen=True, kw_only=True):
    """Table `[masks.NAME.match]`: who comes to the gateway as this audience, by `identities.yaml`; all given must fit.

    `principal` and `peer_group` are globs, `kind` those of principals.
    """

    principal: str | list[str] | None = None
    kind: list[Literal["human", "service", "agent", "unknown"]] | None = None
    peer_group: str | list[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what everybody would fit."""
        if self.principal is None and self.kind is None and self.peer_group is None:
            raise ValueError("match is empty: name principal, kind or peer_group")


class Audience(Section, frozen=True, kw_only=True):
    """Table `[masks.NAME]`: an audience, that is a login role which reads tables through views that mask.

    `role` is the login role, the audience's name unless it is set. Each of `schemas` gets a schema of views, named
    `prefix` and the schema's name, in `databases`, all when empty. Of a column the first of `columns` decides, then
    `[privacy]`'s `mask` and `clear`; of one that none of them names `unnamed`: `masked`, or as `[privacy]` does with
    such a type (`typed`). `rewrite`: the gateway writes names of tables as those of the views. Whom `match` fits, the
    gateway logs in as the audience's role, whoever they are there.
    """

    role: str = ""
    match: AudienceMatch | None = None
    schemas: list[str] = field(default_factory=lambda: ["public"])
    prefix: str = "mask_"
    databases: list[str] = []
    columns: list[AudienceColumn] = []
    unnamed: Literal["masked", "typed"] = "masked"
    rewrite: bool = True


class Guard(Section, frozen=True, kw_only=True):
    """Table `[guard]`: how the guard in the database decides where it cannot.

    `on_unknown`: what a policy cannot be asked, because no trigger sees what it asks for, passes or is refused;
    `on_error`: what the guard itself fails on.
    """

    on_unknown: Literal["pass", "refuse"] = "pass"
    on_error: Literal["pass", "refuse"] = "refuse"
