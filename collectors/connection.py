"""Connections to the source databases: ordinary ones with psycopg 3, replication ones on its wrapper of libpq.

Every connection names itself `pgwitness…`, so that the collectors can leave their own work out. A server that
cannot be reached is `Unreachable` with a sentence for the operator; a DSN that is none is a `ConfigurationError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from collectors.own import introduce
from collectors.texts import read_texts
from pgwitness.core.config import Cluster
from pgwitness.core.errors import ConfigurationError, Unreachable
from pgwitness.core.messages.refusal import dsn_trouble, words

APPLICATION = "pgwitness"
CONNECT_TIMEOUT_S = 10

_TEXT_FORM = (
    "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 -c bytea_output=hex"
    " -c statement_timeout=0"
)


def connect(
    cluster: Cluster,
    dsn: str | None = None,
    database: str | None = None,
    *,
    autocommit: bool = True,
    application_name: str = APPLICATION,
    key: bytes | None = None,
    command: bool = False,
) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect to a cluster: to its primary unless `dsn` names another instance, to `database` unless the DSN's serves.

    With `key`, the installation's, the session can be told as a collector's, or a command's, in the server's log
    (`collectors.own`).
    Raise `Unreachable` when the server does not take the connection, `ConfigurationError` when the DSN is none.
    """
    text = conninfo(cluster, dsn, database, application_name)
    try:
        connection = psycopg.connect(text, autocommit=autocommit)
        read_texts(connection)
        if key is not None:
            introduce(connection, key, command=command)
    except psycopg.Error as error:
        raise unreachable(text, error) from error
    return connection


def replication_connect(
    cluster: Cluster,
    dsn: str | None = None,
    database: str | None = None,
    *,
    application_name: str = f"{APPLICATION} wal",
) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect for logical replication, with the settings on which the text form of values depends; errors as above.

    While it waits, other threads run: libpq's own way of connecting in one call would hold the interpreter, so that
    one server that does not answer would stop every collector of the process.

    Values come in UTF-8. A database without an encoding (SQL_ASCII) gives the bytes that it holds: asked for UTF-8 the
    server would refuse to send a transaction in which one value is none.
    """
    text = conninfo(cluster, dsn, database, application_name)
    options = f"{conninfo_to_dict(text).get('options', '')} {_TEXT_FORM}".strip()
    whole = make_conninfo(text, replication="database", client_encoding="UTF8", options=options)
    try:
        connection = psycopg.connect(whole, autocommit=True)
    except psycopg.Error as error:
        raise unreachable(text, error) from error
    if connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
        connection.pgconn.exec_(b"SET client_encoding = 'SQL_ASCII'")
    return connection


def conninfo(cluster: Cluster, dsn: str | None, database: str | None, application_name: str) -> str:
    """Complete a DSN with the database, our name, the password file's content and time-outs it does not set."""
    try:
        given = conninfo_to_dict(dsn or cluster.dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"the dsn of a cluster cannot be read: {dsn_trouble(error)}") from error
    if not application_name.startswith(APPLICATION):
        application_name = f"{APPLICATION} {application_name}"
    added: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        **given,
        "application_name": application_name,
    }
    if database is not None:
        added["dbname"] = database
    if cluster.password_file is not None and "password" not in given:
        added["password"] = _password(Path(cluster.password_file))
    return make_conninfo("", **added)


def instance_name(dsn: str) -> str:
    """Name the instance behind a DSN: `host:port`, of several hosts the first; a socket's folder stands as a host."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"the dsn of a cluster cannot be read: {dsn_trouble(error)}") from error
    host = str(given.get("host") or given.get("hostaddr") or "localhost").split(",")[0]
    port = str(given.get("port") or 5432).split(",")[0]
    return f"{host}:{port}"


def unreachable(text: str, error: Exception) -> Unreachable:
    """Say which server did not answer, for whom, and what to look at; a password is never part of it."""
    given = conninfo_to_dict(text)
    where = f"{instance_name(text)}, database {given.get('dbname', 'of the user')}, user {given.get('user', 'default')}"
    why = words(error)
    return Unreachable(
        f"PostgreSQL at {where} cannot be reached: {why}; check that the server runs, that pg_hba.conf lets "
        "this host in, and the dsn and password in the configuration"
    )


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"password_file: {path} cannot be read: {error}; create it or correct the path"
        ) from error
