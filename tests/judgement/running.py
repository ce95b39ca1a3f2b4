"""Runs a way's step as a client does: what fails, fails, and what is copied out is read."""

from __future__ import annotations

from psycopg import pq


def execute(connection: pq.abc.PGconn, text: str) -> None:
    """Send a text by the simple protocol and take all that comes."""
    if connection.exec_(text.encode()).status != pq.ExecStatus.COPY_OUT:
        return
    while connection.get_copy_data(0)[0] > 0:
        pass
    while connection.get_result() is not None:
        pass
