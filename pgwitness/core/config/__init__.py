"""The configuration: `load` reads a file, `Config` is the whole of it, and each of its tables has a type.

What can be set stands in `pgwitness.core.config.tables` and the modules that it names, how files and environment are
read in `pgwitness.core.config.reading`.
"""

from __future__ import annotations

from pgwitness.core.config.capture import Cluster, Collectors, File, Folder, Log, Mask, Privacy, Slot
from pgwitness.core.config.delivering import Delivery, Respond, RespondCluster
from pgwitness.core.config.evidence import S3, Anchor, Lake, Retention, Seal
from pgwitness.core.config.gateway import Audience, AudienceColumn
from pgwitness.core.config.judging import Approvals, Approver, Behaviour, Reviewer, Triage, Worker
from pgwitness.core.config.kafka import Kafka, Topics
from pgwitness.core.config.places import S3Path
from pgwitness.core.config.reading import ENVIRONMENT_PREFIX, load
from pgwitness.core.config.serving import Console, Http
from pgwitness.core.config.tables import Config

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
