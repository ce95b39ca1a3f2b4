"""`pgwitness doctor`: what can be seen here, how surely, what is wrong and how to mend it."""

from __future__ import annotations

from pathlib import Path

import click

from pgwitness.cli.doctor import compiled, databases, gateway, installation, names, slots, storage, triage
from pgwitness.cli.doctor.lines import Line
from pgwitness.cli.options import cluster_option, common, configuration, json_option
from pgwitness.cli.output import console, emit, json_list, say
from pgwitness.core.printable import visible


@click.command(short_help="Check what can be captured, what is wrong, and how to mend it.")
@cluster_option
@json_option
@common
def doctor(clusters: tuple[str, ...], as_json: bool, config_path: Path) -> None:
    """Say what can be captured and how surely, what is wrong with the exact fix, and which policies can never fire.

    Checks databases, masks, guard, broker, topics, lake, clocks, key, identities and policies; names the sessions of
    the last hour that no rule names. Exits 1 when something is wrong, 3 when the only trouble is an unreachable server.
    """
    config = configuration(config_path, clusters)
    capabilities: list[Line] = []
    findings: list[Line] = []
    silent: list[Line] = []
    with console(stderr=True).status("examining"):
        for name, cluster in config.clusters.items():
            rows, kinds = databases.examine(name, cluster, findings)
            slots.examine(name, cluster, findings)
            capabilities += rows
            if rows:
                silent += databases.silent(config, name, kinds)
        databases.masks(config, findings)
        databases.guard(config, findings)
        checks = (installation.kafka, installation.lake, storage.storage, compiled.compiled, installation.files)
        for check in (*checks, triage.triage):
            check(config, findings)
        gateway.gateway(config, findings)
        unnamed = names.examine(config, findings)
    if as_json:
        sections = {"capability": capabilities, "check": findings, "policy": silent, "unnamed": unnamed}
        click.echo(json_list([{"section": section, **row} for section, rows in sections.items() for row in rows]))
    else:
        emit(capabilities, as_json=False, title="What can be captured")
        emit(findings, as_json=False, title="What was checked")
        emit(silent, as_json=False, title="Policies that can never fire")
        _unnamed(unnamed, str(config.identities.file))
        if not any(row["state"] in ("error", "unreachable") for row in findings):
            warnings = sum(row["state"] == "warning" for row in findings)
            noun = "warning" if warnings == 1 else "warnings"
            say(f"nothing is wrong; {warnings} {noun}" if warnings else "everything that was checked is in order")
    states = {row["state"] for row in findings}
    raise click.exceptions.Exit(1 if "error" in states else 3 if "unreachable" in states else 0)


def _unnamed(rows: list[Line], file: str) -> None:
    """Show who has no name; the rules stand below the table, where nothing folds them."""
    if not rows:
        return
    columns = ("cluster", "sessions", "role", "application", "client_addr")
    emit(rows, as_json=False, columns=columns, title="Sessions of the last hour that no rule names")
    click.echo(f"To name them, append to {file} and say who they are:")
    for rule in dict.fromkeys(str(row["rule"]) for row in rows):
        click.echo(visible(rule))
    click.echo("")
