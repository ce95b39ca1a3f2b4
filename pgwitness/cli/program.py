"""The program itself: the list of commands, and the one place where errors become exit codes.

0 done; 1 the thing checked is not in order; 2 wrong usage or configuration; 3 a server could not be reached.
An error that nobody foresaw ends with 1, its text and a hint; `--debug` shows the traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from pgwitness import __version__
from pgwitness.cli import signals
from pgwitness.cli.alerts import alerts
from pgwitness.cli.approvals import approvals
from pgwitness.cli.collect import collect
from pgwitness.cli.completion import completion
from pgwitness.cli.console import console
from pgwitness.cli.db import db
from pgwitness.cli.dead_letters import dead_letters
from pgwitness.cli.demo import demo
from pgwitness.cli.discover import discover
from pgwitness.cli.doctor import doctor
from pgwitness.cli.gateway import gateway
from pgwitness.cli.init import init
from pgwitness.cli.lake import lake
from pgwitness.cli.mcp import mcp
from pgwitness.cli.options import DEBUG
from pgwitness.cli.output import say
from pgwitness.cli.policy import policy
from pgwitness.cli.privacy import privacy
from pgwitness.cli.prove import prove
from pgwitness.cli.report import report
from pgwitness.cli.seal import seal
from pgwitness.cli.sql import sql
from pgwitness.cli.token import token
from pgwitness.cli.topics import topics
from pgwitness.cli.verify import verify
from pgwitness.cli.worker import worker
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Unreachable

CLOSED = 0o077
DONE, NOT_IN_ORDER, USAGE, UNREACHABLE = 0, 1, 2, 3


def exit_code(error: BaseException) -> int:
    """Give the exit code an error ends a command with."""
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, ConfigurationError) or refused_setting(error) is not None:
        return USAGE
    return NOT_IN_ORDER


def refused_setting(error: BaseException) -> str | None:
    """Give what the Kafka client says of a setting whose value it does not take; None for any other error."""
    if type(error).__name__ != "KafkaException" or not error.args:
        return None
    name = getattr(error.args[0], "name", None)
    return str(error.args[0].str()) if callable(name) and name() == "_INVALID_ARG" else None


class Program(click.Group):
    """A group of commands that keeps the order they were added in and turns errors into exit codes."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Run as a process of its own: what it makes is its user's and nobody else's, whatever the umask was."""
        if args is None:
            os.umask(CLOSED)
        return super().main(args, *rest, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order a newcomer needs them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; every error of pgwitness becomes its text and its code."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if not signals.watching() or sys.stderr.isatty():
                raise
            say(error.format_message(), level="error")
            ctx.exit(error.exit_code)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except PgwitnessError as error:
            say(f"pgwitness: {error}", level="error", **_traceback(ctx))
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(130)
        except Exception as error:
            more = _traceback(ctx)
            if (said := refused_setting(error)) is not None:
                say(
                    f"pgwitness: [kafka]: the client does not take a setting: {said}; correct it", level="error", **more
                )
                ctx.exit(exit_code(error))
            say(f"pgwitness: {type(error).__name__}: {error}", level="error", **more)
            say("pgwitness: this was not foreseen; run it again with --debug to see where")
            ctx.exit(exit_code(error))


def _traceback(ctx: click.Context) -> dict[str, str]:
    """Show where an error came from, if that is wanted; a daemon's log has it in the line of the error."""
    if not (ctx.meta.get(DEBUG) or os.environ.get("PGWITNESS_DEBUG")):
        return {}
    if signals.watching() and not sys.stderr.isatty():
        return {"traceback": traceback.format_exc()}
    traceback.print_exc(file=sys.stderr)
    return {}


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pgwitness")
def main() -> None:
    """Witness a PostgreSQL database: who did what, on whose behalf, and what of it was dangerous."""


for command in (
    demo,
    init,
    doctor,
    db,
    discover,
    topics,
    collect,
    worker,
    gateway,
    console,
    mcp,
    sql,
    report,
    lake,
    seal,
    verify,
    prove,
    alerts,
    approvals,
    policy,
    dead_letters,
    token,
    privacy,
    completion,
):
    main.add_command(command)
