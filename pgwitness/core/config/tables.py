"""The tables of the configuration: what can be set, what it means and what it is unless it is set.

`pgwitness.core.config.reading` makes them from files. A secret is never a value here: it comes from a file (`*_file`,
`PGPASSFILE`) or from the environment.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Struct, field

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Kind
from pgwitness.core.topics import LANES
from pgwitness.core.units import Duration, Size

OF_DATABASE: Final = "{cluster}/{database}"
"""The audience of tokens for one database, where nothing else is set."""


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the configuration: an unknown key is an error, a default stands in the code."""


class Kafka(_Section, frozen=True, kw_only=True):
    """Table `[kafka]`. `settings` is everything else in it, by librdkafka's names, passed through."""

    bootstrap: str = "localhost:9092"
    prefix: str = "pgwitness."
    settings: dict[str, str] = {}

    def topic(self, name: str) -> str:
        """Give a topic's full name."""
        return self.prefix + name

    def client(self) -> dict[str, str]:
        """Give the settings of a librdkafka client.

        Asking for a topic makes none, though many brokers would make it, with their own partitions and retention:
        that is what `topics apply` is for. librdkafka says that this is for consumers; its producers heed it, too.

        Raises `ConfigurationError` when they want a name and a password and one of them is not there.
        """
        if self.settings.get("security.protocol", "").lower().startswith("sasl_"):
            mechanism = self.settings.get("sasl.mechanism") or self.settings.get("sasl.mechanisms") or "GSSAPI"
            named = mechanism.upper() == "PLAIN" or mechanism.upper().startswith("SCRAM")
            for key in ("sasl.username", "sasl.password") if named else ():
                if not self.settings.get(key):
                    variable = f"PGWITNESS_KAFKA__{key.upper().replace('.', '__')}"
                    raise ConfigurationError(
                        f'kafka.{key} is not set and {mechanism} needs it; set "{key}_file" in [kafka], or {variable}'
                    )
        return {"bootstrap.servers": self.bootstrap, "allow.auto.create.topics": "false", **self.settings}


class Topics(_Section, frozen=True, kw_only=True):
    """Table `[topics]`: numbers that are fixed when `topics apply` first ran."""

    raw_partitions: int = 4
    event_partitions: int = 4
    lanes: int = LANES
    replication_factor: int = 1


class Slot(_Section, frozen=True, kw_only=True):
    """Table `[clusters.NAME.slot]`. `max_lag` bounds the WAL that the slot holds back on the source."""

    name: str = "pgwitness"
    max_lag: Size = Size(10 * 1000**3)
    on_max_lag: Literal["warn", "drop"] = "warn"
    failover: bool = True


class Log(_Section, frozen=True, kw_only=True):
    """Table `[clusters.NAME.log]`: where the server's log comes from.

    `line_prefix` and `timezone` are the server's log_line_prefix (for `stderr`) and log_timezone; over SQL it says
    them itself. `start` is where to begin in what is there when the collector starts for the first time ever.

    `field` is the key of a JSON object that holds the line, of a record of the topic or of a line of a file; empty when
    that is the line itself. From Kafka: records that agree in `source_fields` come from one file; `instances` names the
    instance (`host:port`) by the value of `instance_field`, and leaves out records of others.
    """

    from_: Literal["file", "sql", "stdin", "kafka"] = field(name="from", default="file")
    path: str = ""
    format: Literal["jsonlog", "csvlog", "stderr"] = "jsonlog"
    line_prefix: str = "%m [%p] "
    timezone: str = "UTC"
    start: Literal["end", "beginning"] = "end"
    interval: Duration = Duration(0.2)
    topic: str = ""
    field: str = ""
    source_fields: tuple[str, ...] = ("host", "hostname", "file", "filename", "path")
    instance_field: str = "host"
    instances: dict[str, str] = {}


class Cluster(_Section, frozen=True, kw_only=True):
    """Table `[clusters.NAME]`: one PostgreSQL cluster, that is one WAL and one set of roles."""

    dsn: str
    databases: list[str] = []
    replicas: list[str] = []
    labels: dict[str, str] = {}
    password_file: str | None = None
    stats_interval: Duration = Duration(10.0)
    sessions_interval: Duration = Duration(1.0)
    posture_interval: Duration = Duration(5.0)
    slot: Slot = Slot()
    log: Log | None = None


class Mask(_Section, frozen=True, kw_only=True):
    """One entry of `privacy.mask`: a column (globs allowed) and how its values are masked."""

    column: str
    with_: Literal["token", "last4", "hash", "drop", "clear"] = field(name="with", default="token")


class Privacy(_Section, frozen=True, kw_only=True):
    """Table `[privacy]`. `sensitive` columns are told to policies, besides those that `mask` masks.

    `subject` names the columns that say whom a row is about: its tokens are then made with that person's own key, out
    of `subject_key_file`, which can be deleted.
    """

    key_file: Path = Path("privacy.key")
    subject: str | list[str] = []
    subject_key_file: Path = Path("subjects.key")
    row_values: Literal["none", "masked"] = "masked"
    default: Literal["token", "clear"] = "token"
    clear: list[str] = []
    mask: list[Mask] = []
    sensitive: list[str] = []
    value_limit: Size = Size(8 * 1024)

    @property
    def subjects(self) -> list[str]:
        """The patterns of `subject`."""
        return [self.subject] if isinstance(self.subject, str) else self.subject


class S3(_Section, frozen=True, kw_only=True):
    """Table `[lake.s3]`, for a lake in a bucket. What is not set here the environment says, as for other programs."""

    endpoint: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    """Certificates (PEM) that the endpoint's is held against, besides those that are known everywhere."""

    def __post_init__(self) -> None:
        """Refuse what is no URL."""
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint: must be a URL, such as https://minio.example:9000; got {self.endpoint!r}")


class Lake(_Section, frozen=True, kw_only=True):
    """Table `[lake]`. A worker lands what all its partitions have after `flush_interval` or at `flush_rows`.

    `path` is a `Path`, or an `S3Path` (`pgwitness.core.config.places`). `group` names the group of the system whose
    members may read the lake, `rows_group` the one whose members may enter the folder of row images; nobody but the
    worker's user may otherwise. `grace` is how long files stay that compaction has replaced: longer than the longest
    query. `shared_filesystem` says that several hosts share the folder's file system, and that this was thought over.
    """

    path: PurePath = Path("./lake")
    s3: S3 = S3()
    group: str | None = None
    rows_group: str | None = None
    signing_key_file: Path | None = None
    flush_interval: Duration = Duration(60.0)
    flush_rows: int = 100_000
    grace: Duration = Duration(3600.0)
    shared_filesystem: bool = False

    @property
    def folder(self) -> Path:
        """The folder. Raise `ConfigurationError` for a lake in a bucket, where something can only have it on a disk."""
        if isinstance(self.path, Path):
            return self.path
        raise ConfigurationError(f"{self.path}: this takes a lake in a folder; copy it to one, and name that")


class Anchor(_Section, frozen=True, kw_only=True):
    """Table `[seal.anchors.NAME]`: where checkpoints go, out of reach of whoever writes the lake.

    A `file` has `path`, appended to; a `webhook` has `url` or `url_file`, and `secret_file` signs its bodies; a
    `timestamp` has the `url` of an RFC 3161 authority, and `certificates`, the PEM file with which its answers are
    checked; `s3` is a `bucket` with object lock, which `endpoint` and `region` say as for the lake; a `topic` is
    `checkpoints` in Kafka.
    """

    kind: Literal["file", "webhook", "timestamp", "s3", "topic"]
    path: Path | None = None
    url: str = ""
    url_file: Path | None = None
    secret_file: Path | None = None
    certificates: Path | None = None
    bucket: str = ""
    endpoint: str | None = None
    region: str | None = None
    timeout: Duration = Duration(10.0)


class Retention(_Section, frozen=True, kw_only=True):
    """Table `[retention]`: how long `pgwitness lake retain` keeps tables of the lake; for ever where nothing is said.

    `kinds` has kinds of `events` that are not kept as long as the others.
    """

    events: Duration | None = None
    rows: Duration | None = None
    alerts: Duration | None = None
    kinds: dict[str, Duration] = {}

    def __post_init__(self) -> None:
        """Refuse kinds that there are not, and those that are to be kept longer than their table."""
        for name, kept in self.kinds.items():
            if name not in get_args(Kind):
                raise ValueError(f"kinds: there is no kind {name!r}; there are {', '.join(get_args(Kind))}")
            if self.events is not None and kept > self.events:
                raise ValueError(f"kinds: {name} cannot be kept longer than events; keep events longer")


class Seal(_Section, frozen=True, kw_only=True):
    """Table `[seal]`: how `pgwitness seal` signs a lake, and where that goes.

    `key` is the file of the private key, `sign_command` what signs instead; `public_key` is what the others check with.
    `path` is the folder of the seal, if not the lake's own; `state_path` is the sealer's memory, outside of the lake.
    `lag_max` is how old what is not sealed may become before `pgwitness verify` finds fault with it. The `anchors` get
    a checkpoint every `anchor_every`, also when nothing came.
    """

    key: Path | None = None
    sign_command: list[str] = []
    public_key: str = ""
    path: Path | None = None
    state_path: Path = Path("./state/seal")
    lag_max: Duration = Duration(3600.0)
    anchor_every: Duration = Duration(3600.0)
    anchors: dict[str, Anchor] = {}


CLAIMS_FIELDS_MAX = 16


class File(_Section, frozen=True, kw_only=True):
    """Table `[identities]`. `claims_keys` is a JWKS or PEM public keys: who may vouch for whom (`pgwitness.claim`)."""

    file: Path = Path("identities.yaml")
    claims_keys: Path | None = None
    claims_issuer: str = ""
    claims_audience: str = OF_DATABASE
    claims_fields: dict[str, Literal["clear", "token"]] = {}
    """Further claims that go on, by name or path (`ticket`, `agent.intent`): as they are, or as their token."""

    def __post_init__(self) -> None:
        """Refuse more fields than travel, and names that are no path."""
        if len(self.claims_fields) > CLAIMS_FIELDS_MAX:
            raise ValueError(f"claims_fields: {CLAIMS_FIELDS_MAX} at most")
        for name in self.claims_fields:
            if not all(name.split(".")) or len(name) > 100:
                raise ValueError(f"claims_fields: {name!r} is no name such as ticket or agent.intent")


class Folder(_Section, frozen=True, kw_only=True):
    """Table `[policies]`."""

    path: Path = Path("policies/")


class Collectors(_Section, frozen=True, kw_only=True):
    """Table `[collectors]`: what holds for every collector daemon.

    `state_path` keeps what a collector must know again after a restart; `spool_limit` bounds the disk for long
    transactions that have not named themselves yet, `memory_limit` what is kept in memory before that.
    """

    state_path: Path = Path("./state")
    memory_limit: Size = Size(16 * 1024**2)
    spool_limit: Size = Size(4 * 1024**3)
    heartbeat_interval: Duration = Duration(10.0)


class Worker(_Section, frozen=True, kw_only=True):
    """Table `[worker]`. `group` is the consumer group; `grace` how long a change waits for its identity.

    `evidence` names the store in which evidence lands (`sinks.registry`).
    `session_timeout` is after how long without a heartbeat the broker gives the partitions to another worker.
    """

    group: str = "pgwitness-worker"
    grace: Duration = Duration(2.0)
    session_timeout: Duration = Duration(10.0)
    checkpoint_interval: Duration = Duration(10.0)
    data_path: Path = Path("./state/worker")
    evidence: str = "lake"


class Behaviour(_Section, frozen=True, kw_only=True):
    """Table `[behaviour]`: when a principal's habits are known well enough to be judged by.

    A principal is only learned from until `warmup` has passed since its first event and it has made
    `warmup_observations` of them; `warmup` holds for the whole stream too. `adopt_after` is how long something new
    stays new. `alert_at` is the anomaly (0 to 1) from which on behaviour alone is an alert of severity low,
    `medium_at` of medium. `principals_max` bounds the memory. `groups_max` is how many peer groups have models of their
    own; further ones share those of their kind. `seed` decides how the models draw their trees and projections. Of a
    window of time the anomaly is one minus the share of principals' days that are as strange.
    """

    enabled: bool = True
    warmup: Duration = Duration(600.0)
    warmup_observations: int = 30
    adopt_after: Duration = Duration(7 * 86_400.0)
    alert_at: float = 0.9
    medium_at: float = 0.995
    principals_max: int = 50_000
    groups_max: int = 24
    seed: int = 1


class Triage(_Section, frozen=True, kw_only=True):
    """Table `[triage]`: what of the findings is told, and how.

    `suppressions` is the file of what stays quiet. Of what behaviour alone finds, the strangest is told by itself, as
    much as the `budget` of alerts a principal and day allows, and the rest in a digest, once in `digest_interval`; all
    of it waits for the `digest`, or each is an `alert`, where `behaviour` says so. Of those `promoted` each is.
    """

    suppressions: Path = Path("suppressions.yaml")
    behaviour: Literal["budget", "digest", "alert"] = "budget"
    budget: float = 0.05
    digest_interval: Duration = Duration(86_400.0)
    promoted: list[str] = []


class Reviewer(_Section, frozen=True, kw_only=True):
    """Table `[reviewers.NAME]`: somebody whose verdicts on alerts are believed.

    `key` is the public key that `pgwitness alerts key` prints. `scopes` are those the reviewer may use, all when empty;
    `longest` is how long a verdict of theirs may hold.
    """

    key: str
    scopes: list[Literal["same-finding", "policy-and-principal", "policy-and-relation", "policy-and-cluster"]] = []
    longest: Duration = Duration(366 * 86_400.0)


class Approver(_Section, frozen=True, kw_only=True):
    """Table `[approvers.NAME]`: somebody whose decisions on requests are believed (`effect: approve`).

    `key` is the public key that `pgwitness alerts key` prints, `groups` are what policies ask for by name. `principal`
    is what `identities.yaml` calls the same person, by default NAME; `on_behalf_of` is for whom an assistant decides.
    With `break_glass` they may let a request through alone, which is an alert.
    """

    key: str
    groups: list[str] = []
    principal: str = ""
    on_behalf_of: str = ""
    break_glass: bool = False


class Approvals(_Section, frozen=True, kw_only=True):
    """Table `[approvals]`: `key_file` is a gateway's own key, with which it signs requests; `gateways` are the public
    keys of all whose requests are believed, beside that.

    `console_url` is where people reach the console, for links in messages; `link_key_file` signs those, and both the
    console and `pgwitness alerts deliver` have it.
    """

    key_file: Path | None = None
    gateways: list[str] = []
    console_url: str = ""
    link_key_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what no browser opens."""
        if self.console_url and not self.console_url.startswith(("https://", "http://")):
            raise ValueError("console_url must be a URL, such as https://pgwitness.example")


class Delivery(_Section, frozen=True, kw_only=True):
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


class RespondCluster(_Section, frozen=True, kw_only=True):
    """Table `[respond.clusters.NAME]`: how the responder reaches a cluster, as a role with pg_signal_backend."""

    dsn: str
    password_file: Path | None = None


class Respond(_Section, frozen=True, kw_only=True):
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


class GatewayTls(_Section, frozen=True, kw_only=True):
    """Table `[gateway.tls]`: the gateway's certificate and key, and whose certificates clients may show."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class GatewaySpool(_Section, frozen=True, kw_only=True):
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


class GatewayLogin(_Section, frozen=True, kw_only=True):
    """Table `[[gateway.databases.NAME.logins]]`: as which role a token or a certificate logs in at the server.

    `user` are globs of the name that the client gives, `claim` globs of the token's claims by path (`actor` is who acts
    now, `person` the first of whom it acts for), `name` those of the certificate's common name and alternative names.
    """

    role: str
    user: str | list[str] = "*"
    claim: dict[str, str | list[str]] = {}
    name: str | list[str] = "*"


class GatewayToken(_Section, frozen=True, kw_only=True):
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


class GatewayUnparsable(_Section, frozen=True, kw_only=True):
    """Table `[gateway.databases.NAME.unparsable]`: what becomes of a statement of which nobody can tell what it does.

    By the kind of principal that sends it. It is passed on where no policy denies anything.
    """

    agent: Literal["refuse", "pass"] = "refuse"
    human: Literal["refuse", "pass"] = "pass"
    service: Literal["refuse", "pass"] = "pass"
    unknown: Literal["refuse", "pass"] = "refuse"


class GatewayDatabase(_Section, frozen=True, kw_only=True):
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


class Gateway(_Section, frozen=True, kw_only=True):
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


class AudienceColumn(_Section, frozen=True, kw_only=True):
    """One entry of `masks.NAME.columns`: a column (globs allowed), and how the audience sees it."""

    column: str
    as_: Literal["token", "last4", "generalise", "null", "clear"] = field(name="as", default="token")


class AudienceMatch(_Section, frozen=True, kw_only=True):
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


class Audience(_Section, frozen=True, kw_only=True):
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


class Guard(_Section, frozen=True, kw_only=True):
    """Table `[guard]`: how the guard in the database decides where it cannot.

    `on_unknown`: what a policy cannot be asked, because no trigger sees what it asks for, passes or is refused;
    `on_error`: what the guard itself fails on.
    """

    on_unknown: Literal["pass", "refuse"] = "pass"
    on_error: Literal["pass", "refuse"] = "refuse"


class ServerTls(_Section, frozen=True, kw_only=True):
    """Tables `[console.tls]` and `[mcp.tls]`: the certificate and key of what people or agents reach over HTTP."""

    cert_file: Path
    key_file: Path


class ConsoleOpenid(_Section, frozen=True, kw_only=True):
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


class Console(_Section, frozen=True, kw_only=True):
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


class McpExchange(_Section, frozen=True, kw_only=True):
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


class Mcp(_Section, frozen=True, kw_only=True):
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


class Http(_Section, frozen=True, kw_only=True):
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


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    clusters: dict[str, Cluster] = {}
    privacy: Privacy = Privacy()
    lake: Lake = Lake()
    retention: Retention = Retention()
    seal: Seal = Seal()
    identities: File = File()
    policies: Folder = Folder()
    collectors: Collectors = Collectors()
    worker: Worker = Worker()
    behaviour: Behaviour = Behaviour()
    triage: Triage = Triage()
    reviewers: dict[str, Reviewer] = {}
    approvers: dict[str, Approver] = {}
    approvals: Approvals = Approvals()
    deliveries: dict[str, Delivery] = {}
    respond: Respond = Respond()
    gateway: Gateway = Gateway()
    labels: dict[str, list[str]] = {}
    """Words for columns, each with their patterns: policies ask for them (`statement.labels`)."""
    masks: dict[str, Audience] = {}
    guard: Guard = Guard()
    console: Console = Console()
    mcp: Mcp = Mcp()
    http: Http = Http()
    include: list[str] = []

    def cluster(self, name: str) -> Cluster:
        """Give a cluster by its name; raises `ConfigurationError` with the names there are."""
        try:
            return self.clusters[name]
        except KeyError:
            known = ", ".join(sorted(self.clusters)) or "none"
            raise ConfigurationError(f"no cluster {name!r} is configured; there is: {known}") from None
