"""`pgwitness privacy`: the keys that tokens are made with, of the installation and of each data subject."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration
from pgwitness.cli.output import say
from pgwitness.cli.token import asked_value
from pgwitness.core.errors import ConfigurationError, NotInOrder

if TYPE_CHECKING:
    from pgwitness.core.config import Config


@click.group(short_help="Keys of tokens: rotate, and forget a person.")
def privacy() -> None:
    """Make, rotate and delete the keys that tokens are made with. Run it where collectors do."""


@privacy.command(short_help="Make the store of data subjects' keys.")
@common
def init(config_path: Path) -> None:
    """Make the file of `privacy.subject_key_file`, once; back it up apart from everything else.

    A backup that is older than a forgetting has the forgotten key.
    """
    from pgwitness.core import subjects

    config = configuration(config_path)
    subjects.create(config.privacy.subject_key_file)
    say(f"{config.privacy.subject_key_file} is written; copy it to each host with collectors, and back it up apart")


@privacy.command(short_help="Go on with a new masking key; old tokens stay known.")
@common
def rotate(config_path: Path) -> None:
    """Add a generation to the masking key: new tokens say which made them, `pgwitness token` gives all of a value.

    Copy the file to each host with collectors or a gateway, and start those again.
    """
    import secrets

    from pgwitness.core.privacy import KEY_BYTES, add_generation

    config = configuration(config_path)
    path = config.privacy.key_file
    try:
        number = add_generation(path, secrets.token_bytes(KEY_BYTES))
    except OSError as error:
        raise NotInOrder(f"{path} could not be written ({error}): the key is what it was") from error
    _recorded(config, "rotate_key", {"generation": number})
    say(f"{path} has generation {number}; start collectors and gateway again, on each host with this file")


@privacy.command(short_help="Delete a data subject's key: their tokens say nothing any more.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@common
def forget(yes: bool, config_path: Path) -> None:
    """Delete the key of a data subject, whose id is read from stdin as PostgreSQL writes it; for good.

    What the lake has of them stays as it is, and sealed; nobody can tell any more whose it is, or make their tokens
    again. That it was done is evidence: a `control` event with the token that their id had.
    """
    from pgwitness.core import subjects

    config = configuration(config_path)
    if not config.privacy.subjects:
        raise ConfigurationError("privacy.subject is not set: tokens are of one key, and nobody can be forgotten alone")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("this cannot be undone: say --yes")
    subject = asked_value("id of the data subject")
    if not subject:
        raise NotInOrder("no id was given")
    if not yes:
        click.confirm("Delete this subject's key, for good?", abort=True, err=True)
    tokens: list[str] = []
    subjects.forget(
        config.privacy.subject_key_file,
        subject,
        lambda keys: tokens.append(keys.tokens(subject)(subject).decode()),
    )
    _recorded(config, "forget", {"columns": config.privacy.subjects, "token": tokens[0]})
    say(f"the key is deleted; the id was {tokens[0]} in the lake")
    say(f"replace the copies of {config.privacy.subject_key_file} on other hosts, and delete its older backups")


def _recorded(config: Config, operation: str, detail: dict[str, object]) -> None:
    recorder = Recorder(config)
    try:
        recorder.did(operation, detail)
    finally:
        recorder.close()
