"""The tables of what is collected, from where, and what of it is masked."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from msgspec import field

from pgwitness.core.config.section import Section
from pgwitness.core.units import Duration, Size

OF_DATABASE: Final = "{cluster}/{database}"
"""The audience of tokens for one database, where nothing else is set."""


class Slot(Section, frozen=True, kw_only=True):
    """Table `[clusters.NAME.slot]`. `max_lag` bounds the WAL that the slot holds back on the source."""

    name: str = "pgwitness"
    max_lag: Size = Size(10 * 1000**3)
    on_max_lag: Literal["warn", "drop"] = "warn"
    failover: bool = True


class Log(Section, frozen=True, kw_only=True):
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


class Cluster(Section, frozen=True, kw_only=True):
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


class Mask(Section, frozen=True, kw_only=True):
    """One entry of `privacy.mask`: a column (globs allowed) and how its values are masked."""

    column: str
    with_: Literal["token", "last4", "hash", "drop", "clear"] = field(name="with", default="token")


class Privacy(Section, frozen=True, kw_only=True):
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


CLAIMS_FIELDS_MAX = 16


class File(Section, frozen=True, kw_only=True):
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


class Folder(Section, frozen=True, kw_only=True):
    """Table `[policies]`."""

    path: Path = Path("policies/")


class Collectors(Section, frozen=True, kw_only=True):
    """Table `[collectors]`: what holds for every collector daemon.

    `state_path` keeps what a collector must know again after a restart; `spool_limit` bounds the disk for long
    transactions that have not named themselves yet, `memory_limit` what is kept in memory before that.
    """

    state_path: Path = Path("./state")
    memory_limit: Size = Size(16 * 1024**2)
    spool_limit: Size = Size(4 * 1024**3)
    heartbeat_interval: Duration = Duration(10.0)
