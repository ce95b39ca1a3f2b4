"""Reads the names of what exists in a cluster from its catalogues, now and then, for `collectors.names`.

A thread of its own does, so that reading the log never waits for it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import structlog

from collectors.connection import connect
from collectors.context import Context
from collectors.names import NAMES_MAX, Names
from pgwitness.core.errors import PgwitnessError

REFRESH_S = 900.0
PAUSE_S = 10.0
"""How long at least between two looks."""

_NAMES = f"""
SELECT name::text FROM (
    SELECT relname AS name FROM pg_catalog.pg_class
    UNION SELECT attname FROM pg_catalog.pg_attribute WHERE NOT attisdropped AND attnum > 0
    UNION SELECT conname FROM pg_catalog.pg_constraint
    UNION SELECT proname FROM pg_catalog.pg_proc
    UNION SELECT typname FROM pg_catalog.pg_type
    UNION SELECT nspname FROM pg_catalog.pg_namespace
    UNION SELECT rolname FROM pg_catalog.pg_roles
    UNION SELECT datname FROM pg_catalog.pg_database
    UNION SELECT tgname FROM pg_catalog.pg_trigger
    UNION SELECT extname FROM pg_catalog.pg_extension
    UNION SELECT srvname FROM pg_catalog.pg_foreign_server
    UNION SELECT polname FROM pg_catalog.pg_policy
) AS known LIMIT {NAMES_MAX}
"""

log = structlog.get_logger("log")


def follow(context: Context, stop: threading.Event) -> threading.Thread:
    """Look at the catalogues now, and every `REFRESH_S`, in a thread that ends with `stop`."""

    def turn() -> None:
        while not stop.is_set():
            try:
                context.names.learn(read(context))
            except (psycopg.Error, PgwitnessError, OSError):
                log.info("catalogues not read; errors keep fewer names", cluster=context.name)
            wait(context.names, stop)

    thread = threading.Thread(target=turn, name=f"names {context.name}", daemon=True)
    thread.start()
    return thread


def wait(names: Names, stop: threading.Event) -> None:
    """Wait until it is time to look again: after `REFRESH_S`, or sooner if a name is missed."""
    names.wanted.clear()
    until = time.monotonic() + REFRESH_S
    stop.wait(PAUSE_S)
    while not stop.is_set() and not names.wanted.is_set() and time.monotonic() < until:
        stop.wait(PAUSE_S)


def read(context: Context) -> set[str]:
    """Read the names of all databases that are watched. Raise `Unreachable` or `psycopg.Error`."""
    found: set[str] = set()
    for database in context.cluster.databases:
        with connect(context.cluster, None, database, application_name="pgwitness log", key=context.key) as connection:
            found |= known(connection)
    return found


def known(connection: psycopg.Connection[Any]) -> set[str]:
    """Read the names of one database and of what all have in common."""
    return {name for (name,) in connection.execute(_NAMES)}
