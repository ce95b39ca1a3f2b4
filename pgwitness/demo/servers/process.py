"""Processes of servers: started so that they end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import psutil

from pgwitness.core.errors import Unreachable

LOOPBACK = "127.0.0.1"
START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 60.0

# Runs between fork and exec, as a program of its own, so that it is safe to start servers while threads run: takes
# the identity it is told, asks the kernel for a signal when the parent ends (Linux), and becomes the server.
_LAUNCH = """
import ctypes, os, sys
death, uid, gid, parent = (int(word) for word in sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""

# The kernel sends that signal when the *thread* ends that started the server: one that lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    death_signal: int = signal.SIGKILL,
    user: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that writes to `log` and gets `death_signal` when this process ends, in whatever way."""
    uid, gid = (user.pw_uid, user.pw_gid) if user else (-1, -1)
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(death_signal), str(uid), str(gid), str(os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*launch, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment) if environment is not None else None,
                cwd="/",
                start_new_session=True,
            )

    return _spawner.submit(start).result()


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds_max: float, what: str, *, every_s: float = 0.02) -> None:
    """Wait until a condition holds, asking `every_s`. Raise `Unreachable` after `seconds_max`, saying for what."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise Unreachable(f"waited {seconds_max:.0f} seconds in vain: {what}")
        time.sleep(every_s)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a process and all it started, and wait until none is left."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts no further child meanwhile
        family = [parent, *parent.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(STOP_SECONDS_MAX)
    wait_for(lambda: not any(_lives(member) for member in family), STOP_SECONDS_MAX, "killed processes end")


class Process:
    """The process of a server, one at a time; what it prints goes to `log`. `name` is for messages."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, none while it is down."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def start(
        self,
        command: Sequence[str],
        answers: Callable[[], bool],
        *,
        death_signal: int = signal.SIGKILL,
        user: pwd.struct_passwd | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait until it answers. Raise `Unreachable` with the end of its log."""
        self._process = spawn(command, self.log, death_signal=death_signal, user=user, environment=environment)

        def ready() -> bool:
            if not self.running:
                code = self._process.returncode if self._process else None
                raise Unreachable(f"{self.name} ended with code {code} at its start:\n{tail(self.log)}")
            return answers()

        wait_for(ready, START_SECONDS_MAX, f"{self.name} does not answer; see {self.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds_max: float = STOP_SECONDS_MAX) -> None:
        """Send it a signal and wait until it has ended; one that does not in time is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds_max)
            except subprocess.TimeoutExpired:
                kill_all(self._process)
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL to it and all it started, as a machine that goes down would."""
        if self._process is not None:
            kill_all(self._process)
        self._process = None


class Server(ABC):
    """A server that is one process, with those that it starts; `with` starts it and ends it."""

    _process: Process

    @property
    def pid(self) -> int | None:
        """The process id, none while the server is down."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process.running

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers. Raise `Unreachable` with the end of its log."""

    @abstractmethod
    def stop(self) -> None:
        """End it, as it ends in order."""

    def kill(self) -> None:
        """Send SIGKILL to every process of it, as a machine that goes down would."""
        self._process.kill()

    def restart(self) -> None:
        """Stop and start, on the same ports and with what of its data outlives that."""
        self.stop()
        self.start()


def _lives(process: psutil.Process) -> bool:
    """Return whether a process still runs; one that only waits to be reaped holds nothing any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tail(log: Path, lines: int = 15) -> str:
    """Return the end of a log, for error messages."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def plain_environment() -> dict[str, str]:
    """Return this process's environment without what would redirect a PostgreSQL program or a client of it."""
    return {name: value for name, value in os.environ.items() if not re.match(r"PG(?!WITNESS)", name)}
