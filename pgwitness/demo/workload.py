"""The shop at work: eight principals who each do their job until told to stop, and the ledger of what they did.

The ledger is the demo's own truth: rows are entered after the server confirmed the commit, by the principal who
did it, and nothing else is ever compared with what pgwitness says.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from pgwitness.demo.clients import Alchemy, Client, Psql, Psycopg
from pgwitness.demo.doors import Doors, psql_environment
from pgwitness.demo.shop import (
    CHECKOUT,
    CITIES,
    CUSTOMERS,
    JONAS,
    LENA,
    MARIA,
    NAMES,
    NORA,
    PRICING_AGENT,
    PRODUCTS,
    SHIPPING,
    SUPPORT_AGENT,
    Principal,
)


class Ledger:
    """Rows that were committed, by who did it; `None` is work that pgwitness must not be able to name."""

    def __init__(self) -> None:
        self._rows: Counter[str | None] = Counter()
        self._transactions = 0
        self._cells: Counter[bool] = Counter()
        self._lock = threading.Lock()

    def add(self, principal: str | None, rows: int) -> None:
        """Enter a committed transaction."""
        with self._lock:
            self._rows[principal] += rows
            self._transactions += 1

    @property
    def rows(self) -> int:
        """All rows."""
        with self._lock:
            return sum(self._rows.values())

    def saw(self, cells: Iterable[object]) -> None:
        """Enter what somebody read of whom columns are hidden."""
        with self._lock:
            self._cells.update(_tells(cell) for cell in cells if cell is not None)

    @property
    def masked_cells(self) -> int:
        """Cells that were read and tell of nobody."""
        return self._cells[False]

    @property
    def leaked_cells(self) -> int:
        """Cells that hold a name or an address all the same."""
        return self._cells[True]

    @property
    def transactions(self) -> int:
        """All transactions, those without a changed row too."""
        with self._lock:
            return self._transactions

    def by_principal(self) -> dict[str | None, int]:
        """Rows by principal, of those who changed any."""
        with self._lock:
            return {who: rows for who, rows in self._rows.items() if rows}


def _tells(cell: object) -> bool:
    return "@" in str(cell) or str(cell).split(" ", 1)[0] in NAMES


Job = Callable[[Client, Random], int]
"""One piece of work on a connection; gives the rows it changed."""


@dataclass
class Worker:
    """A principal with a connection and a job, which it does about `rate` times a second."""

    who: Principal
    client: Client
    job: Job
    rate: float


@dataclass
class Workload:
    """All workers, each in a thread of its own; the first error of any of them ends the demo."""

    workers: list[Worker]
    ledger: Ledger
    seed: int = 1
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the threads; `start` starts them."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(worker, Random(self.seed + number)), name=worker.who.name)  # noqa: S311
            for number, worker in enumerate(self.workers)
        ]
        for thread in self._threads:
            thread.daemon = True

    def start(self) -> None:
        """Let everybody begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let everybody finish what they are at, and log out."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10)
        for worker in self.workers:
            worker.client.close()

    def _work(self, worker: Worker, random: Random) -> None:
        try:
            while not self._stop.wait(random.uniform(0.5, 1.5) / worker.rate):
                self.ledger.add(worker.who.name, worker.job(worker.client, random))
        except Exception as error:
            self.errors.append(error)


def staff(doors: Doors, psql: Path, ledger: Ledger) -> list[Worker]:
    """Let everybody log in at the gateway: people at psql, programs with psycopg and SQLAlchemy.

    The support agent works for whoever asks.
    """
    return [
        Worker(CHECKOUT, Psycopg(doors.through(CHECKOUT)), sell, 25.0),
        Worker(SHIPPING, Alchemy(doors.through(SHIPPING)), ship, 10.0),
        Worker(SUPPORT_AGENT, Psycopg(doors.through(SUPPORT_AGENT), doors.helpdesk.next), answer, 8.0),
        Worker(PRICING_AGENT, Psycopg(doors.through(PRICING_AGENT)), price, 6.0),
        Worker(NORA, Psycopg(doors.through(NORA)), partial(study, ledger), 2.0),
        *(
            Worker(who, at_psql(doors, psql, who), job, rate)
            for who, job, rate in ((MARIA, care, 2.0), (JONAS, report, 2.0), (LENA, tend, 1.0))
        ),
    ]


def at_psql(doors: Doors, psql: Path, who: Principal) -> Psql:
    """Let a person log in at the gateway with psql, over TLS where that psql can be made to."""
    more = psql_environment()
    return Psql(psql, doors.through(who, tls=more is not None), more)


def sell(client: Client, random: Random) -> int:
    """Sell one to three things to a customer: order, items, stock and payment in one transaction."""
    assert isinstance(client, Psycopg)
    # In the order of their ids, so that two sales never wait for each other in a circle.
    basket = sorted(random.sample(range(1, PRODUCTS + 1), random.randint(1, 3)))
    total = random.randint(500, 20_000) / 100
    with client.transaction():
        order = client.one(
            "INSERT INTO orders (customer_id, status, total) VALUES (%(customer)s, 'paid', %(total)s) RETURNING id",
            {"customer": random.randint(1, CUSTOMERS), "total": total},
        )
        return 1 + client.run(
            *(
                (
                    "INSERT INTO order_items (order_id, product_id, quantity, price) VALUES (%(o)s, %(p)s, 1, 9.5)",
                    {"o": order, "p": product},
                )
                for product in basket
            ),
            *(("UPDATE products SET stock = stock - 1 WHERE id = %(p)s", {"p": product}) for product in basket),
            (
                "INSERT INTO payments (order_id, amount, method) VALUES (%(o)s, %(total)s, 'card')",
                {"o": order, "total": total},
            ),
        )


def ship(client: Client, random: Random) -> int:
    """Send the oldest parcel that waits."""
    carrier = random.choice(("post", "rider", "van"))
    return client.run(
        (
            "INSERT INTO shipments (order_id, carrier) "
            "SELECT id, %(carrier)s FROM orders WHERE status = 'paid' ORDER BY id LIMIT 1",
            {"carrier": carrier},
        ),
        "UPDATE orders SET status = 'sent' WHERE id = (SELECT max(order_id) FROM shipments) AND status = 'paid'",
    )


CUSTOMERS_OF = "SELECT id, name, email, city FROM public.customers WHERE city = %(c)s ORDER BY id LIMIT 3"


def answer(client: Client, random: Random) -> int:
    """Look a customer up and open or answer a ticket."""
    customer = random.randint(1, CUSTOMERS)
    if random.random() < 0.4:
        return client.run(
            (
                "INSERT INTO tickets (customer_id, subject, state) VALUES (%(c)s, %(s)s, 'open')",
                {"c": customer, "s": f"Where is parcel {random.randint(1, 9_999)}?"},
            )
        )
    return client.run(
        ("SELECT name FROM customers WHERE id = %(c)s", {"c": customer}),
        ("UPDATE tickets SET state = 'answered' WHERE id = %(t)s", {"t": random.randint(1, 300)}),
    )


def price(client: Client, random: Random) -> int:
    """Change one price, or put one promotion up or down."""
    product, dice = random.randint(1, PRODUCTS), random.random()
    if dice < 0.7:
        change = {"f": random.randint(90, 111), "p": product}
        return client.run(("UPDATE products SET price = round(price * %(f)s / 100, 2) WHERE id = %(p)s", change))
    if dice < 0.9:
        values = {"p": product, "d": random.randint(5, 40)}
        return client.run(("INSERT INTO promotions (product_id, discount) VALUES (%(p)s, %(d)s)", values))
    return client.run(("DELETE FROM promotions WHERE id = %(i)s", {"i": random.randint(1, 400)}))


def care(client: Client, random: Random) -> int:
    """Maria reads one customer's orders and closes a ticket."""
    customer = random.randint(1, CUSTOMERS)
    if random.random() < 0.5:
        return client.run(("SELECT id, status, total FROM orders WHERE customer_id = %(c)s", {"c": customer}))
    return client.run(("UPDATE tickets SET state = 'closed' WHERE id = %(t)s", {"t": random.randint(1, 300)}))


def report(client: Client, random: Random) -> int:
    """Jonas counts the day's sales and now and then refunds an order."""
    if random.random() < 0.6:
        return client.run("SELECT status, count(*), sum(total) FROM orders GROUP BY status")
    return client.run(("UPDATE orders SET status = 'refunded' WHERE id = %(o)s", {"o": random.randint(1, 500)}))


def study(ledger: Ledger, client: Client, random: Random) -> int:
    """Nora reads the customers of a town, by the table's whole name; who they are is hidden from her."""
    assert isinstance(client, Psycopg)
    found = client.all(CUSTOMERS_OF, {"c": random.choice(CITIES)})
    ledger.saw(cell for _, name, email, _ in found for cell in (name, email))
    return 0


def tend(client: Client, random: Random) -> int:
    """Lena looks after the server and sees to it that nothing runs out."""
    if random.random() < 0.5:
        return client.run("SELECT count(*) FROM pg_stat_activity")
    return client.run(("UPDATE products SET stock = stock + 100 WHERE id = %(p)s", {"p": random.randint(1, PRODUCTS)}))
