"""Forty sessions over five routes, and their own ledger of who committed what.

The routes: the program psql under roles of its own; psycopg, SQLAlchemy and a stored procedure behind one shared role,
told apart by application name; and pgbouncer in transaction mode, where clients share server sessions. All of them
write the same table at the same time, in single statements and in transactions, with savepoints, rollbacks, statements
that change nothing, and one long transaction a route, which stays open until all the others are done.

The ledger has each change that was committed: operation, key, and the principal whose work it was. A session touches
no other's keys.
"""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import sqlalchemy
from psycopg import sql
from sqlalchemy.pool import NullPool

from pgwitness.demo.servers import Postgres

SESSIONS_PER_ROUTE = 8
ROUNDS = 3
SECONDS_MAX = 60.0
LOCK = 4711
"""Held by the conductor while long transactions are to stay open."""

Change = tuple[str, str, int]
"""Principal, operation, key."""

SCHEMA = """
CREATE TABLE {table} (id bigint PRIMARY KEY, who text, n int NOT NULL DEFAULT 0);
GRANT ALL ON {table} TO PUBLIC;
CREATE FUNCTION give_{table}(key bigint, name text) RETURNS void LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO {table} VALUES (key, name); END$$;
CREATE PROCEDURE place_{table}(first bigint, name text) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {table} VALUES (first, name);
  COMMIT;
  INSERT INTO {table} VALUES (first + 1, name);
  ROLLBACK;
  BEGIN
    INSERT INTO {table} VALUES (first + 2, name);
    INSERT INTO {table} VALUES (first, name);
  EXCEPTION WHEN unique_violation THEN
    UPDATE {table} SET n = 9 WHERE id = first;
  END;
END$$;
"""
ROLES = ("shared", "pooled", *(f"own_{number}" for number in range(SESSIONS_PER_ROUTE)))
IDENTITIES = """\
rules:
  - match: {role: "own_*"}
    principal: "{role}"
    kind: human
  - match: {role: [shared, pooled], application: "*"}
    principal: "{application}"
    kind: service
"""


def make(admin_dsn: str, tables: list[str]) -> None:
    """Make the roles, and the tables with a function and a procedure each."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        for role in ROLES:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        for table in tables:
            admin.execute(SCHEMA.format(table=table))


@dataclass
class Workload:
    """One performance of the workload on one table; `claim` gives the token of a principal, where claims are used."""

    server: Postgres
    pooled_dsn: str
    table: str
    claim: Callable[[str], str] | None = None
    sessions_per_route: int = SESSIONS_PER_ROUTE
    ledger: Counter[Change] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._keys = itertools.count(1_000, 10)
        self._lock = threading.Lock()

    def perform(self) -> Counter[Change]:
        """Let all sessions work at once, the long transactions until the others are done; gives the ledger."""
        routes = (self.psql, self.psycopg, self.sqlalchemy, self.pooled, self.procedure)
        with (
            psycopg.connect(self.server.dsn(), autocommit=True) as conductor,
            ThreadPoolExecutor(len(routes) * self.sessions_per_route) as pool,
        ):
            conductor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            long: list[Future[None]] = []
            short: list[Future[None]] = []
            try:
                for number in range(self.sessions_per_route):
                    for route in routes:
                        (short if number else long).append(pool.submit(route, number))
                for done in short:
                    done.result(SECONDS_MAX)
            finally:
                conductor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
            for done in long:
                done.result(SECONDS_MAX)
        return self.ledger

    def note(self, principal: str, operation: str, *keys: int) -> None:
        """Write down what has been committed."""
        with self._lock:
            for key in keys:
                self.ledger[principal, operation, key] += 1

    def keys(self, number: int) -> list[int]:
        """Give keys that nobody else has."""
        with self._lock:
            first = next(self._keys)
        return [first + place for place in range(number)]

    # -- routes ------------------------------------------------------------------------------------------------

    def psql(self, number: int) -> None:
        """The program, under a role of its own: statements as text, most of them single ones."""
        who, table = f"own_{number}", self.table
        script: list[str] = []
        for _ in range(ROUNDS):
            a, b, c, d, e = self.keys(5)
            script += [
                f"INSERT INTO {table} VALUES ({a}, '{who}');",
                f"UPDATE {table} SET n = 1 WHERE id = {a};",
                f"UPDATE {table} SET n = 1 WHERE id = -1;",
                f"BEGIN; INSERT INTO {table} VALUES ({b}, '{who}'); SAVEPOINT s;",
                f"INSERT INTO {table} VALUES ({c}, 'nobody'); ROLLBACK TO s; COMMIT;",
                f"BEGIN; DELETE FROM {table} WHERE id = {a}; ROLLBACK;",
                f"DO $$BEGIN INSERT INTO {table} VALUES ({d}, '{who}'); END$$;",
                f"SELECT give_{table}({e}, '{who}');",
                f"INSERT INTO {table} VALUES ({a}, '{who}') ON CONFLICT DO NOTHING;",
                f"DELETE FROM {table} WHERE id = {b};",
            ]
            self.note(who, "insert", a, b, d, e)
            self.note(who, "update", a)
            self.note(who, "delete", b)
        if number == 0:
            (key,) = self.keys(1)
            script += [f"BEGIN; INSERT INTO {table} VALUES ({key}, '{who}');"]
            script += [f"SELECT pg_advisory_xact_lock_shared({LOCK}); COMMIT;"]
            self.note(who, "insert", key)
        run_psql(self.server, who, "\n".join(script))

    def psycopg(self, number: int) -> None:
        """A driver: parameters apart, transactions, savepoints, COPY, pipelines."""
        who, table = f"psycopg-{number}", self.table
        insert = f"INSERT INTO {table} VALUES (%s, %s)"
        with psycopg.connect(self.server.dsn("shared"), application_name=who, autocommit=True) as connection:
            for _ in range(ROUNDS):
                a, b, c, d, e = self.keys(5)
                connection.execute(insert, [a, who])
                connection.execute(f"UPDATE {table} SET n = 1 WHERE id = {a}")
                connection.execute(f"UPDATE {table} SET n = 1 WHERE id = {-1}")
                with connection.transaction():
                    connection.execute(f"DELETE FROM {table} WHERE id = %s", [a])
                    with connection.transaction(force_rollback=True):
                        connection.execute(insert, [b, "nobody"])
                    connection.cursor().executemany(insert, [(b, who), (c, who)])
                with connection.transaction(force_rollback=True):
                    connection.execute(f"DELETE FROM {table} WHERE id = %s", [b])
                with connection.cursor().copy(f"COPY {table} (id, who) FROM STDIN") as copy:
                    copy.write_row((d, who))
                with connection.pipeline():
                    connection.execute(insert, [e, who])
                    connection.execute(f"UPDATE {table} SET n = 2 WHERE id = %s", [e])
                self.note(who, "insert", a, b, c, d, e)
                self.note(who, "update", a, e)
                self.note(who, "delete", a)
            if number == 0:
                (key,) = self.keys(1)
                with connection.transaction():
                    connection.execute(insert, [key, who])
                    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])
                self.note(who, "insert", key)

    def sqlalchemy(self, number: int) -> None:
        """A library that begins transactions by itself."""
        who = f"alchemy-{number}"
        table = sqlalchemy.table(self.table, sqlalchemy.column("id"), sqlalchemy.column("who"), sqlalchemy.column("n"))
        url = self.server.dsn("shared").replace("postgresql://", "postgresql+psycopg://")
        engine = sqlalchemy.create_engine(url, connect_args={"application_name": who}, poolclass=NullPool)
        for round_number in range(ROUNDS):
            a, b, c = self.keys(3)
            with engine.begin() as connection:
                connection.execute(table.insert(), [{"id": a, "who": who}, {"id": b, "who": who}])
                with connection.begin_nested() as savepoint:
                    connection.execute(table.insert().values(id=c, who="nobody"))
                    savepoint.rollback()
                connection.execute(table.update().where(table.c.id == a).values(n=1))
            with engine.connect() as connection:
                connection.execute(table.delete().where(table.c.id == a))
                connection.rollback()
                connection.execute(table.delete().where(table.c.id == b))
                if number == 0 and round_number == 0:
                    connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock_shared({LOCK})"))
                connection.commit()
            self.note(who, "insert", a, b)
            self.note(who, "update", a)
            self.note(who, "delete", b)
        engine.dispose()

    def pooled(self, number: int) -> None:
        """Clients that share server sessions, one transaction after the other, with claims where there are any."""
        who, table = f"pooled-{number}", self.table
        insert = f"INSERT INTO {table} VALUES (%s, %s)"
        with psycopg.connect(
            self.pooled_dsn, application_name=who, autocommit=True, prepare_threshold=None
        ) as connection:

            @contextmanager
            def transaction() -> Iterator[None]:
                with connection.transaction():
                    if self.claim is not None:
                        connection.execute("SELECT pgwitness.claim(%s)", [self.claim(who)])
                    yield

            for _ in range(ROUNDS):
                a, b, c, d = self.keys(4)
                with transaction():
                    connection.execute(insert, [a, who])
                    with connection.transaction(force_rollback=True):
                        connection.execute(insert, [b, "nobody"])
                    connection.execute(f"UPDATE {table} SET n = 1 WHERE id = %s", [a])
                with connection.transaction(force_rollback=True):
                    connection.execute(insert, [b, "nobody"])
                with transaction():
                    connection.execute(f"DELETE FROM {table} WHERE id = {a}")
                self.note(who, "insert", a)
                self.note(who, "update", a)
                self.note(who, "delete", a)
                if self.claim is None:
                    connection.execute(f"INSERT INTO {table} VALUES ({c}, '{who}')")
                    connection.execute(f"UPDATE {table} SET n = 1 WHERE id = {-1}")
                    connection.execute(insert, [d, who])
                    connection.execute(f"UPDATE {table} SET n = 1 WHERE id = {c}")
                    self.note(who, "insert", c, d)
                    self.note(who, "update", c)
            if number == 0:
                (key,) = self.keys(1)
                with transaction():
                    connection.execute(insert, [key, who])
                    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])
                self.note(who, "insert", key)

    def procedure(self, number: int) -> None:
        """A stored procedure that commits and rolls back by itself, and a function; neither names the table."""
        who, table = f"procedure-{number}", self.table
        with psycopg.connect(self.server.dsn("shared"), application_name=who, autocommit=True) as connection:
            for _ in range(ROUNDS):
                first, _, _, other, text = self.keys(5)
                connection.execute(f"CALL place_{table}(%s, %s)", [first, who])
                self.note(who, "insert", first)
                self.note(who, "update", first)
                connection.execute(f"SELECT give_{table}(%s, %s)", [other, who])
                connection.execute(f"SELECT give_{table}({text}, '{who}')")
                self.note(who, "insert", other, text)
            if number == 0:
                (key,) = self.keys(1)
                with connection.transaction():
                    connection.execute(f"SELECT give_{table}(%s, %s)", [key, who])
                    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])
                self.note(who, "insert", key)


def calm(server: Postgres, table: str, statements: int) -> Counter[Change]:
    """One session of psql after the other, nobody else at work: single statements; gives the ledger.

    The log tells milliseconds: only what is further apart than that can be told apart.
    """
    apart = "\\! sleep 0.02\n"
    ledger: Counter[Change] = Counter()
    for number in range(statements):
        who, key = f"own_{number % SESSIONS_PER_ROUTE}", -10 - number
        script = f"INSERT INTO {table} VALUES ({key}, '{who}');\n{apart}"
        script += f"UPDATE {table} SET n = 1 WHERE id = {key};\n{apart}"
        script += f"UPDATE {table} SET n = 1 WHERE id = {-key};\n"
        run_psql(server, who, script)
        run_psql(server, who, f"SELECT give_{table}({key * 1000}, '{who}');")
        ledger.update([(who, "insert", key), (who, "update", key), (who, "insert", key * 1000)])
    return ledger


def run_psql(server: Postgres, role: str, script: str) -> None:
    """Run a script with the program, under a role; every statement has to succeed."""
    command = [str(server.psql_bin / "psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", server.dsn(role)]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
