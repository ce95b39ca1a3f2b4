"""The configuration: `load` reads a file, `Config` is the whole of it, and each of its tables has a type.

What can be set stands in `pgwitness.core.config.tables`, how files and environment are read in
`pgwitness.core.config.reading`.
"""

from __future__ import annotations

from pgwitness.core.config.places import S3Path
from pgwitness.core.config.reading import ENVIRONMENT_PREFIX, load
from pgwitness.core.config.tables import (
    S3,
    Anchor,
    Approvals,
    Approver,
    Audience,
    AudienceColumn,
    Behaviour,
    Cluster,
    Collectors,
    Config,
    Console,
    Delivery,
    File,
    Folder,
    Http,
    Kafka,
    Lake,
    Log,
    Mask,
    Privacy,
    Respond,
    RespondCluster,
    Retention,
    Reviewer,
    Seal,
    Slot,
    Topics,
    Triage,
    Worker,
)

__all__ = [
    "ENVIRONMENT_PREFIX",
    "S3",
    "Anchor",
    "Approvals",
    "Approver",
    "Audience",
    "AudienceColumn",
    "Behaviour",
    "Cluster",
    "Collectors",
    "Config",
    "Console",
    "Delivery",
    "File",
    "Folder",
    "Http",
    "Kafka",
    "Lake",
    "Log",
    "Mask",
    "Privacy",
    "Respond",
    "RespondCluster",
    "Retention",
    "Reviewer",
    "S3Path",
    "Seal",
    "Slot",
    "Topics",
    "Triage",
    "Worker",
    "load",
]
