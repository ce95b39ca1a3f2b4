"""`pgwitness console`: the page that people look at, and its users."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from pgwitness.cli.options import common, configuration, http_options, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import ConfigurationError

ROLES = ["viewer", "analyst", "reviewer", "approver", "administrator"]


@click.group(invoke_without_command=True, short_help="Serve the page: what happens now, alerts, evidence.")
@http_options
@common
@click.pass_context
def console(ctx: click.Context, host: str | None, port: int | None, config_path: Path) -> None:
    """Serve pages on what the lake holds, until asked to stop: what flows, alerts, and what speaks for them.

    Who logs in, and what is looked at, is evidence. Where to listen says [console] in the configuration; users are made
    with `pgwitness console users add`.
    """
    if ctx.invoked_subcommand is not None:
        return
    from pgwitness.approvals.following import Following
    from pgwitness.cli.alerts_triage import send
    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.evidence import Recorder
    from pgwitness.cli.signals import finish
    from sinks.console import server

    config = configuration(config_path)
    recorder, requests = Recorder(config), Following(config)
    with daemon("console", host or config.http.host, config.http.console_port if port is None else port) as it:
        stop, health = it
        try:
            server.run(config, recorder, partial(send, config), requests, health, stop)
        finally:
            requests.close()
            recorder.close()
    finish(0)


@console.group(short_help="Who may log in to the console.")
def users() -> None:
    """Keep the file of users, `console.users_file`."""


@users.command(short_help="Add a user, or give one a new password or other roles.")
@click.argument("name")
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="What they may do; may be repeated."
)
@common
def add(name: str, roles: tuple[str, ...], config_path: Path) -> None:
    """Add the user NAME, or replace the one of that name. The password is asked for, or read from stdin."""
    from sinks.console import users as file

    config = configuration(config_path)
    if (fault := file.fault_of_name(name)) is not None:
        raise ConfigurationError(f"NAME: {fault}")
    password = _password(name)
    if (fault := file.fault_of_password(password)) is not None:
        raise ConfigurationError(f"the password: {fault}")
    user = file.User(name=name, roles=list(dict.fromkeys(roles)), password=file.hashed(password))
    file.change(config.console.users_file, lambda known: {**known, name: user})
    say(f"{config.console.users_file}: {name} may log in as {', '.join(user.roles)}")


@users.command(short_help="Remove a user.")
@click.argument("name")
@common
def remove(name: str, config_path: Path) -> None:
    """Remove the user NAME; their sessions end with their next request."""
    from sinks.console import users as file

    config = configuration(config_path)
    if name not in file.read(config.console.users_file):
        raise ConfigurationError(f"NAME: {config.console.users_file} has no user {name}")
    file.change(config.console.users_file, lambda known: {key: user for key, user in known.items() if key != name})
    say(f"{config.console.users_file}: {name} is removed")


@users.command("list", short_help="List the users.")
@json_option
@common
def list_(as_json: bool, config_path: Path) -> None:
    """List who may log in, with their roles."""
    from sinks.console import users as file

    config = configuration(config_path)
    rows = [{"name": user.name, "roles": user.roles} for user in file.read(config.console.users_file).values()]
    emit(rows, as_json=as_json, empty="no users")


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    return click.get_text_stream("stdin").read().rstrip("\r\n")
