"""A wheel of pgwitness, built and used as an installation: what a user gets, away from this folder."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from pgwitness.cli.completion import walk
from pgwitness.cli.program import main
from pgwitness.demo.servers import free_port

ROOT = Path(__file__).parents[2]
COMMAND_S_MAX = 60.0
BUILD = [sys.executable, "-m", "hatchling", "build", "--target"]
MORE = """
[gateway.databases.app]
cluster = "main"
upstream = "postgresql://127.0.0.1:1/app"
users_file = "gateway-users.json"
[console]
listen = "127.0.0.1:0"
"""
EMPTY_LAKE = "from pathlib import Path; from sinks.lake.writer import Lake; Lake(Path('lake')).prepare()"


class Failed(AssertionError):
    """An installation does not do what it is for."""


def sources(place: Path) -> Path:
    """Build the source distribution, and unpack it into a folder; where it lies is given."""
    run([*BUILD, "sdist", "--directory", str(place)], ROOT, os.environ)
    (archive,) = place.glob("*.tar.gz")
    run(["tar", "-xzf", str(archive), "-C", str(place)], place, os.environ)
    return place / archive.name.removesuffix(".tar.gz")


def built(source: Path, place: Path, *, compiler: str | None = None) -> Path:
    """Build a wheel out of an unpacked source distribution; its file is given.

    `compiler` is the command for C, the machine's own by default; one that fails gives a wheel without libraries.
    """
    environment = {**os.environ, **({} if compiler is None else {"CC": compiler})}
    run([*BUILD, "wheel", "--directory", str(place)], source, environment)
    (wheel,) = place.glob("*.whl")
    return wheel


def run(
    words: list[str], folder: Path, environment: Mapping[str, str], codes: tuple[int, ...] = (0,), typed: str = ""
) -> str:
    """Run a command; give what it printed, or raise `Failed` when it ended otherwise than with one of these codes."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * COMMAND_S_MAX,
    )
    if done.returncode not in codes:
        raise Failed(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


class Installation:
    """The program of an environment, run in a folder outside of the sources, with nothing of theirs in its path."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.environment = environment
        self.program = environment / "bin" / "pgwitness"
        self.folder = folder
        self.variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PGWITNESS_", "COV_"))
        }
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, *words: str, codes: tuple[int, ...] = (0,), typed: str = "") -> str:
        """Run the program; give its stdout."""
        return run([str(self.program), *words], self.folder, self.variables, codes, typed)

    def python(self, code: str) -> str:
        """Run code with the Python that the environment has."""
        return run([str(self.environment / "bin" / "python"), "-c", code], self.folder, self.variables)

    def prepare(self) -> None:
        """Write a configuration, whose servers nobody listens for, and an empty lake."""
        self.run("init")
        config = self.folder / "pgwitness.toml"
        text = config.read_text().replace("localhost:9092", f"127.0.0.1:{free_port()}")
        text = text.replace("localhost:5432", f"127.0.0.1:{free_port()}")
        config.write_text(f"{text}\n{MORE}")
        self.python(EMPTY_LAKE)
        self.run("console", "users", "add", "ada", "--role", "viewer", typed="correct horse battery\n")

    def missing(self) -> list[str]:
        """List what the doctor says is not compiled here."""
        lines = json.loads(self.run("doctor", "--json", codes=(1, 3)))
        return [line["what"] for line in lines if "library is missing" in str(line.get("found"))]

    @contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """Run a daemon until its log gives an address other than its metrics'; give that."""
        daemon = subprocess.Popen(
            [str(self.program), *words], cwd=self.folder, env=self.variables, stderr=subprocess.PIPE, text=True
        )
        assert daemon.stderr is not None
        said, until = "", time.monotonic() + COMMAND_S_MAX
        try:
            while (found := re.search(r'"(https?://[^"]+)(?<!/metrics)/"', said)) is None:
                ready, _, _ = select.select([daemon.stderr], [], [], max(0, until - time.monotonic()))
                line = daemon.stderr.readline() if ready else ""
                if not line:
                    raise Failed(f"{' '.join(words)} serves nothing: {said}")
                said += line
            yield found[1]
        finally:
            daemon.terminate()
            if daemon.wait(COMMAND_S_MAX) != 0:
                raise Failed(f"{' '.join(words)} ended with {daemon.returncode} when it was told to end")
            daemon.stderr.close()


def use(installed: Installation, *, every_help: bool) -> None:
    """Do with an installation what needs each kind of file that a wheel brings; raise `Failed` where one is not there.

    `every_help`: ask every command for its help, in a process each. What it cannot import it says no later than then.
    """
    installed.prepare()
    if str(ROOT) in installed.python(
        "import sys, pgwitness, sinks; print(sys.path, pgwitness.__file__, sinks.__file__)"
    ):
        raise Failed("the sources are used, and not what was installed")
    for path, _ in walk(main) if every_help else ():
        if "--config" not in installed.run(*path.split()[1:], "--help"):
            raise Failed(f"{path} --help does not explain itself")
    if not json.loads(installed.run("policy", "test", "--json")):
        raise Failed("no policies were tested")
    if json.loads(installed.run("sql", "SELECT count(*) AS n FROM events", "--json")) != [{"n": 0}]:
        raise Failed("an empty lake has events")
    with installed.serving("console", "--port", "0") as address:
        page = urlopen(f"{address}/login", timeout=COMMAND_S_MAX).read().decode()
        for asset in re.findall(r'(?:src|href)="(/assets/[^"]+)"', page) or [""]:
            if not asset or not urlopen(f"{address}{asset}", timeout=COMMAND_S_MAX).read():
                raise Failed(f"the console's page has no asset {asset}")
