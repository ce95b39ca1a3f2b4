"""`pgwitness topics`: what Kafka must have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit

if TYPE_CHECKING:
    from pgwitness.cli.output import Row
    from pgwitness.config import Config


@click.group()
def topics() -> None:
    """Create and check the Kafka topics."""


@topics.command("apply")
@click.option("--print", "only_print", is_flag=True, help="Only show topics, retention and the ACLs they need.")
@json_option
@common
def apply(only_print: bool, as_json: bool, config_path: Path) -> None:
    """Create the topics that are missing and check those that are there; exits 1 when one is not as it should be."""
    config = configuration(config_path)
    if only_print:
        emit(wanted(config), as_json=as_json, title="Topics that pgwitness needs")
        return
    from streams import admin

    rows = admin.apply(config)
    emit(rows, as_json=as_json)


def wanted(config: Config) -> list[Row]:
    """List the topics of an installation as data: sizes, retention, and who needs to write and read them."""
    from pgwitness.topics import DAY_MS, topics

    return [
        {
            "topic": config.kafka.topic(topic.name),
            "partitions": topic.partitions,
            "replication_factor": config.topics.replication_factor,
            "cleanup_policy": topic.cleanup,
            "retention": "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms // DAY_MS} days",
            "message_bytes_max": topic.value_bytes_max,
            "write": list(topic.writers),
            "read": list(topic.readers),
        }
        for topic in topics(config.topics.raw_partitions, config.topics.event_partitions)
    ]
