"""The configuration: one TOML file, its includes, and `PGWITNESS_*` from the environment.

`load` returns a frozen `Config` or raises a `ConfigurationError` that names the file and the key. Relative paths
are relative to the file that names them. A secret is never a value on a command line: it comes from a file
(`*_file`, `PGPASSFILE`) or from the environment (`PGWITNESS_KAFKA__SASL__PASSWORD`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pgwitness.errors import ConfigurationError
from pgwitness.topics import LANES
from pgwitness.units import Duration, Size

ENVIRONMENT_PREFIX = "PGWITNESS_"


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
        """Give the settings of a librdkafka client."""
        return {"bootstrap.servers": self.bootstrap, **self.settings}


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

    From Kafka: `field` is the key of a record's JSON object that holds the line, empty when the record is the line;
    records that agree in `source_fields` come from one file; `instances` names the instance (`host:port`) by the value
    of `instance_field`, and leaves out records of others.
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
    """Table `[privacy]`. `sensitive` columns are told to policies, besides those that `mask` masks."""

    key_file: Path = Path("privacy.key")
    row_values: Literal["none", "masked"] = "masked"
    default: Literal["token", "clear"] = "token"
    clear: list[str] = []
    mask: list[Mask] = []
    sensitive: list[str] = []
    value_limit: Size = Size(8 * 1024)


class Lake(_Section, frozen=True, kw_only=True):
    """Table `[lake]`. A worker lands what it has after `flush_interval` or `flush_rows`, whichever is first."""

    path: Path = Path("./lake")
    signing_key_file: Path | None = None
    flush_interval: Duration = Duration(5.0)
    flush_rows: int = 100_000


class File(_Section, frozen=True, kw_only=True):
    """Table `[identities]`. `claims_keys` is a JWKS or PEM public keys: who may vouch for whom (`pgwitness.claim`)."""

    file: Path = Path("identities.yaml")
    claims_keys: Path | None = None
    claims_issuer: str = ""
    claims_audience: str = "{cluster}/{database}"


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

    `session_timeout` is after how long without a heartbeat the broker gives the partitions to another worker.
    """

    group: str = "pgwitness-worker"
    grace: Duration = Duration(2.0)
    session_timeout: Duration = Duration(10.0)
    checkpoint_interval: Duration = Duration(10.0)
    data_path: Path = Path("./state/worker")


class Behaviour(_Section, frozen=True, kw_only=True):
    """Table `[behaviour]`: when a principal's habits are known well enough to be judged by.

    A principal is only learned from until `warmup` has passed since its first event and it has made
    `warmup_observations` of them; `warmup` holds for the whole stream too. `adopt_after` is how long something new
    stays new. `alert_at` is the anomaly (0 to 1) from which on behaviour alone is an alert of severity low,
    `medium_at` of medium. `principals_max` bounds the memory. `groups_max` is how many peer groups have models of their
    own; further ones share those of their kind. `seed` decides how the models draw their trees and projections.
    """

    enabled: bool = True
    warmup: Duration = Duration(600.0)
    warmup_observations: int = 30
    adopt_after: Duration = Duration(7 * 86_400.0)
    alert_at: float = 0.9
    medium_at: float = 0.95
    principals_max: int = 50_000
    groups_max: int = 24
    seed: int = 1


class Triage(_Section, frozen=True, kw_only=True):
    """Table `[triage]`: what of the findings is told, and how.

    `suppressions` is the file of what stays quiet. What behaviour alone finds waits for a `digest`, told once in
    `digest_interval`, or is an `alert` of its own; of the principals in `promoted` it always is.
    """

    suppressions: Path = Path("suppressions.yaml")
    behaviour: Literal["digest", "alert"] = "digest"
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


class Delivery(_Section, frozen=True, kw_only=True):
    """Table `[deliveries.NAME]`: where `pgwitness alerts deliver` sends alerts, and which.

    A `webhook` or `slack` has `url` or, where the address itself is a secret, `url_file`; `secret_file` is the key that
    signs a webhook's bodies. A `syslog` has `address` (`host:port`) and `transport`, a `file` has `path`. `severity` is
    the least that is sent; `clusters` and `policies` are globs, all when empty. `rate` is how many alerts a minute are
    sent one by one. `tries` is how often one is tried before it becomes a dead letter.
    """

    kind: Literal["webhook", "slack", "syslog", "file"]
    url: str = ""
    url_file: Path | None = None
    secret_file: Path | None = None
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


class Http(_Section, frozen=True, kw_only=True):
    """Table `[http]`: where a daemon serves `/metrics`, `/livez` and `/readyz`; port 0 takes a free one."""

    host: str = "127.0.0.1"
    collect_port: int = 9187
    worker_port: int = 9188
    deliver_port: int = 9189


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    clusters: dict[str, Cluster] = {}
    privacy: Privacy = Privacy()
    lake: Lake = Lake()
    identities: File = File()
    policies: Folder = Folder()
    collectors: Collectors = Collectors()
    worker: Worker = Worker()
    behaviour: Behaviour = Behaviour()
    triage: Triage = Triage()
    reviewers: dict[str, Reviewer] = {}
    deliveries: dict[str, Delivery] = {}
    respond: Respond = Respond()
    http: Http = Http()
    include: list[str] = []

    def cluster(self, name: str) -> Cluster:
        """Give a cluster by its name; raises `ConfigurationError` with the names there are."""
        try:
            return self.clusters[name]
        except KeyError:
            known = ", ".join(sorted(self.clusters)) or "none"
            raise ConfigurationError(f"no cluster {name!r} is configured; there is: {known}") from None


_PATH_KEYS = {
    ("privacy", "key_file"),
    ("lake", "path"),
    ("lake", "signing_key_file"),
    ("identities", "file"),
    ("identities", "claims_keys"),
    ("policies", "path"),
    ("triage", "suppressions"),
    ("collectors", "state_path"),
    ("worker", "data_path"),
}


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration with its includes and the environment's overrides.

    Raises `ConfigurationError` naming the file and the key.
    """
    origins: dict[tuple[str, ...], Path] = {}
    tree = _read(path, origins)
    for pattern in tree.get("include", []) if isinstance(tree.get("include"), list) else []:
        for extra in sorted(path.parent.glob(str(pattern))):
            _merge(tree, _read(extra, origins), extra, ())
    _override(tree, environment)
    _absolute(tree, origins, path)
    _kafka(tree, origins, path)
    try:
        return msgspec.convert(tree, Config, dec_hook=_convert)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, origins, path)) from error


def _read(path: Path, origins: dict[tuple[str, ...], Path]) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file; `pgwitness init` writes one, `--config PATH` names another"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    _remember(tree, path, (), origins)
    return tree


def _remember(tree: dict[str, Any], path: Path, at: tuple[str, ...], origins: dict[tuple[str, ...], Path]) -> None:
    for key, value in tree.items():
        origins[(*at, key)] = path
        if isinstance(value, dict):
            _remember(value, path, (*at, key), origins)


def _merge(tree: dict[str, Any], extra: dict[str, Any], path: Path, at: tuple[str, ...]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value, path, (*at, key))
        elif key in tree:
            raise ConfigurationError(f"{path}: {'.'.join((*at, key))} is set in another file already; keep one of them")
        else:
            tree[key] = value


def _override(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    """`PGWITNESS_LAKE__PATH=/srv/lake` sets `lake.path`; two underscores go one table down."""
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *tables, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        at = tree
        for table in tables:
            at = at.setdefault(table, {})
            if not isinstance(at, dict):
                raise ConfigurationError(f"environment {name}: {table!r} is not a table of the configuration")
        # A number as one writes it; `007` is a text, such as a password.
        at[key] = int(value) if value.isdecimal() and str(int(value)) == value else value


def _absolute(tree: dict[str, Any], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make paths absolute, each relative to the file that names it; defaults are relative to the main file."""
    for section, key in _PATH_KEYS:
        table = tree.setdefault(section, {})
        if not isinstance(table, dict):
            continue
        default = next((f.default for f in msgspec.structs.fields(_section(section)) if f.name == key), None)
        value = table.get(key, default)
        if isinstance(value, str | Path):
            table[key] = str((origins.get((section, key), main).parent / Path(value).expanduser()).resolve())
    _absolute_logs(tree, origins, main)
    _absolute_named(tree.get("deliveries"), ("deliveries",), origins, main)
    respond = tree.get("respond")
    _absolute_named(respond.get("clusters") if isinstance(respond, dict) else None, _RESPOND, origins, main)


_RESPOND = ("respond", "clusters")
_NAMED_PATH_KEYS = ("url_file", "secret_file", "ca_file", "path", "password_file")


def _absolute_named(tables: object, at: tuple[str, ...], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make the paths in tables that have names of their own absolute."""
    for name, table in tables.items() if isinstance(tables, dict) else ():
        for key in _NAMED_PATH_KEYS if isinstance(table, dict) else ():
            if isinstance(value := table.get(key), str):
                origin = origins.get((*at, name, key), main)
                table[key] = str((origin.parent / Path(value).expanduser()).resolve())


def _absolute_logs(tree: dict[str, Any], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Make the patterns of log files absolute; links in them stay, since a log's folder may be moved."""
    clusters = tree.get("clusters")
    for name, cluster in clusters.items() if isinstance(clusters, dict) else ():
        log = cluster.get("log") if isinstance(cluster, dict) else None
        if not isinstance(log, dict) or log.get("from", "file") != "file":
            continue
        if isinstance(log.get("path"), str) and log["path"]:
            origin = origins.get(("clusters", name, "log", "path"), main)
            log["path"] = str(origin.parent.absolute() / Path(log["path"]).expanduser())


def _section(name: str) -> type[Struct]:
    kind = next(f.type for f in msgspec.structs.fields(Config) if f.name == name)
    assert isinstance(kind, type)
    assert issubclass(kind, Struct)
    return kind


def _kafka(tree: dict[str, Any], origins: dict[tuple[str, ...], Path], main: Path) -> None:
    """Put what is not ours in `[kafka]` into `settings`, flattened, with `*_file` keys read from their files."""
    table = tree.get("kafka")
    if not isinstance(table, dict):
        return
    kept = {key: table.pop(key) for key in ("bootstrap", "prefix") if key in table}
    settings: dict[str, str] = {}
    for key, value in _flatten(table, ()):
        named = origins.get(("kafka", key)) or origins.get(("kafka", *key.split(".")), main)
        if key.endswith("_file"):
            source = named.parent / Path(str(value)).expanduser()
            try:
                settings[key.removesuffix("_file")] = source.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(f"{named}: kafka.{key}: {error}; name a file that can be read") from error
        elif key.startswith("ssl.") and key.endswith(".location") and value != "probe":
            settings[key] = str((named.parent / Path(str(value)).expanduser()).resolve())
            if not Path(settings[key]).exists():
                raise ConfigurationError(f"{named}: kafka.{key}: there is no {settings[key]}; correct the path")
        else:
            settings[key] = str(value).lower() if isinstance(value, bool) else str(value)
    tree["kafka"] = kept | {"settings": settings}


def _flatten(table: dict[str, Any], at: tuple[str, ...]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        flat += _flatten(value, (*at, key)) if isinstance(value, dict) else [(".".join((*at, key)), value)]
    return flat


def _convert(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    if issubclass(kind, Duration | Size):
        return kind.parse(value)
    raise NotImplementedError(kind)


_AT = re.compile(r"(.*?)(?: - at `\$?\.?(.*?)`)?", re.DOTALL)


def _explain(error: msgspec.ValidationError, origins: dict[tuple[str, ...], Path], main: Path) -> str:
    """Turn a validation error into `FILE: KEY: what is wrong`."""
    match = _AT.fullmatch(str(error))
    assert match is not None
    message, dotted = match[1], match[2] or ""
    keys = tuple(part.strip(".") for part in re.findall(r"\[[^\]]*\]|[^.\[]+", dotted))
    keys = _named(keys, origins)
    file = next((origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins), main)
    return f"{file}: {'.'.join(keys) or 'configuration'}: {message}"


def _named(keys: tuple[str, ...], origins: dict[tuple[str, ...], Path]) -> tuple[str, ...]:
    """Msgspec writes `[...]` for any key of a mapping; where only one name can be meant, say it."""
    named: list[str] = []
    for key in keys:
        if key == "[...]":
            candidates = {
                path[len(named)] for path in origins if path[: len(named)] == tuple(named) and len(path) > len(named)
            }
            key = candidates.pop() if len(candidates) == 1 else "*"
        named.append(key)
    return tuple(named)
