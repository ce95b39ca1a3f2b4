"""Connections for replication: what waits for one server holds nobody else up."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from psycopg.conninfo import make_conninfo

from collectors.connection import replication_connect
from pgwitness.core.config import Cluster
from pgwitness.core.errors import Unreachable


def test_a_server_that_does_not_answer_holds_up_no_other_thread() -> None:
    """While a server accepts and says nothing, other threads run; then there is a sentence that names the server."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cluster = Cluster(dsn=f"postgresql://nobody@127.0.0.1:{port}/shop?connect_timeout=2&sslmode=disable")
        refused: list[Unreachable] = []

        def waits() -> None:
            try:
                replication_connect(cluster)
            except Unreachable as error:
                refused.append(error)

        thread = threading.Thread(target=waits)
        thread.start()
        turns = 0
        while thread.is_alive():
            turns += 1
            time.sleep(0.01)
        thread.join()
    assert turns > 20  # of some 200: held up, it would be one or two
    assert len(refused) == 1
    assert f"127.0.0.1:{port}" in str(refused[0])


def test_a_replication_connection_that_is_refused_says_so(database: str) -> None:
    """For a role that is not there, the sentence holds the server's own reason."""
    with pytest.raises(Unreachable, match=r"cannot be reached.*nobody_at_all"):
        replication_connect(Cluster(dsn=make_conninfo(database, user="nobody_at_all")))
