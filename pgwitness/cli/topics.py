"""`pgwitness topics`: what Kafka must have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit

if TYPE_CHECKING:
    from pgwitness.cli.output import Row
    from pgwitness.core.config import Config


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
    from streams.kafka import admin

    if only_print:
        planned, allowed = wanted(config), rights(config)
        if as_json:
            rows = [{"section": "topic", **row} for row in planned] + [{"section": "acl", **row} for row in allowed]
            emit(rows, as_json=True)
            return
        emit([{**row, "settings": _lines(row["settings"])} for row in planned], as_json=False, title="Topics")
        emit(
            [{**row, "operations": ", ".join(map(str, _list(row["operations"])))} for row in allowed],
            as_json=False,
            title="ACLs: what each account is allowed, where an authorizer allows nothing else",
        )
        return
    kafka.reach(config)
    findings = admin.apply(config)
    rows = [{"topic": item.topic, "state": item.state, "detail": item.detail} for item in findings]
    emit(rows, as_json=as_json)
    if not all(item.in_order for item in findings):
        raise click.exceptions.Exit(1)


def wanted(config: Config) -> list[Row]:
    """List the topics of an installation as data: sizes and settings."""
    from streams.kafka import admin

    return [
        {
            "topic": topic.name,
            "partitions": topic.partitions,
            "replication_factor": topic.replication_factor,
            "settings": [f"{name}={value}" for name, value in topic.settings.items()],
        }
        for topic in admin.plan(config)
    ]


def rights(config: Config) -> list[Row]:
    """List the ACLs as data: an account is a daemon or command; the pattern is Kafka's, `literal` or `prefixed`."""
    from streams.kafka.acls import acls

    return [
        {
            "account": acl.account,
            "operations": list(acl.operations),
            "resource": acl.resource,
            "name": acl.name,
            "pattern": "prefixed" if acl.prefixed else "literal",
        }
        for acl in acls(config)
    ]


def _list(values: object) -> list[object]:
    return values if isinstance(values, list) else [values]


def _lines(values: object) -> str:
    return "\n".join(map(str, values)) if isinstance(values, list) else str(values)
