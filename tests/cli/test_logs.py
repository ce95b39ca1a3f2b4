"""Whatever a daemon says on stderr is an event in JSON: what ends it, what libraries log, what nobody caught."""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collectors.gateway.judging.ahead import read_texts
from tests.cli.test_program import home
from tests.deploy.test_deploy import PACKAGES, ROOT

__all__ = ["home"]

DAEMONS = {
    "collect": ["collect", "wal"],
    "worker": ["worker"],
    "gateway": ["gateway"],
    "console": ["console"],
    "deliver": ["alerts", "deliver"],
    "seal": ["seal", "--every", "60s"],
    "compact": ["lake", "compact", "--every", "60s"],
    "retain": ["lake", "retain", "--every", "60s"],
    "mcp": ["mcp", "--transport", "http"],
}
SECRET = "4711-0815"
TROUBLE = f"""
import asyncio, logging, sys, threading, warnings
from pgwitness.core.runtime import logs
logs.own()
warnings.warn("once\\nmore")
logging.getLogger("aiokafka").error("of %s\\nand %d", "it", 7)
logging.getLogger("aiokafka").error("of %d", "it")
def fails(): raise ValueError("{SECRET}")
thread = threading.Thread(target=fails, name="a thread")
thread.start(); thread.join()
class Gone:
    def __del__(self): fails()
Gone()
async def forgotten():
    asyncio.get_running_loop().call_soon(fails)
    await asyncio.sleep(0)
asyncio.run(forgotten())
fails()
"""


def events(text: str) -> list[dict[str, str]]:
    """Read the lines of a log, all of which are objects."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in found)
    return found


@pytest.mark.parametrize("words", DAEMONS.values(), ids=DAEMONS)
def test_what_ends_a_daemon_at_its_start_is_an_event(words: list[str], home: Path) -> None:
    """A configuration with a wrong key."""
    config = home / "pgwitness.toml"
    config.write_text(config.read_text() + "\n[nothing]\nof = 'it'\n")
    command = [sys.executable, "-m", "pgwitness", *words, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    (line,) = events(done.stderr)
    assert (done.returncode, line["level"]) == (2, "error")
    assert "nothing" in line["event"]


def test_wrong_usage_of_a_daemon_is_an_event() -> None:
    """One line, with the code that it has for people."""
    command = [sys.executable, "-m", "pgwitness", "worker", "--fast"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    (line,) = events(done.stderr)
    assert (done.returncode, "--fast" in line["event"]) == (2, True)


def test_what_nobody_caught_and_what_libraries_say_are_events() -> None:
    """Warnings, logged texts, exceptions of thread, destructor, loop and program: none with its values."""
    done = subprocess.run([sys.executable, "-c", TROUBLE], capture_output=True, text=True, check=False, timeout=120)
    found = events(done.stderr)
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.get("logger", line.get("thread", "")) for line in found] == [
        "py.warnings", "aiokafka", "aiokafka", "a thread", "", "asyncio", "",
    ]  # fmt: skip
    assert sum("ValueError" in line.get("exception", "") for line in found) == 4
    assert SECRET not in done.stderr


def test_a_process_of_the_gateway_that_fails_logs_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    """It says where, and nothing of the text that it stumbled upon."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=read_texts, args=(there, b"k" * 32))
    process.start()
    here.send((SECRET, SECRET))
    process.join(120)
    (line,) = events(capfd.readouterr().err)
    assert process.exitcode == 1
    assert "read_texts" in line["exception"]
    assert SECRET not in str(line)


def test_every_client_of_kafka_logs_as_the_others() -> None:
    """Each that is made in the packages is given the logger; the demo's own are no daemon's."""
    made = re.compile(r"(?<!\w)(?:(?:Consumer|Producer|AdminClient)\(|super\(\).__init__\(settings)(?=\s*[\w{*])")
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            text = file.read_text()
            if "confluent_kafka" in text and "demo" not in file.parts:
                clients = len(re.findall(made, re.sub(r"^class .*$", "", text, flags=re.MULTILINE)))
                found[str(file.relative_to(ROOT))] = (clients, text.count('"logger": LIBRDKAFKA'))
    assert sum(clients for clients, _ in found.values()) > 10
    assert {name: each for name, each in found.items() if each[1] < each[0]} == {}
