"""The lake that a configuration describes, with the groups of the system that may read it."""

from __future__ import annotations

import grp
from pathlib import Path

from pgwitness.core.config import Config, S3Path
from pgwitness.core.errors import ConfigurationError
from sinks.lake.storage.files import Files, shared_with
from sinks.lake.storage.store import Folder, Store
from sinks.lake.writer import Lake


def open_lake(config: Config) -> Lake:
    """Return the lake of `lake.path`. Raise `ConfigurationError` for a group that this host, or a bucket, lacks."""
    return Lake(lake_store(config))


def lake_store(config: Config) -> Store:
    """Return where `lake.path` is: a folder or a bucket. Nothing is opened yet. Raise as `open_lake` does."""
    path = config.lake.path
    if not isinstance(path, S3Path):
        return Folder(Path(path), _files(config))
    if config.lake.group or config.lake.rows_group:
        raise ConfigurationError(
            f"lake.group: {path} is no folder: who may read it, and its objects below rows/, the bucket's policy says"
        )
    from sinks.lake.storage.objects import Objects

    return Objects(path, config.lake.s3)


def _files(config: Config) -> Files:
    found: dict[str, int | None] = {}
    for key, name in (("group", config.lake.group), ("rows_group", config.lake.rows_group)):
        try:
            found[key] = grp.getgrnam(name).gr_gid if name is not None else None
        except KeyError:
            raise ConfigurationError(
                f"lake.{key}: this host has no group {name!r}; make it, or correct the name"
            ) from None
    if found["rows_group"] is not None and found["group"] is None:
        raise ConfigurationError("lake.rows_group is set and lake.group is not: its members cannot come that far")
    return shared_with(found["group"], found["rows_group"])
