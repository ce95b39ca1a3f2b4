"""The targets: each takes one delivery and returns when it has it (`pgwitness.core.contracts.alert_target`).

A target is a function in `TARGETS`, by its `kind` in the configuration: of the table's name and its settings it makes
what sends, and raises `ConfigurationError` naming what is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import AlertTarget
from pgwitness.core.errors import ConfigurationError
from sinks.deliveries.routing import Item
from sinks.deliveries.targets.file import make_file
from sinks.deliveries.targets.syslog import make_syslog
from sinks.deliveries.targets.webhook import (
    make_datadog,
    make_elastic,
    make_opensearch,
    make_pagerduty,
    make_slack,
    make_splunk,
    make_teams,
    make_webhook,
)

TARGETS: dict[str, Callable[[str, Delivery], AlertTarget[Item]]] = {
    "webhook": make_webhook,
    "slack": make_slack,
    "teams": make_teams,
    "pagerduty": make_pagerduty,
    "splunk": make_splunk,
    "elastic": make_elastic,
    "opensearch": make_opensearch,
    "datadog": make_datadog,
    "syslog": make_syslog,
    "file": make_file,
}


def make(name: str, settings: Delivery) -> AlertTarget[Item]:
    """Make the target of `[deliveries.NAME]`. Raise `ConfigurationError` naming what is missing."""
    where = f"deliveries.{name}"
    if not 1 <= settings.tries <= 100 or settings.rate < 1:
        raise ConfigurationError(f"{where}: tries is 1 to 100, and rate at least 1 a minute")
    return TARGETS[settings.kind](where, settings)
