"""The tables of what alerts are sent to, and of what answers them by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pgwitness.core.config.section import Section
from pgwitness.core.units import Duration


class Delivery(Section, frozen=True, kw_only=True):
    """Table `[deliveries.NAME]`: where `pgwitness alerts deliver` sends alerts, and which.

    What is sent over HTTP has `url` or, where the address itself is a secret, `url_file`. `secret_file` is the key that
    signs a webhook's bodies, or a product's key or token; `authorization_file` a webhook's header `Authorization`. A
    `syslog` has `address` (`host:port`) and `transport`, a `file` has `path`. `severity` is the least that is sent;
    `clusters` and `policies` are globs, all when empty. `rate` is how many alerts a minute are sent one by one. `tries`
    is how often one is tried before it becomes a dead letter. With `approvals` it gets requests for approval, too.
    """

    kind: Literal[
        "webhook", "slack", "teams", "pagerduty", "splunk", "elastic", "opensearch", "datadog", "syslog", "file"
    ]
    url: str = ""
    url_file: Path | None = None
    secret_file: Path | None = None
    authorization_file: Path | None = None
    address: str = ""
    transport: Literal["udp", "tcp", "tls"] = "tls"
    ca_file: Path | None = None
    path: Path | None = None
    format: Literal["json", "text"] = "json"
    severity: Literal["info", "low", "medium", "high", "critical"] = "low"
    clusters: list[str] = []
    policies: list[str] = []
    staged: bool = False
    closed: bool = True
    approvals: bool = False
    start: Literal["end", "beginning"] = "end"
    rate: int = 60
    tries: int = 8
    timeout: Duration = Duration(10.0)


class RespondCluster(Section, frozen=True, kw_only=True):
    """Table `[respond.clusters.NAME]`: how the responder reaches a cluster, as a role with pg_signal_backend."""

    dsn: str
    password_file: Path | None = None


class Respond(Section, frozen=True, kw_only=True):
    """Table `[respond]`: ends the backend of an alert whose policy says so; off unless `enabled`.

    Only clusters in `clusters`, only alerts younger than `max_age`, at most `rate` backends a minute, never pgwitness's
    own roles nor those that `never` names (globs), nor a superuser's unless `superusers`.
    """

    enabled: bool = False
    clusters: dict[str, RespondCluster] = {}
    max_age: Duration = Duration(30.0)
    rate: int = 5
    superusers: bool = False
    never: list[str] = []
