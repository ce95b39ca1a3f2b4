"""What the documentation tells a reader to type is there to be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from pgwitness.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def typed(path: Path) -> list[str]:
    """List the commands in a page's shell blocks, without comments."""
    lines = [line for block in BLOCK.findall(path.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def program(words: list[str]) -> list[str]:
    """Give the words of a command up to a pipe or a redirection, without the program's folder."""
    ends = [place for place, word in enumerate(words) if word in ("|", ">", "&&")]
    return words[: ends[0]] if ends else words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documentation_parse(path: Path) -> None:
    """Every `pgwitness …` in a shell block is a command with options that exist."""
    for line in typed(path):
        words = program(shlex.split(line))
        if not words or Path(words[0]).name != "pgwitness":
            continue
        command: click.Command = main
        rest = words[1:]
        while isinstance(command, click.Group):
            if command.invoke_without_command and (not rest or rest[0].startswith("-")):
                break
            assert rest, line
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        # Parsing alone: options and arguments are checked, nothing is run.
        with command.make_context(command.name, rest, resilient_parsing=False):
            pass


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_the_documentation_exist(path: Path) -> None:
    """Every `make …` in a shell block is a target of the Makefile."""
    for line in typed(path):
        words = shlex.split(line)
        if words[0] == "make":
            done = subprocess.run(["make", "--dry-run", words[1]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_readme_opens_with_the_two_commands() -> None:
    """The first shell block of the README is the two commands and nothing else."""
    first = [line.split("#")[0].strip() for line in BLOCK.findall(PAGES[0].read_text())[0].splitlines()]
    assert first == ["make demo", "make test"]
