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
    from pgwitness.cli import kafka
    from streams import admin

    if only_print:
        rows = wanted(config)
        if not as_json:
            rows = [{**row, "settings": _lines(row["settings"]), "acls": _lines(row["acls"])} for row in rows]
        emit(rows, as_json=as_json, title="Topics that pgwitness needs")
        return
    kafka.reach(config)
    findings = admin.apply(config)
    rows = [{"topic": item.topic, "state": item.state, "detail": item.detail} for item in findings]
    emit(rows, as_json=as_json)
    if not all(item.in_order for item in findings):
        raise click.exceptions.Exit(1)


def wanted(config: Config) -> list[Row]:
    """List the topics of an installation as data: sizes, settings, and the ACLs each daemon needs."""
    from streams import admin

    return [
        {
            "topic": topic.name,
            "partitions": topic.partitions,
            "replication_factor": topic.replication_factor,
            "settings": [f"{name}={value}" for name, value in topic.settings.items()],
            "acls": topic.acls,
        }
        for topic in admin.plan(config)
    ]


def _lines(values: object) -> str:
    return "\n".join(map(str, values)) if isinstance(values, list) else str(values)
