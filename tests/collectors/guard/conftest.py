"""Fixtures of the guard: a database with an agent, a service and a person in it, and policies about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from collectors.guard import install
from collectors.guard.install import Guard, Status
from collectors.guard.wanted import Config, Login
from collectors.installation.install import Report
from detectors.policy.files import parse
from detectors.policy.policies import Bundle

KEY = bytes(range(32))
KINDS = {"bot": "agent", "app": "service", "ada": "human"}


def policy(name: str, when: str, *, effect: str = "deny", more: str = "", message: str = "") -> str:
    """Write a policy; what it matches is not what its tests are about here."""
    return f"""
id: {name}
title: Policy {name}
description: It is here to be tried.
severity: high
kinds: [statement]
when: '{when}'
effect: {effect}
message: "{message or "{who} {done:did|do} something to {what} in {where}"}"
runbook: None.
{more}
tests:
  - {{name: a, match: true, action: {{operation: select, principal: {{name: nobody}}}}}}
  - {{name: b, match: false, action: {{}}}}
"""


AGENTS_DROP_NOTHING = policy(
    "agents_drop_nothing",
    'principal.kind == "agent" && statement.operations.exists(o, o.startsWith("drop_"))',
    message="{who} {done:dropped|drop} {what} in {where}",
    more="hint: Rename it.",
)
AGENTS_EMPTY_NOTHING = policy("agents_empty_nothing", 'principal.kind == "agent" && operation == "truncate"')
FEW_ROWS = policy(
    "agents_change_few_rows",
    'principal.kind == "agent" && statement.operations.exists(o, o in ["update", "delete", "merge", "do"])',
    effect="limit",
    more="max_rows: 10",
)
NO_GRANTS = policy(
    "agents_grant_nothing", 'principal.kind == "agent" && statement.operations.exists(o, o in ["grant", "revoke"])'
)
LEDGER = policy(
    "ledger_stays",
    'statement.operations.exists(o, o in ["update", "delete", "truncate"])'
    ' && relations.exists(r, r == "public.ledger") && principal.kind != "human"',
)
COLUMNS_STAY = policy("agents_alter_nothing", 'principal.kind == "agent" && "alter_table" in statement.operations')
PURGES = policy(
    "purges_are_approved",
    'principal.kind == "service" && operation == "delete" && "public.orders" in relations',
    effect="approve",
    more="max_rows: 1000\napprove: {by: [owners]}",
)
ALL = (AGENTS_DROP_NOTHING, AGENTS_EMPTY_NOTHING, FEW_ROWS, NO_GRANTS, LEDGER, COLUMNS_STAY, PURGES)

SHOP = """
CREATE ROLE owners; CREATE ROLE bot LOGIN IN ROLE owners; CREATE ROLE app LOGIN IN ROLE owners;
CREATE ROLE ada LOGIN IN ROLE owners;
GRANT CREATE ON SCHEMA public TO owners; SET ROLE owners;
CREATE TABLE orders (id int PRIMARY KEY, v int);
INSERT INTO orders SELECT i, 0 FROM generate_series(1, 100) AS i;
CREATE TABLE ledger (id int PRIMARY KEY, v int); INSERT INTO ledger VALUES (1, 1);
CREATE TABLE items (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE);
INSERT INTO items SELECT i, i FROM generate_series(1, 40) AS i;
CREATE TABLE visits (id int, at int) PARTITION BY RANGE (at);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (100);
INSERT INTO visits SELECT i, i FROM generate_series(1, 50) AS i;
RESET ROLE; CREATE SCHEMA stuff AUTHORIZATION owners;
CREATE TABLE stuff.things (id int); ALTER TABLE stuff.things OWNER TO owners;
"""


def bundle(*documents: str) -> Bundle:
    """Make a bundle of policies."""
    return Bundle(parse("\n---\n".join(documents), "tried.yaml"))


def guard(*documents: str, key: bytes | None = KEY, **settings: Any) -> Guard:
    """Give a guard of policies; its logins are those of `KINDS`."""

    def login(_cluster: str, _database: str, role: str) -> Login:
        return Login(role, "helper" if role == "bot" else role, KINDS[role], "maria") if role in KINDS else Login(role)

    def config(cluster: str) -> Config:
        return Config(cluster=cluster, labels={"env": "prod", "owner": "payments"}, **settings)

    return Guard(bundle=bundle(*(documents or ALL)), login=login, config=config, key=key)


class Guarded:
    """A database, its superuser, and those who run into its guard."""

    def __init__(self, dsn: str, admin: psycopg.Connection[Any]) -> None:
        self.dsn = dsn
        self.admin = admin

    def install(self, guard: Guard) -> Report:
        """Install a guard as the superuser."""
        with psycopg.connect(self.dsn) as connection:
            return install.install(connection, "eu", guard)

    def uninstall(self, guard: Guard) -> Report:
        """Remove it."""
        with psycopg.connect(self.dsn) as connection:
            return install.uninstall(connection, guard)

    def status(self, guard: Guard) -> list[Status]:
        """Show how it stands."""
        with psycopg.connect(self.dsn) as connection:
            return install.status(connection, "eu", guard)

    @contextmanager
    def session(self, role: str = "bot") -> Iterator[psycopg.Connection[Any]]:
        """Log in; nobody asks for a password here."""
        with psycopg.connect(self.dsn, user=role, autocommit=True) as connection:
            yield connection

    def refused(self, statement: str, role: str = "bot") -> psycopg.Error:
        """Run what the guard refuses; gives the error."""
        with self.session(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            _run(connection, statement)
        return error.value

    def passes(self, statement: str, role: str = "bot") -> None:
        """Run what the guard lets pass."""
        with self.session(role) as connection:
            connection.execute(statement.encode())


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    if not statement.startswith("COPY"):
        connection.execute(statement.encode())
        return
    with connection.cursor().copy(statement.encode()) as copy:
        list(copy)


@contextmanager
def shop(dsn: str) -> Iterator[Guarded]:
    """Make a shop in a fresh database, without a guard yet."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SHOP.encode())
        yield Guarded(dsn, admin)
        admin.execute(b"DROP OWNED BY owners, bot, app, ada")


@pytest.fixture
def guarded(database: str) -> Iterator[Guarded]:
    """A fresh shop on each PostgreSQL in turn."""
    with shop(database) as made:
        yield made


@pytest.fixture
def guarded18(database18: str) -> Iterator[Guarded]:
    """A fresh shop on PostgreSQL 18."""
    with shop(database18) as made:
        yield made
