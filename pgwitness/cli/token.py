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
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    from pgwitness.core.privacy import Tokenizer


@click.command(short_help="Give the token of a value, to look for it in the lake.")
@click.argument("column")
@json_option
@common
def token(column: str, as_json: bool, config_path: Path) -> None:
    """Give what a value of COLUMN (`schema.table.column`) is in the lake: its token, or what its rule makes of it.

    The value is read from stdin without the line's end, from a terminal without an echo, and stands nowhere else. That
    it was asked is evidence: a `control` event with who asked, the column and the token.
    """
    from pgwitness.core.privacy import load_key, tokenizer, treatment

    if column.count(".") < 2 or not all(column.split(".")):
        raise click.UsageError(f"{column}: COLUMN is schema.table.column")
    config = configuration(config_path)
    how = treatment(column, "text", config.privacy)
    if how == "clear":
        raise NotInOrder(f"{column} is clear by [privacy]: look for the value itself")
    if how == "drop":
        raise NotInOrder(f"{column} is dropped by [privacy]: its values are not in the lake")
    made = masked(_value(), how, tokenizer(load_key(config.privacy.key_file)), config.privacy.value_limit)
    recorder = Recorder(config)
    try:
        recorder.token(column, made)
    finally:
        recorder.close()
    if as_json:
        emit([{"column": column, "treatment": how, "token": made}], as_json=True)
    else:
        click.echo(made)


def masked(value: bytes, how: str, make: Tokenizer, limit: int) -> str:
    """Give what the collector makes of a value under a treatment other than `clear` and `drop`."""
    from collectors.wal.values import TokenCache, converter

    convert = converter(how, "text", TokenCache(make, limit), make, limit)
    assert convert is not None
    found = json.loads(convert(value))
    return str(found["token"] if isinstance(found, dict) else found)  # of a long value more is kept than its token


def _value() -> bytes:
    if sys.stdin.isatty():
        said: str = click.prompt("value", hide_input=True, err=True)
        return said.encode()
    return click.get_binary_stream("stdin").read().removesuffix(b"\n").removesuffix(b"\r")
