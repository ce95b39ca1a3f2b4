"""Reads posture, of a cluster and of each database, into objects with names and attributes; never a password."""

from __future__ import annotations

from typing import Any

import psycopg

from collectors.posture import queries
from collectors.posture.comparison import Object, masked_setting
from collectors.posture.functions import Definition, Found, path_of
from collectors.posture.views import Entry as ViewEntry
from pgwitness.core.events import qualified, quote_identifier
from pgwitness.core.privacy import Tokenizer

Connection = psycopg.Connection[tuple[Any, ...]]

_BY_NAME = {
    "event_trigger": queries.EVENT_TRIGGERS,
    "publication": queries.PUBLICATIONS,
    "extension": queries.EXTENSIONS,
}


ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""Every query of a look sees the same: a table dropped between two of them would else leave its beacon switched off."""


def cluster(connection: Connection, token: Tokenizer) -> list[Object]:
    """Read what all databases of a cluster share."""
    with connection.transaction():
        connection.execute(ONE_MOMENT)
        connection.execute("SET LOCAL timezone = 'UTC'")
        found = [Object("role", None, name, has) for name, has in connection.execute(queries.ROLES)]
        found += [Object("database", None, name, has) for name, has in connection.execute(queries.DATABASES)]
        for role, member, has in connection.execute(queries.MEMBERSHIPS):
            found.append(Object("membership", None, f"{quote_identifier(member)} IN {quote_identifier(role)}", has))
        for role, database, config in connection.execute(queries.ROLE_SETTINGS):
            name = f"{quote_identifier(role) if role else 'ALL'} IN {quote_identifier(database) if database else 'ALL'}"
            pairs = (entry.partition("=") for entry in sorted(config))
            has = {key: masked_setting(key, value, token) for key, _, value in pairs}
            found.append(Object("role_setting", None, name, has))
        for name, value, source, unit, pending in connection.execute(queries.SETTINGS):
            has = {"value": masked_setting(name, value or "", token), "source": source, "pending_restart": pending}
            found.append(Object("setting", None, name, has | ({"unit": unit} if unit else {})))
        grants = [queries.CLUSTER_GRANTS] + (
            [queries.PARAMETER_GRANTS] if connection.info.server_version >= 150_000 else []
        )
        for query in grants:
            found += [Object("grant", None, name, has) for name, has in connection.execute(query)]
    return found


def database(connection: Connection, name: str) -> list[Object]:
    """Read what one database has."""
    found: list[Object] = []
    with connection.transaction():
        connection.execute(ONE_MOMENT)
        # Who may write all data may lock the registry of beacons, and would end the watching with that.
        connection.execute("SET LOCAL lock_timeout = '1s'")
        grants: dict[str, dict[str, Any]] = {}
        for schema, table, system, has, acl in connection.execute(queries.TABLES):
            if not system:
                found.append(Object("table", name, qualified(schema, table), has))
            if acl is not None or system:
                grants[qualified(schema, table)] = {"acl": acl, "owner": has["owner"]}
        for schema, table, columns in connection.execute(queries.COLUMN_GRANTS):
            grants.setdefault(qualified(schema, table), {})["columns"] = columns
        found += [Object("grant", name, table, has) for table, has in grants.items()]
        for query in (queries.SCHEMA_GRANTS, queries.FUNCTION_GRANTS):
            found += [Object("grant", name, what, has) for what, has in connection.execute(query)]
        for schema, table, trigger, has in connection.execute(queries.TRIGGERS):
            relation = qualified(schema, table)
            found.append(
                Object("trigger", name, f"{relation}.{quote_identifier(trigger)}", {"relation": relation, **has})
            )
        for kind, query in _BY_NAME.items():
            found += [Object(kind, name, what, has) for what, has in connection.execute(query)]
        if _registered(connection):
            for schema, table, has in connection.execute(queries.BEACONS):
                found.append(Object("beacon", name, qualified(schema, table), has))
    return found


def sizes(connection: Connection) -> dict[str, int]:
    """Count the rows of a database's tables, by the server's statistics; what these do not know is left out."""
    with connection.transaction():
        return {qualified(schema, table): rows for schema, table, rows in connection.execute(queries.SIZES)}


def functions(connection: Connection) -> list[Found]:
    """List the functions whose bodies can be read."""
    return [
        Found(oid, qualified(schema, name), version)
        for oid, schema, name, version in connection.execute(queries.FUNCTIONS)
    ]


def views(connection: Connection) -> list[tuple[str, ViewEntry]]:
    """List what views read: names in full, quoted as SQL would."""
    found: list[tuple[str, ViewEntry]] = []
    for schema, name, whole, relations, columns, shown in connection.execute(queries.VIEWS):
        behind = [f"{qualified(*column[:2])}.{quote_identifier(column[2])}" for column in columns]
        own = [quote_identifier(column) for column in shown or ()]
        found.append((qualified(schema, name), [whole, [qualified(*pair) for pair in relations], behind, own]))
    return found


def columns(connection: Connection) -> list[tuple[str, list[str]]]:
    """List the tables with their columns: names in full, quoted as SQL would."""
    found: list[tuple[str, list[str]]] = []
    for schema, table, names in connection.execute(queries.COLUMNS):
        name = qualified(schema, table)
        found.append((name, [f"{name}.{quote_identifier(column)}" for column in names]))
    return found


def definitions(connection: Connection, oids: list[int]) -> list[Definition]:
    """Read the definitions of functions, names in full; none at all where one waits for a table's lock."""
    if not oids:
        return []
    try:
        with connection.transaction():
            connection.execute("SET LOCAL search_path = pg_catalog")
            connection.execute("SET LOCAL lock_timeout = '100ms'")
            rows = connection.execute(queries.DEFINITIONS, [oids]).fetchall()
    except psycopg.errors.LockNotAvailable:
        return []
    return [Definition(oid, text, path_of(config)) for oid, text, config in rows]


def _registered(connection: Connection) -> bool:
    """Return whether there is a registry of beacons that we may read."""
    row = connection.execute(
        "SELECT CASE WHEN to_regclass('pgwitness.covered') IS NOT NULL THEN"
        " has_schema_privilege('pgwitness', 'USAGE') AND has_table_privilege('pgwitness.covered', 'SELECT') END"
    ).fetchone()
    return row is not None and row[0] is True
