"""How a daemon is told to end: SIGTERM, SIGINT and SIGHUP, from the first moment of the process to its last.

SIGHUP is a terminal that is closed; a daemon that was started with `nohup` is to outlive that.

The signals are blocked in every thread and taken by one that does nothing else, so that no library that keeps the main
thread busy can delay them, and no lock that it holds is asked for by a handler. Before the daemon works, they end its
process at once; then they set its stop event, and it has `END_S_MAX` to end cleanly. A second signal, or that time,
ends it at once: what was not confirmed is done again by the next run, as after a crash. All with code 0.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

END_S_MAX = 10.0
NUMBERS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_told: Callable[[str], None] | None = None
_watching = False
_waited = NUMBERS


def is_daemon(arguments: list[str]) -> bool:
    """Whether a command line runs until it is told to end."""
    if arguments[:1] == ["alerts"]:
        return "deliver" in arguments or "--follow" in arguments
    if arguments[:1] in (["seal"], ["lake"]):
        return any(argument.split("=")[0] == "--every" for argument in arguments)
    if arguments[:1] == ["console"]:
        return "users" not in arguments
    if arguments[:1] == ["gateway"]:
        return {"users", "sessions", "end"}.isdisjoint(arguments)
    if arguments[:1] == ["mcp"]:
        return "http" in " ".join(arguments)
    return arguments[:1] in (["collect"], ["worker"])


def watch() -> None:
    """Take the signals of this process from now on; called before anything has made a thread."""
    global _watching, _waited
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        _waited = NUMBERS - {signal.SIGHUP}  # blocked, it would be waited for although it is ignored
    signal.pthread_sigmask(signal.SIG_BLOCK, _waited)
    _watching = True
    threading.Thread(target=_take, name="signals", daemon=True).start()


def watching() -> bool:
    """Whether this process is a daemon's own, from its first moment."""
    return _watching


def tell(told: Callable[[str], None]) -> bool:
    """Have `told` called with the first signal's name, from a thread of its own; False when nobody watches."""
    global _told
    _told = told
    return _watching


def finish(code: int) -> NoReturn:
    """End a daemon's process. Nothing is waited for that a library would still like to do: it did its work."""
    if not _watching:
        raise SystemExit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _take() -> None:
    name = signal.Signals(signal.sigwait(_waited)).name
    if _told is None:
        _end()
        return
    threading.Thread(target=_late, name="deadline", daemon=True).start()
    _told(name)
    signal.sigwait(_waited)
    _end()


def _late() -> None:
    time.sleep(END_S_MAX)
    os.write(2, b'{"event": "did not end in time: what was not confirmed is done again by the next run"}\n')
    _end()


def _end() -> None:
    """End without waiting for anything; a lock of the output may be held for ever by a thread that hangs."""
    threading.Thread(target=sys.stdout.flush, daemon=True).start()
    time.sleep(0.05)
    os._exit(0)
