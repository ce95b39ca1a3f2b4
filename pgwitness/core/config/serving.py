"""The tables of what people and agents reach over HTTP: console, tools for agents, health."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import field

from pgwitness.core.config.capture import OF_DATABASE
from pgwitness.core.config.gateway import GatewayToken, safe_url
from pgwitness.core.config.section import Section
from pgwitness.core.units import Duration, Size


class ServerTls(Section, frozen=True, kw_only=True):
    """Tables `[console.tls]` and `[mcp.tls]`: the certificate and key of what people or agents reach over HTTP."""

    cert_file: Path
    key_file: Path


class ConsoleOpenid(Section, frozen=True, kw_only=True):
    """Table `[console.openid]`: people log in with OpenID Connect, besides the console's own users.

    `url` is where people reach the console; the provider must know `url` and `/login/openid` as an address to send
    people back to. `roles` gives roles to groups, which `groups_claim` lists. Who somebody is says `name_claim`.
    """

    issuer: str
    client_id: str
    client_secret_file: Path
    url: str
    scopes: list[str] = field(default_factory=lambda: ["openid", "email", "groups"])
    name_claim: str = "email"
    groups_claim: str = "groups"
    roles: dict[str, list[str]] = {}


class Console(Section, frozen=True, kw_only=True):
    """Table `[console]`: the page that people look at.

    Without `tls` it listens on this machine alone, or stands behind `proxies`: addresses of servers that encrypt in
    front of it, whose `X-Forwarded-For` is believed. A session ends after `session_lifetime`, and after `session_idle`
    without a request. What cannot be written down as evidence is not shown, unless `unrecorded` is `answer`. A query
    has `query_timeout`, `query_memory` and `query_rows`; `query_parallel` of them run at once.
    """

    listen: str = "127.0.0.1:8432"
    tls: ServerTls | None = None
    openid: ConsoleOpenid | None = None
    proxies: list[str] = []
    users_file: Path = Path("console-users.json")
    session_lifetime: Duration = Duration(8 * 3600.0)
    session_idle: Duration = Duration(1800.0)
    unrecorded: Literal["refuse", "answer"] = "refuse"
    query_timeout: Duration = Duration(30.0)
    query_memory: Size = Size(512 * 1024**2)
    query_rows: int = 10_000
    query_parallel: int = 2


class McpExchange(Section, frozen=True, kw_only=True):
    """Table `[mcp.exchange]`: where a client's token is exchanged for one that the gateway takes (RFC 8693).

    `audience` is asked for, a template of the names of cluster and database at the gateway.
    """

    url: str
    client_id: str
    client_secret_file: Path
    audience: str = OF_DATABASE

    def __post_init__(self) -> None:
        """Refuse an address that others could read on the way."""
        if not safe_url(self.url):
            raise ValueError("url must begin with https://; http:// is for this host itself")


class Mcp(Section, frozen=True, kw_only=True):
    """Table `[mcp]`: tools for AI agents, each call a statement through the gateway.

    `gateway` is where the gateway is, as a DSN without user and database, and `user` the name that it is given; it goes
    by the token, which says who the agent is and for whom it acts. Of `databases`, names at the gateway, the first is
    meant where a call names none. Over HTTP a client's own token counts, judged by `token` for the resource `url`; on
    stdio the one in `token_file`. An answer has `rows` rows and `answer` bytes at most, a call takes `timeout`. What
    an agent has read counts for its conversation until that has been idle for `session_idle`.
    """

    gateway: str = "host=127.0.0.1 port=6432 sslmode=verify-full"
    user: str = "agent"
    databases: list[str] = []
    token_file: Path | None = None
    listen: str = "127.0.0.1:8765"
    tls: ServerTls | None = None
    url: str = ""
    token: GatewayToken | None = None
    exchange: McpExchange | None = None
    rows: int = 200
    answer: Size = Size(64 * 1024)
    timeout: Duration = Duration(30.0)
    session_idle: Duration = Duration(900.0)
    sessions_max: int = 200

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        if self.rows < 1 or self.answer < 1024 or self.sessions_max < 1 or self.timeout <= 0:
            raise ValueError("rows and sessions_max are 1 or more, answer 1 KiB or more, timeout greater than zero")


class Http(Section, frozen=True, kw_only=True):
    """Table `[http]`: where a daemon serves `/metrics`, `/livez` and `/readyz`; port 0 takes a free one."""

    host: str = "127.0.0.1"
    collect_port: int = 9187
    worker_port: int = 9188
    deliver_port: int = 9189
    seal_port: int = 9190
    compact_port: int = 9191
    retain_port: int = 9192
    gateway_port: int = 9193
    console_port: int = 9194
    mcp_port: int = 9195
