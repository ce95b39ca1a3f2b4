"""`pgwitness discover`: which columns of the source databases look sensitive, and the entries that mask them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pgwitness.cli.db import Target, targeted
from pgwitness.cli.options import configuration, json_option
from pgwitness.cli.output import Row, emit, say
from pgwitness.core.errors import ConfigurationError, NotInOrder

if TYPE_CHECKING:
    from collectors.discovery.columns import Finding
    from collectors.discovery.source import Asked

NAMED_MAX = 5


@click.command(short_help="List columns that look sensitive, with the entries that mask them.")
@click.option(
    "--at-least",
    type=click.Choice(["high", "medium", "low"]),
    default="medium",
    show_default=True,
    help="Only what is at least so sure.",
)
@click.option(
    "--budget", default="60s", show_default=True, metavar="DURATION", help="How long to look at each database's values."
)
@click.option("--toml", "as_toml", is_flag=True, help="Print `mask` and `sensitive` of [privacy] with these columns.")
@json_option
@targeted
def discover(target: Target, at_least: str, budget: str, as_toml: bool, as_json: bool) -> None:
    """List columns that look sensitive by their names, types and statistics: as what, how sure, and why.

    Read only. No value leaves the server: it counts there how many have the form of an address, a card, a key. What
    cannot be read is judged by name and type.
    """
    from psycopg import Error

    from collectors.discovery import entries, judging
    from collectors.discovery.columns import CONFIDENCES
    from collectors.discovery.source import ask
    from pgwitness.core.privacy import treatment
    from pgwitness.core.units import Duration

    if as_toml and as_json:
        raise click.UsageError("--toml and --json are two forms of the same answer; choose one")
    try:
        budget_s = float(Duration.parse(budget))
    except ValueError as error:
        raise ConfigurationError(f"--budget: {error}") from error
    privacy = configuration(target.config_path, target.clusters).privacy
    covered = entries.Covered(privacy)
    rows: list[Row] = []
    new: list[Finding] = []
    for cluster, database, connection in target.each():
        try:
            asked = ask(connection, budget_s)
        except Error as error:
            raise NotInOrder(f"{cluster}/{database}: the database could not be asked: {str(error).strip()}") from error
        _limits(f"{cluster}/{database}", asked)
        for found in judging.judge(asked.columns):
            if CONFIDENCES.index(found.confidence) > CONFIDENCES.index(at_least):
                continue
            column = found.column
            declared = asked.declared[column.schema, column.table, column.name]
            by, name = covered.by(column), entries.full_name(column)
            new += [found] if not by else []
            rows.append(
                {
                    "cluster": cluster,
                    "database": database,
                    "column": name,
                    "type": declared,
                    "generated": (column.schema, column.table, column.name) in asked.generated,
                    "view": column.view,
                    "looks_like": found.category,
                    "confidence": found.confidence,
                    "why": "; ".join(found.why),
                    "now": "not in changes" if column.view else treatment(name, declared, privacy),
                    "covered": by or None,
                    "entry": entries.proposed(found) if not by else None,
                }
            )
    if as_toml:
        click.echo(entries.toml(privacy, new))
        return
    shown = ["cluster", "database", "column", "type", "looks_like", "confidence", "now", "covered", "entry", "why"]
    emit(rows, as_json=as_json, columns=shown, empty="no column looks sensitive")


def _limits(where: str, asked: Asked) -> None:
    """Say which tables were not looked at, and why."""
    for tables, why in (
        (
            asked.unread,
            "may not be read by this role, at least in part: judged by names and types; --dsn names another",
        ),
        (asked.elsewhere, "partly on other servers, which are not asked: judged by names and types"),
        (
            [f"{table} ({state})" for table, state in asked.failed.items()],
            "a look at its values failed with this SQLSTATE: judged by names and types",
        ),
        (asked.late, "not looked at in time, or locked: judged by names and types; --budget gives more"),
    ):
        if tables:
            more = f" and {len(tables) - NAMED_MAX} more" if len(tables) > NAMED_MAX else ""
            say(f"{where}: {', '.join(tables[:NAMED_MAX])}{more}: {why}")
