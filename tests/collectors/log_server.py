"""PostgreSQL servers that write their log in all three formats at once, and a way to say what a session did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

PREFIX = "%m [%p] %q%u@%d/%a %r %c %l %x %Q %e "
SECONDS_MAX = 30.0

SETTINGS = {
    **FAST_AND_FORGETFUL,
    "logging_collector": "on",
    "log_filename": "postgresql-%Y%m%d_%H%M%S.log",
    "log_file_mode": "0644",
    "log_line_prefix": PREFIX,
    "log_min_duration_statement": "0",
    "log_disconnections": "on",
    "log_connections": "on",
    "log_timezone": "Europe/Berlin",
    "compute_query_id": "on",
}
TIMEZONE = "Europe/Berlin"
ENDINGS = {"jsonlog": "json", "csvlog": "csv", "stderr": "log"}


@contextmanager
def logging_server(data: Path, bin: Path | None = None, verbosity: str = "default") -> Iterator[Postgres]:  # noqa: A002
    """Run a server that writes jsonlog, csvlog and stderr side by side."""
    more = {"log_destination": "jsonlog,csvlog,stderr", "log_directory": "log", "log_error_verbosity": verbosity}
    settings = {**SETTINGS, **more}
    with Postgres(data, bin=bin, settings=settings) as server:
        yield server


def pattern(server: Postgres, log_format: str) -> str:
    """Give the pattern of the files of one format."""
    return str(server.place / "log" / f"postgresql-*.{ENDINGS[log_format]}")


def files(server: Postgres, log_format: str) -> list[Path]:
    """List the files of one format."""
    return sorted((server.place / "log").glob(f"postgresql-*.{ENDINGS[log_format]}"))


def rotate(server: Postgres, log_format: str) -> None:
    """Make the server begin a new file, and wait until it has; two files of one second would be one."""
    before = files(server, log_format)
    deadline = time.monotonic() + SECONDS_MAX
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        while files(server, log_format) == before:
            assert time.monotonic() < deadline, "the server does not rotate its log"
            connection.execute("SELECT pg_rotate_logfile(), pg_sleep(0.2)")
