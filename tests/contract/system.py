"""pgwitness as its users run it: the command line, in processes of their own, on given servers.

`System` runs commands and daemons on one configuration. Daemons write to log files beside the configuration, and
end with the test run, however that ends.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from confluent_kafka import Consumer

from pgwitness.core.config import Config
from pgwitness.demo.servers import kill_all, spawn, tail, wait_for
from sinks.sql import ready

READY_SECONDS_MAX = 60.0
LAND_SECONDS_MAX = 120.0
LAND_EVERY_S = 0.4
"""How often to ask the lake: asking takes processor time from what is waited for."""
PROGRAM = [sys.executable, "-m", "pgwitness"]


def bare(log: Path, start: int = 0) -> list[str]:
    """List the lines of a daemon's log that are no event in JSON."""

    def is_event(line: bytes) -> bool:
        try:
            return "event" in json.loads(line)
        except ValueError:
            return False

    return [line.decode(errors="replace") for line in log.read_bytes()[start:].splitlines() if not is_event(line)]


@functools.cache  # DuckDB takes longer to read the text than to answer most questions
def statements(views: str) -> tuple[list[str], str]:
    """Part the text of views.sql into what is set, again for each question, and the views, which are made once."""
    every = [statement.query for statement in duckdb.extract_statements(views)]
    kinds = {which: [text for text in every if ("CREATE OR REPLACE" in text) == which] for which in (False, True)}
    return kinds[False], ";\n".join(kinds[True])


class Daemon:
    """One running `pgwitness` process."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.arguments = list(arguments)
        self.log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> Daemon:
        """Start the process; it appends to its log."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process = spawn([*PROGRAM, *self.arguments], self.log, environment=self._environment)
        return self

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL to the process and all it started."""
        if self._process is not None:
            kill_all(self._process)
            self._process = None

    def stop(self, seconds_max: float = 40.0) -> int:
        """Ask the process to end and give its exit code; one that does not end in time fails the test."""
        self.signal(signal.SIGTERM)
        return self.code(seconds_max)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def code(self, seconds_max: float) -> int:
        """Give the exit code of a process that was told to end; one that does not in time fails the test.

        So does one whose log has a line that is not JSON; only who prints alerts writes others, to stdout.
        """
        assert self._process is not None
        process, self._process = self._process, None
        try:
            code = process.wait(seconds_max)
            assert "--follow" in self.arguments or (found := bare(self.log, self._log_start)) == [], found
            return code
        except subprocess.TimeoutExpired:
            kill_all(process)
            raise AssertionError(f"did not end on SIGTERM in {seconds_max:.0f} s:\n{self.complaint()}") from None

    def complaint(self) -> str:
        """Give the command and the end of its log, for a failing test's message."""
        return f"pgwitness {' '.join(self.arguments)}\n{tail(self.log, 40)}"

    @property
    def url(self) -> str | None:
        """Where this run of the daemon serves its endpoints; none as long as it has not said so."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            for line in log:
                if b'"url"' in line:
                    return str(json.loads(line)["url"]).removesuffix("/metrics")
        return None

    def get(self, path: str) -> tuple[int, str]:
        """Ask one endpoint; gives the status (0 when nobody answers) and the text."""
        url = self.url
        if url is None:
            return 0, ""
        try:
            with urllib.request.urlopen(url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> Daemon:
        """Wait until the daemon says it does its work; one that ends instead fails the test."""

        def is_ready() -> bool:
            assert self.running, f"ended at its start:\n{self.complaint()}"
            return self.get("/readyz")[0] == 200

        try:
            wait_for(is_ready, READY_SECONDS_MAX, "readiness", every_s=0.1)
        except Exception as error:
            raise AssertionError(f"not ready: {self.get('/readyz')}\n{self.complaint()}") from error
        return self


class System:
    """One configuration and what runs on it; `admin_dsn` is a superuser's."""

    def __init__(self, directory: Path, config: Config, admin_dsn: str) -> None:
        self.directory = directory
        self.config = config
        self.admin_dsn = admin_dsn
        self.daemons: list[Daemon] = []
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._listing: list[str] = []

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons:
            daemon.kill()
        if self._lake is not None:
            self._lake.close()

    def command(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        """Run a command to its end and give what it printed; any other exit code than `code` fails the test."""
        done = subprocess.run(
            [*PROGRAM, *arguments, "--config", str(self.directory / "pgwitness.toml")],
            capture_output=True,
            text=True,
            input=stdin,
            cwd=self.directory,
            timeout=120,
            check=False,
        )
        said = f"pgwitness {' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == code, said
        return done.stdout

    def table(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with `--json` and give its rows."""
        rows = json.loads(self.command(*arguments, "--json"))
        assert isinstance(rows, list)
        return rows

    def prepare(self) -> None:
        """Install what the source and Kafka need, as an operator does."""
        self.command("db", "install", "--dsn", self.admin_dsn)
        self.command("topics", "apply")

    def daemon(self, *arguments: str, name: str) -> Daemon:
        """Start a daemon; it is killed at the end at the latest."""
        full = [*arguments, "--config", str(self.directory / "pgwitness.toml")]
        daemon = Daemon(full, self.directory / f"{name}.log").start()
        self.daemons.append(daemon)
        return daemon

    def collect(self, *names: str) -> Daemon:
        """Start collectors in one process; all of them unless named."""
        return self.daemon("collect", *(names or ("wal", "stats", "sessions")), name="collect")

    def worker(self, number: int = 1) -> Daemon:
        """Start a worker."""
        return self.daemon("worker", name=f"worker-{number}")

    def query(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the lake as it is now, through its own views.sql, in DuckDB without pgwitness."""
        lake = self.config.lake.path
        views = lake / "views.sql"
        if not views.exists():
            return []
        if self._lake is None:  # once: making the views takes ten times as long as most questions
            self._lake = duckdb.connect()
            # The views name their files relative to the lake's folder, where an auditor would start DuckDB.
            self._lake.execute(f"SET file_search_path = '{lake}'")
            self._listing, made = statements(views.read_text())
            self._look()
            ready.make(self._lake, made, self.directory)
        else:
            self._look()
        return self._lake.execute(question).fetchall()

    def _look(self) -> None:
        """Let DuckDB see what has landed since."""
        assert self._lake is not None
        for statement in self._listing:
            self._lake.execute(statement)

    def landed(self, question: str, wanted: Callable[[list[tuple[Any, ...]]], bool]) -> list[tuple[Any, ...]]:
        """Ask the lake until the answer is as wanted, and give it; fails with the last answer and the logs."""
        answer: list[tuple[Any, ...]] = []

        def asked() -> bool:
            nonlocal answer
            answer = self.query(question)
            return wanted(answer)

        try:
            wait_for(asked, LAND_SECONDS_MAX, question, every_s=LAND_EVERY_S)
        except Exception as error:
            logs = "\n\n".join(daemon.complaint() for daemon in self.daemons)
            kinds = "SELECT kind, operation, detail ->> '$.reason', count(*) FROM events GROUP BY ALL ORDER BY ALL"
            landed = "\n".join(map(str, self.query(kinds)))
            raise AssertionError(f"{question}\nlast answer: {answer[:50]}\n\nlanded:\n{landed}\n\n{logs}") from error
        return answer

    def records(self, topic: str, seconds_max: float = 30.0, at_least: int = 1) -> list[dict[str, Any]]:
        """Read a topic from its start as a program that knows nothing of pgwitness: JSON values, up to its end."""
        name = self.config.kafka.topic(topic)
        settings = {"bootstrap.servers": self.config.kafka.bootstrap, "group.id": "elsewhere", "log_level": 0}
        consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.auto.commit": False})
        values: list[dict[str, Any]] = []
        try:
            from confluent_kafka import TopicPartition

            partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
            consumer.assign([TopicPartition(name, number, 0) for number in partitions])

            def read() -> bool:
                ends = sum(
                    consumer.get_watermark_offsets(TopicPartition(name, number), timeout=30)[1] for number in partitions
                )
                while len(values) < ends:
                    message = consumer.poll(1.0)
                    if message is None:
                        return False
                    if message.error() is None:
                        values.append(json.loads(message.value() or b"null"))
                return len(values) >= at_least

            wait_for(read, seconds_max, f"{at_least} records of {name}; {len(values)} came")
        finally:
            consumer.close()
        return values
