"""The whole configuration: what can be set, what it means and what it is unless it is set.

`pgwitness.core.config.reading` makes it from files; its tables stand beside it by what they are about. A secret is
never a value here: it comes from a file (`*_file`, `PGPASSFILE`) or from the environment.
"""

from __future__ import annotations

from pgwitness.core.config.capture import Cluster, Collectors, File, Folder, Privacy
from pgwitness.core.config.delivering import Delivery, Respond
from pgwitness.core.config.evidence import Lake, Retention, Seal
from pgwitness.core.config.gateway import Audience, Gateway, Guard
from pgwitness.core.config.judging import Approvals, Approver, Behaviour, Reviewer, Triage, Worker
from pgwitness.core.config.kafka import Kafka, Topics
from pgwitness.core.config.section import Section
from pgwitness.core.config.serving import Console, Http, Mcp
from pgwitness.core.errors import ConfigurationError


class Config(Section, frozen=True, kw_only=True):
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
