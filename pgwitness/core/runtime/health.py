"""What every daemon serves over HTTP: `/metrics`, `/livez` and `/readyz`.

Live means that the daemon's loop turned within the last `stall_s` seconds; ready, that every part of it said so.
Metrics are Prometheus's own client, defined in the module that counts (`docs/reference/metrics.md` lists them).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

Clock = Callable[[], float]
BEAT_S = 5.0
"""How often a part that waits says that it lives."""


class Health:
    """The state behind `/livez` and `/readyz`; parts report from any thread."""

    def __init__(self, stall_s: float = 60.0, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._beats: dict[str, float] = {}
        self._ready: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def expect(self, part: str) -> None:
        """Name a part that must report before the daemon is ready."""
        with self._lock:
            self._beats[part] = self._clock()
            self._ready[part] = "starting"

    def beat(self, part: str) -> None:
        """Say that a part's loop turned."""
        with self._lock:
            self._beats[part] = self._clock()

    def ready(self, part: str, because_not: str | None = None) -> None:
        """Say that a part does its work, or why it cannot at the moment."""
        with self._lock:
            self._beats[part] = self._clock()
            self._ready[part] = because_not

    def wait(self, part: str, seconds: float, stop: threading.Event) -> None:
        """Wait between two tries or rounds of a part, at most until `stop`; waiting is no stall."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, BEAT_S)):
            self.beat(part)

    def stalled(self) -> list[str]:
        """List the parts whose loop has not turned for too long."""
        with self._lock:
            now = self._clock()
            return [part for part, at in self._beats.items() if now - at > self._stall_s]

    def not_ready(self) -> list[str]:
        """List `part: reason` for what is not ready; before any part is named, that it begins."""
        with self._lock:
            if not self._ready:
                return ["starting"]
            return [f"{part}: {reason}" for part, reason in self._ready.items() if reason is not None]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name the base class has
        """Say nothing: a scrape every few seconds is no news."""


def serve(health: Health, host: str, port: int, registry: CollectorRegistry = REGISTRY) -> tuple[WSGIServer, int]:
    """Serve a daemon's endpoints from a thread; return the server (`shutdown()` ends it) and its port.

    `registry` is whose metrics are shown, of a daemon of several processes not this one's.
    """
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        if path in ("/livez", "/readyz"):
            bad = health.stalled() if path == "/livez" else health.stalled() + health.not_ready()
            start_response(
                "503 Service Unavailable" if bad else "200 OK", [("Content-Type", "text/plain; charset=utf-8")]
            )
            return [("\n".join(bad or ["ok"]) + "\n").encode()]
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"/metrics, /livez, /readyz\n"]

    server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server, server.server_port
