"""What every daemon shares: its endpoints, and a clean end with exit code 0 on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from pgwitness.cli import signals
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.health import Health, serve

log = structlog.get_logger()


@contextmanager
def daemon(
    name: str, host: str, port: int, registry: CollectorRegistry = REGISTRY
) -> Iterator[tuple[threading.Event, Health]]:
    """Serve a daemon's endpoints while the block runs; the event is set when the daemon is told to end.

    Raises `ConfigurationError` when the port is taken.
    """
    stop = threading.Event()
    health = Health()
    try:
        server, bound = serve(health, host, port, registry)
    except OSError as error:
        raise ConfigurationError(
            f"{name}: {host}:{port} cannot be served ({error.strerror or error}); "
            "choose another with --port or [http] in the configuration, --port 0 takes a free one"
        ) from error

    def told(by: str) -> None:
        stop.set()
        log.info("ending", daemon=name, signal=by)

    before = {} if signals.tell(told) else _handle(stop)
    log.info("serving", daemon=name, url=f"http://{host}:{bound}/metrics")
    try:
        yield stop, health
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(stop: threading.Event) -> dict[signal.Signals, Any]:
    """Take the signals in a process that runs more than this daemon."""

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    return {number: signal.signal(number, end) for number in signals.NUMBERS}
