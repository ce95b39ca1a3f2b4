"""`pgwitness sql` at a pseudo-terminal, as a person has it: keys in, the screen's text out."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

SECONDS_MAX = 90.0
AGAIN_S = 1.0
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>()][0-9A-Za-z]?)|\r")


class Terminal:
    """A program on a terminal of 120 columns."""

    def __init__(self, arguments: list[str], home: Path) -> None:
        self.seen = ""
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            environment = {
                **os.environ,
                "HOME": str(home),
                "TERM": "xterm",
                "PAGER": "cat",
                "PROMPT_TOOLKIT_NO_CPR": "1",
            }
            environment.pop("COLUMNS", None)
            with contextlib.suppress(OSError):
                os.execve(sys.executable, [sys.executable, "-m", "pgwitness", *arguments], environment)
            os._exit(127)
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def until(self, wanted: str, again: str = "") -> str:
        """Read until something new shows; returns what came since the last time, without colours.

        `again` is typed each time that it has not come: a key that the program may not have been ready for.
        """
        deadline = time.monotonic() + SECONDS_MAX
        typed_at = 0.0
        while wanted not in self.seen:
            if again and time.monotonic() > typed_at + AGAIN_S:
                self.type(again)
                typed_at = time.monotonic()
            assert time.monotonic() < deadline, f"{wanted!r} did not come; this did:\n{self.seen[-3000:]}"
            self._read(0.5)
        before, _, self.seen = self.seen.partition(wanted)
        return before + wanted

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the program has ended
            return False
        self.seen += _CONTROL.sub("", data.decode(errors="replace"))
        return bool(data)

    def code(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + SECONDS_MAX
        while self._read(0.5):
            assert time.monotonic() < deadline, f"did not end:\n{self.seen[-3000:]}"
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def close(self) -> None:
        """End the program if it has not ended."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)


@contextlib.contextmanager
def terminal(arguments: list[str], home: Path) -> Iterator[Terminal]:
    """Run a program on a terminal; it is ended at the latest with the test."""
    made = Terminal(arguments, home)
    try:
        yield made
    finally:
        made.close()
