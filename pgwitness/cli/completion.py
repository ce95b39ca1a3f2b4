"""`pgwitness completion`, and the page for `man`: both made of the commands, so that neither can be behind.

The scripts ask the program at each Tab what could follow. `share` gives the files that a wheel puts below `share/`,
where bash, zsh, fish and man look for them; hatch_build.py calls it with nothing installed but click.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from pgwitness.cli.options import common

SHELLS = ("bash", "zsh", "fish")
PLACES = {
    "bash": "bash-completion/completions/pgwitness",
    "zsh": "zsh/site-functions/_pgwitness",
    "fish": "fish/vendor_completions.d/pgwitness.fish",
}
"""Where a shell looks below `share/`."""

EXIT_CODES = (
    ("0", "done"),
    ("1", "the thing checked is not in order, or something went wrong that nobody foresaw"),
    ("2", "wrong usage or configuration; the text names the file and the key"),
    ("3", "a server could not be reached; the text says which and what to do"),
)
ENVIRONMENT = (
    ("PGWITNESS_TABLE__KEY", "a setting, before what the configuration says of it"),
    ("PGWITNESS_DEBUG", "set to anything, the same as --debug"),
    ("PGPASSFILE", "the file of PostgreSQL's passwords, which are never arguments"),
)


@click.command(short_help="Print the script by which a shell completes commands and options.")
@click.argument("shell", type=click.Choice(SHELLS))
@common
def completion(shell: str, config_path: str) -> None:
    """Print the script by which SHELL completes commands, options and their values.

    A wheel brings the scripts to where shells look, below `share/`; this is for whoever installed otherwise. For bash:
    `pgwitness completion bash > ~/.local/share/bash-completion/completions/pgwitness`.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """Give the completion script of a shell, which needs the program by the name `pgwitness`."""
    from pgwitness.cli.program import main

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    made = kind(main, {}, "pgwitness", "_PGWITNESS_COMPLETE")
    # What bash's own class would do before, run bash and look at its version, is the user's and not the builder's.
    text = made.source_template % made.source_vars()
    return re.sub(r"\n{2,}", "\n\n", text.strip()) + "\n"


def share(version: str) -> dict[str, str]:
    """Give the files of a wheel below `share/`: completion for each shell, and the page for `man`."""
    files = {PLACES[shell]: script(shell) for shell in SHELLS}
    files["man/man1/pgwitness.1"] = manual(version)
    return files


def manual(version: str) -> str:
    """Write the page for `man`: every command with its arguments and options, exit codes, environment and files."""
    from pgwitness.cli.program import main

    return "\n".join([*_head(main, version), *_commands(main), *_tail()]) + "\n"


def _head(main: click.Group, version: str) -> Iterator[str]:
    yield f'.TH PGWITNESS 1 "" "pgwitness {_text(version)}" "User Commands"'
    yield from (".SH NAME", r"pgwitness \- audit and anomaly pipeline for PostgreSQL")
    yield from (".SH SYNOPSIS", ".B pgwitness", r".I COMMAND", "[OPTIONS] [ARGUMENTS]")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(main.help or "")
    yield from (".SH OPTIONS", "Every command takes these.")
    for parameter in _shared():
        yield from _option(parameter)


def _commands(main: click.Group) -> Iterator[str]:
    yield ".SH COMMANDS"
    for path, command in walk(main):
        context = click.Context(command, info_name=path)
        yield f".SS {_text(path)}"
        arguments = " ".join(command.collect_usage_pieces(context))
        yield from (f".B {_text(path)}", _text(arguments), ".PP")
        yield from _paragraphs(command.help or "")
        shared = {parameter.name for parameter in _shared()}
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in shared and not parameter.hidden:
                yield from _option(parameter)


def _tail() -> Iterator[str]:
    for heading, rows in (("EXIT STATUS", EXIT_CODES), ("ENVIRONMENT", ENVIRONMENT)):
        yield f".SH {heading}"
        for name, meaning in rows:
            yield from (".TP", f".B {_text(name)}", _text(meaning))
    yield from (".SH FILES", ".TP", ".I pgwitness.toml", "The configuration, in the folder where a command is run.")
    yield from (".SH SEE ALSO", ".BR psql (1),", ".BR pg_recvlogical (1)")


def walk(group: click.Group, path: str = "pgwitness") -> Iterator[tuple[str, click.Command]]:
    """List every command that can be run, with its words."""
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield words, command
        if isinstance(command, click.Group):
            yield from walk(command, words)


def _shared() -> list[click.Option]:
    """List the options that every command takes."""
    return [one for one in completion.params if isinstance(one, click.Option)]


def _option(option: click.Option) -> Iterator[str]:
    context = click.Context(completion)
    found = option.get_help_record(context)
    if found is not None:
        yield from (".TP", f".B {_text(found[0])}", _text(found[1]) or r"\&")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "")):
        yield from (_text(" ".join(paragraph.split())), ".PP")


def _text(text: str) -> str:
    r"""Write a text as roff takes it: a backslash is no escape, a hyphen can be copied, no line is a request."""
    text = text.replace("\\", r"\(rs").replace("-", r"\-").replace("`", "")
    text = "".join(sign if sign.isascii() else f"\\[u{ord(sign):04X}]" for sign in text)
    return re.sub(r"^([.'])", r"\\&\1", text)
