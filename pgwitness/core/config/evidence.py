"""The tables of the lake: where it lies, how long it keeps, who seals it."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Literal, get_args

from pgwitness.core.config.section import Section
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Kind
from pgwitness.core.units import Duration


class S3(Section, frozen=True, kw_only=True):
    """Table `[lake.s3]`, for a lake in a bucket. What is not set here the environment says, as for other programs."""

    endpoint: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    """Certificates (PEM) that the endpoint's is held against, besides those that are known everywhere."""

    def __post_init__(self) -> None:
        """Refuse what is no URL."""
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint: must be a URL, such as https://minio.example:9000; got {self.endpoint!r}")


class Lake(Section, frozen=True, kw_only=True):
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


class Anchor(Section, frozen=True, kw_only=True):
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


class Retention(Section, frozen=True, kw_only=True):
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


class Seal(Section, frozen=True, kw_only=True):
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
