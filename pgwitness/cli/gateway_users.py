"""`pgwitness gateway users`: who may log in, and with what; new names in a file of users."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pgwitness.core.config import Config
    from pgwitness.core.config.gateway import GatewayDatabase

SALT_BYTES = 16


@click.group(short_help="Who may log in at the gateway.")
def users() -> None:
    """Show who may log in at the gateway, and add names to a file of users."""


@users.command("list", short_help="Show who may log in, and how.")
@json_option
@common
def list_users(as_json: bool, config_path: Path) -> None:
    """Show for each database who may log in: names of its file of users, and what tokens and certificates open."""
    config = configuration(config_path)
    rows = [row for name, database in config.gateway.databases.items() for row in rows_of(name, database)]
    emit(rows, as_json=as_json, columns=("database", "user", "way", "role", "of"))


def rows_of(name: str, database: GatewayDatabase) -> list[dict[str, object]]:
    """List who may log in at a database. Raise `ConfigurationError` for a file that cannot be read."""
    from collectors.gateway.auth.users import FileUsers

    rows: list[dict[str, object]] = []
    if "scram" in database.auth and database.users_file is not None:
        path = database.users_file
        rows += [_row(name, user, "scram", user, str(path)) for user in FileUsers(path).names]
    elif "scram" in database.auth:
        rows.append(_row(name, "*", "scram", "their own", "the server's own roles"))
    for login in database.logins:
        ways = ", ".join(way for way in database.auth if way != "scram")
        wanted = [f"{path} = {_told(globs)}" for path, globs in login.claim.items()]
        if login.name != "*":
            wanted.append(f"certificate = {_told(login.name)}")
        rows.append(_row(name, _told(login.user), ways, login.role, " and ".join(wanted) or "whoever has one"))
    return rows


def _row(database: str, user: str, way: str, role: str, of: str) -> dict[str, object]:
    return {"database": database, "user": user, "way": way, "role": role, "of": of}


def _told(globs: str | list[str]) -> str:
    return globs if isinstance(globs, str) else " or ".join(globs)


@users.command("add", short_help="Add a name, or give it another password.")
@click.argument("name")
@click.option("--database", help="Which of the gateway's databases; the only one when there is one.")
@common
def add(name: str, database: str | None, config_path: Path) -> None:
    """Add NAME to the file of users of a database, or give it another password.

    The password is asked for, or read from stdin; what is kept is its verifier, by which nobody can log in elsewhere.
    The server has to know the role by the same verifier: the command prints what to run there.
    """
    from collectors.gateway.auth.scram import Verifier
    from collectors.gateway.auth.users import with_user

    if not name or "\n" in name:
        raise click.UsageError("NAME is empty or has more than one line")
    path = _file(configuration(config_path), database)
    try:
        verifier = Verifier.of(_password(name), secrets.token_bytes(SALT_BYTES))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with_user(path, name, verifier)
    say(f"{name} is in {path}; the running gateway has taken it on. At the server, as the same role:")
    quoted = name.replace('"', '""')
    click.echo(f"""ALTER ROLE "{quoted}" PASSWORD '{verifier.text()}';""")


def _file(config: Config, database: str | None) -> Path:
    databases = config.gateway.databases
    if database is None and len(databases) == 1:
        database = next(iter(databases))
    if database is None or database not in databases:
        raise click.UsageError(f"--database: which one? There is: {', '.join(sorted(databases)) or 'none'}")
    path = databases[database].users_file
    if path is None:
        raise ConfigurationError(
            f"gateway.databases.{database} has no users_file: its users are the server's own roles; make them there"
        )
    return path


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
