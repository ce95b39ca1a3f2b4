"""The tutorial's first two parts, typed as it stands: what it shows is what comes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from pgwitness.demo.servers import wait_for
from tests.demo.test_demo import left_behind

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FIRST = TEXT.split("# Part one", 1)[1].split("# Part three", 1)[0]
STEP = re.compile(r"```sh\n(?P<typed>.*?)```\n(?:\n```text\n(?P<shown>.*?)```)?", re.DOTALL)
ANSWER_S = 60.0
LAND_S = 30.0
MARK = "--- done"


class Terminal:
    """A shell in which one types, as the reader's second terminal."""

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, text: str) -> list[str]:
        """Type some lines and give what they print; each command has to succeed."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\necho '{MARK}' $?\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=ANSWER_S)
            except Empty:
                pytest.fail(f"no answer to\n{text}\nbut\n" + "\n".join(printed))
            if line.startswith(MARK):
                assert line == f"{MARK} 0", f"{text}\n" + "\n".join(printed)
                return printed
            printed.append(line)

    def close(self) -> None:
        """Close the window."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.wait(10)
        self._reader.join(10)
        self._shell.stdout.close()


def shows(printed: list[str], shown: str) -> bool:
    """Say whether the lines that the text shows stand in what was printed, one behind the other but for `…`."""
    there = [" ".join(line.split()) for line in printed if line.strip()]
    parts = [[" ".join(line.split()) for line in part.splitlines() if line.strip()] for part in shown.split("…")]
    at = 0
    for part in filter(None, parts):
        begins = [place for place in range(at, len(there)) if there[place : place + len(part)] == part]
        if not begins:
            return False
        at = begins[0] + len(part)
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder where `make install` has been typed."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv" if (ROOT / ".venv").exists() else Path(os.environ["VIRTUAL_ENV"]))
    return tmp_path


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal in it."""
    terminal = Terminal(folder)
    yield terminal
    terminal.close()


@pytest.mark.timeout(500)
def test_from_a_shared_role_to_an_agent_that_asks_first(folder: Path, terminal: Terminal) -> None:
    """Every command of the first two parts works in the order of the text, and prints what the text shows."""
    steps = [(step["typed"], step["shown"]) for step in STEP.finditer(FIRST)]
    first, steps = steps[0], steps[1:]
    assert "demo --serve" in first[0]
    assert sum(shown is not None for _, shown in steps) >= 5
    said = folder / "first-terminal"
    with said.open("w") as output:
        served = subprocess.Popen(["bash", "-c", f"exec {first[0]}"], cwd=folder, stdout=output, stderr=output)
    try:
        wait_for(lambda: "\nready" in said.read_text() or served.poll() is not None, 90, "the servers start")
        assert served.poll() is None, said.read_text()
        for typed, shown in steps:
            printed = terminal.type(typed)
            deadline = time.monotonic() + LAND_S
            while shown is not None and not shows(printed, shown):
                assert time.monotonic() < deadline, f"{typed}\nprinted\n" + "\n".join(printed)
                printed = terminal.type(typed)
    finally:
        served.send_signal(signal.SIGINT)
        code = served.wait(60)
    assert code == 0, said.read_text()
    assert left_behind(folder / "play") == []
    last, shown = [step for step in steps if step[1] is not None and "pgwitness sql" in step[0]][-1]
    assert shown is not None
    last = last.splitlines()[-1]
    assert shows(terminal.type(last), shown), "the evidence stays when the servers are gone"


def test_a_changed_output_would_be_noticed() -> None:
    """What is shown has to be there as it stands and in its order; only spaces may differ."""
    printed = ["a  table", "", "one   1", "two   2", "end"]
    assert shows(printed, "a table\none 1\n")
    assert shows(printed, "…\none 1\n…\nend\n")
    assert not shows(printed, "one 2\n")
    assert not shows(printed, "two 2\n…\none 1\n")
    assert not shows(printed, "one 1\nend\n")
