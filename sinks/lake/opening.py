"""The lake that a configuration describes, with the groups of the system that may read it."""

from __future__ import annotations

import grp

from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from sinks.lake.files import Files, shared_with
from sinks.lake.writer import Lake


def open_lake(config: Config) -> Lake:
    """Return the lake of `lake.path`. Raise `ConfigurationError` for a group that this host does not have."""
    return Lake(config.lake.path, files=_files(config))


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
