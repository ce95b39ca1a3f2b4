"""An S3 server on loopback, and a proxy before it that refuses, delays, or loses what it is told to."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pgwitness.core.config import S3, S3Path
from sinks.lake.storage.objects import Objects

_SERVER = """
import logging, os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
def one_by_one(environ, start_response):
    if environ["REQUEST_METHOD"] != "PUT":
        return application(environ, start_response)
    with lock:
        return list(application(environ, start_response))
server = make_server("127.0.0.1", 0, one_by_one, threaded=True)
print(server.server_port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""
"""moto in a process of its own, which ends when whoever started it does.

moto 5.2.5 looks whether an object is there, and then makes it: of two who race both may get it. S3 does not do that, so
that PUTs come one by one here.
"""
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}
QUICK: dict[str, Any] = {"retry_config": {"max_retries": 0}}
"""For a store that does not try again by itself, so that each fault is met by what is tested."""


class S3Server:
    """The server; each bucket is its caller's own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"

    def bucket(self) -> S3Path:
        """Make a bucket, and name a lake in it."""
        name = f"lake-{uuid.uuid4().hex}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return S3Path(f"s3://{name}/evidence/lake")

    def objects(self, path: S3Path, **options: Any) -> Objects:
        """Open a store on it."""
        return Objects(path, S3(endpoint=self.endpoint), **options)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run the server."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdecimal(), "the S3 server did not start"
        try:
            yield S3Server(int(port))
        finally:
            process.kill()


Fault = str | int | None
"""`before`: the request is lost; `after`: its answer is; `late`: it arrives when `Proxy.arrive` is called; a number is
the answer's status; None: nothing happens."""


class Proxy:
    """Stands before a server. `fault` is asked for each request with its method and path."""

    def __init__(self, behind: S3Server, fault: Callable[[str, str], Fault], tls: ssl.SSLContext | None = None) -> None:
        self.fault = fault
        self.code = "SlowDown"
        self._behind = behind
        self._late: list[tuple[str, str, dict[str, str], bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        host = "http://127.0.0.1" if tls is None else "https://localhost"
        self.endpoint = f"{host}:{self._server.server_port}"

    def objects(self, path: S3Path, **options: Any) -> Objects:
        """Open a store through it."""
        return Objects(path, S3(endpoint=self.endpoint), **(QUICK | options))

    def arrive(self) -> None:
        """Let all late requests come, in order."""
        while self._late:
            self._forward(*self._late.pop(0))

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._behind.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                del args

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = (self.command, self.path, dict(self.headers), body)
                fault = proxy.fault(self.command, self.path)
                self.close_connection = True
                if isinstance(fault, int):
                    said = f"<Error><Code>{proxy.code}</Code><Message>refused</Message></Error>".encode()
                    return self._answer(fault, [], said)
                if fault == "late":
                    proxy._late.append(request)
                if fault in ("before", "late"):
                    return None
                status, headers, content = proxy._forward(*request)
                with suppress(OSError):  # whoever asked may have been killed
                    return None if fault == "after" else self._answer(status, headers, content)

            def _answer(self, status: int, headers: Any, content: bytes) -> None:
                self.send_response_only(status)
                kept = [pair for pair in headers if pair[0].lower() not in ("connection", "transfer-encoding")]
                for name, value in kept:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in kept):
                    self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815

        return Handler
