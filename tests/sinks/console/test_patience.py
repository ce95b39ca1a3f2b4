"""Who connects and says nothing, or half of it, keeps nobody else out."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from pgwitness.core.config import Console
from sinks.console import http, patience, server
from tests.sinks.console.conftest import World

GET = b"GET /login HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def port(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A console on a socket, with room for two, that waits a short while."""
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    monkeypatch.setattr(http, "BODY_S", 0.3)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    settings = Console(listen="127.0.0.1:0")
    with server.listen(settings) as bound:
        served = server.serving(settings, world.app)
        thread = threading.Thread(target=lambda: asyncio.run(served.serve([bound])), daemon=True)
        thread.start()
        yield bound.getsockname()[1]
        served.should_exit = True
        thread.join(10)


def said(connection: socket.socket) -> bytes:
    """Read until the console hangs up."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("beginning", [b"", GET, GET + b"\r\n" + GET])
def test_who_does_not_go_on_is_hung_up_on(port: int, beginning: bytes) -> None:
    """With no request, half of one, and half of a second one; then there is room again."""
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
    for connection in held:
        connection.sendall(beginning)
    for connection in held:
        said(connection)
        connection.close()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        assert said(connection).startswith(b"HTTP/1.1 200 ")


def test_a_form_that_does_not_arrive_is_answered(port: int) -> None:
    """What came of it is dropped."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 100\r\n\r\nname="
        )
        assert said(connection).startswith(b"HTTP/1.1 408 ")
