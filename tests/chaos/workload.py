"""A workload that keeps its own books: what each of its clients committed, by transaction.

Every transaction also writes a row to `public.ledger`. A client writes its commits down when they return; of a commit
whose outcome it could not learn (the server went away), the database is asked afterwards by that row. So the books
are right whatever was killed, and they are independent of pgwitness.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import psycopg
from psycopg import sql

TABLES = """\
CREATE TABLE ledger (client int, number bigint, PRIMARY KEY (client, number));
CREATE TABLE orders (id bigserial PRIMARY KEY, client int, number bigint, note text, amount numeric);
"""

BULKY = ((1, 1, 1, 5, 20, 200), 0.02)
MODEST = ((1, 1, 1, 1, 1, 1, 1, 1, 5, 5, 20, 200), 0.005)
"""How many rows a transaction inserts, drawn from some, and how often it is 1,500: a third as many with the second."""
Rows = Counter[str]
"""Rows of public.orders by operation."""


@dataclass
class Client:
    """One client: its number, its login role and the principal that identities.yaml gives it."""

    number: int
    role: str
    application: str
    principal: str
    committed: dict[int, Rows] = field(default_factory=dict)
    unknown: dict[int, Rows] = field(default_factory=dict)


class Workload:
    """Clients that write in threads until `end`; `dsn` may name several hosts.

    `pace_s` is each client's pause between transactions. Randomness comes from `seed`.
    """

    def __init__(
        self,
        admin_dsn: str,
        tag: str,
        *,
        seed: int,
        clients: int = 4,
        pace_s: float = 0.03,
        sizes: tuple[Sequence[int], float] = BULKY,
    ) -> None:
        self.admin_dsn = admin_dsn
        self.clients = [
            Client(
                number,
                role=f"own{number}_{tag}" if number % 2 else f"shared_{tag}",
                application=f"app-{number}",
                principal=f"person-{number}" if number % 2 else f"bot-{number}",
            )
            for number in range(clients)
        ]
        self._tag = tag
        self._seed = seed
        self._pace_s = pace_s
        self._sizes, self._large = sizes
        self._ended = threading.Event()
        self._committed = threading.Condition()
        self._count = 0
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def prepare(self) -> None:
        """Make the tables and the clients' roles."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as admin:
            admin.execute(TABLES)
            admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            for role in sorted({client.role for client in self.clients}):
                name = sql.Identifier(role)
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
                admin.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(name))
                admin.execute(sql.SQL("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}").format(name))

    def identities(self) -> str:
        """Write identities.yaml: a role of one's own for every second client, a shared one for the others."""
        rules = [
            f"  - match: {{role: {client.role}, application: {client.application}}}\n"
            f"    principal: {client.principal}\n"
            f"    kind: {'human' if client.number % 2 else 'agent'}\n"
            for client in self.clients
        ]
        return "rules:\n" + "".join(rules)

    def start(self) -> None:
        """Start the clients."""
        for client in self.clients:
            thread = threading.Thread(target=self._run, args=[client], name=client.application, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait_for_more(self, transactions: int, seconds_max: float) -> None:
        """Wait until so many further transactions were committed, or for `seconds_max` if the database is away."""
        with self._committed:
            goal = self._count + transactions
            self._committed.wait_for(lambda: self._count >= goal or self._failure is not None, seconds_max)
        self._check()

    def end(self) -> None:
        """Stop the clients and learn the outcome of what is in doubt."""
        self._ended.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), f"{thread.name} did not end"
        self._check()
        with psycopg.connect(self.admin_dsn) as admin:
            there = {(client, number) for client, number in admin.execute("SELECT client, number FROM ledger")}
        for client in self.clients:
            for number, rows in client.unknown.items():
                if (client.number, number) in there:
                    client.committed[number] = rows
            mine = {number for who, number in there if who == client.number}
            lost = client.committed.keys() - mine
            assert not lost, f"the database itself lost commits of {client.principal}: {sorted(lost)[:10]}"

    def transactions(self) -> set[tuple[str, int]]:
        """List what was committed, by principal and number."""
        return {(client.principal, number) for client in self.clients for number in client.committed}

    def rows(self) -> dict[tuple[str, str], int]:
        """Count the committed rows of public.orders, by principal and operation."""
        totals: Counter[tuple[str, str]] = Counter()
        for client in self.clients:
            for rows in client.committed.values():
                for operation, count in rows.items():
                    totals[client.principal, operation] += count
        return {key: count for key, count in totals.items() if count}

    def _check(self) -> None:
        if self._failure is not None:
            raise AssertionError("a client of the workload failed") from self._failure

    def _run(self, client: Client) -> None:
        try:
            random = Random(f"{self._seed}/{client.number}")
            number = 0
            connection: psycopg.Connection | None = None
            while not self._ended.wait(self._pace_s):
                number += 1
                try:
                    if connection is None or connection.closed:
                        connection = self._connect(client)
                    self._transact(connection, client, number, random)
                except psycopg.OperationalError:
                    # The server went away or is not there yet; the books know what that means.
                    if connection is not None:
                        connection.close()
                    self._ended.wait(0.1)
            if connection is not None:
                connection.close()
        except BaseException as error:
            self._failure = error
            raise

    def _connect(self, client: Client) -> psycopg.Connection:
        dsn = self.admin_dsn.replace("postgres@", f"{client.role}@")
        return psycopg.connect(dsn, application_name=client.application, connect_timeout=5)

    def _transact(self, connection: psycopg.Connection, client: Client, number: int, random: Random) -> None:
        rows: Rows = Counter()
        connection.execute("INSERT INTO ledger VALUES (%s, %s)", [client.number, number])
        new = random.choice(self._sizes) if random.random() >= self._large else 1500
        rows["insert"] = connection.execute(
            "INSERT INTO orders (client, number, note, amount)"
            " SELECT %s, %s, 'note ' || i, i FROM generate_series(1, %s) AS i",
            [client.number, number, new],
        ).rowcount
        if random.random() < 0.4:
            rows["update"] = connection.execute(
                "UPDATE orders SET amount = amount + 1, number = %s WHERE id IN"
                " (SELECT id FROM orders WHERE client = %s ORDER BY id DESC LIMIT %s)",
                [number, client.number, random.randint(1, 30)],
            ).rowcount
        if random.random() < 0.3:
            rows["delete"] = connection.execute(
                "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE client = %s ORDER BY id LIMIT %s)",
                [client.number, random.randint(1, 30)],
            ).rowcount
        if random.random() < 0.1:
            connection.rollback()
            return
        try:
            connection.commit()
        except psycopg.Error:
            client.unknown[number] = rows
            raise
        client.committed[number] = rows
        with self._committed:
            self._count += 1
            self._committed.notify_all()
