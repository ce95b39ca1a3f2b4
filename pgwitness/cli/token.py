"""`pgwitness token`: what a value is in the lake, for whoever has the masking key and wants to find it there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit
from pgwitness.core.errors import ConfigurationError, NotInOrder

if TYPE_CHECKING:
    from pgwitness.core.config import Config
    from pgwitness.core.privacy import Tokenizer


@click.command(short_help="Give the token of a value, to look for it in the lake.")
@click.argument("column")
@click.option("--subject", is_flag=True, help="The first line of stdin is the id of the row's data subject.")
@json_option
@common
def token(column: str, subject: bool, as_json: bool, config_path: Path) -> None:
    """Give what a value of COLUMN (`schema.table.column`) is in the lake: its token, or what its rule makes of it.

    The value is read from stdin without the line's end, from a terminal without an echo, and stands nowhere else. Where
    the masking key was rotated, it is one line for each generation, the newest first. That it was asked is evidence: a
    `control` event for each token, with who asked and the column.
    """
    from pgwitness.core.privacy import names_subject, treatment

    if column.count(".") < 2 or not all(column.split(".")):
        raise click.UsageError(f"{column}: COLUMN is schema.table.column")
    config = configuration(config_path)
    how = treatment(column, "text", config.privacy)
    if how == "clear":
        raise NotInOrder(f"{column} is clear by [privacy]: look for the value itself")
    if how == "drop":
        raise NotInOrder(f"{column} is dropped by [privacy]: its values are not in the lake")
    whose = asked_value("id of the data subject", line=True) if subject else None
    value = asked_value("value")
    if whose is None and names_subject(column, config.privacy):
        whose = value
    makers = _makers(config, whose)
    found = dict.fromkeys(masked(value, how, make, config.privacy.value_limit) for make in makers)
    recorder = Recorder(config)
    try:
        for made in found:
            recorder.token(column, made)
    finally:
        recorder.close()
    if as_json:
        emit([{"column": column, "treatment": how, "token": made} for made in found], as_json=True)
    else:
        for made in found:
            click.echo(made)


def _makers(config: Config, subject: bytes | None) -> list[Tokenizer]:
    """Give what makes tokens, the newest first; of a data subject their own. Raise `NotInOrder` for a forgotten one."""
    from pgwitness.core import subjects
    from pgwitness.core.privacy import load_key

    if subject is None:
        key = load_key(config.privacy.key_file)
        return [key.tokenizer(number) for number in range(len(key.generations), 0, -1)]
    if not config.privacy.subjects:
        raise ConfigurationError("privacy.subject is not set: nobody has tokens of their own")
    keys = subjects.load(config.privacy.subject_key_file)
    if keys.key(subject) is None:
        raise NotInOrder("this data subject was forgotten: nobody can make their tokens any more")
    return [keys.tokens(subject)]


def masked(value: bytes, how: str, make: Tokenizer, limit: int) -> str:
    """Give what the collector makes of a value under a treatment other than `clear` and `drop`."""
    from collectors.wal.decoding.values import TokenCache, converter

    convert = converter(how, "text", TokenCache(make, limit), make, limit)
    assert convert is not None
    found = json.loads(convert(value))
    return str(found["token"] if isinstance(found, dict) else found)  # of a long value more is kept than its token


def asked_value(what: str, *, line: bool = False) -> bytes:
    """Read a value that stands in no command line: from a terminal without an echo, else all of stdin, or a line."""
    if sys.stdin.isatty():
        said: str = click.prompt(what, hide_input=True, err=True)
        return said.encode()
    if line:
        return click.get_binary_stream("stdin").readline().removesuffix(b"\n").removesuffix(b"\r")
    return click.get_binary_stream("stdin").read().removesuffix(b"\n").removesuffix(b"\r")
