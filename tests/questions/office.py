"""An office at work on a real server, and its own ledger: what each question of an auditor must answer.

Two people with roles of their own (maria, lena), one behind a shared role (jonas), a service and an agent behind
another, the owner of the tables, and somebody whom no rule names. What they do stands in `LEDGER`, written by hand;
nothing in it comes out of pgwitness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

from pgwitness.demo.servers import Postgres

CUSTOMERS = 40
ORDERS = 12
IDENTITIES = """\
rules:
  - {match: {role: [maria, lena]}, principal: "{role}", kind: human}
  - {match: {role: backoffice, application: "psql jonas"}, principal: jonas, kind: human}
  - {match: {role: shop_app, application: shop-api}, principal: shop-api, kind: service}
  - {match: {role: shop_app, application: support-agent}, principal: support-agent, kind: agent, on_behalf_of: maria}
"""
PRIVACY = """\
[privacy]
clear = ["public.orders.status"]
sensitive = ["public.customers.email", "public.cards.*"]
"""
SCHEMA = f"""
CREATE ROLE maria LOGIN; CREATE ROLE lena LOGIN SUPERUSER; CREATE ROLE backoffice LOGIN; CREATE ROLE shop_app LOGIN;
CREATE ROLE temp LOGIN; CREATE ROLE shop_owner LOGIN;
CREATE EXTENSION pg_stat_statements;
GRANT ALL ON SCHEMA public TO shop_owner;
SET ROLE shop_owner;
CREATE TABLE customers (id int PRIMARY KEY, name text, email text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers, status text, total numeric);
CREATE TABLE cards (id int PRIMARY KEY, customer_id int REFERENCES customers, number text);
CREATE TABLE coupons (code int PRIMARY KEY);
INSERT INTO customers SELECT n, 'Name ' || n, n || '@example.org' FROM generate_series(1, {CUSTOMERS}) AS n;
INSERT INTO cards SELECT n, n, '4111' FROM generate_series(1, {CUSTOMERS}) AS n;
GRANT SELECT, UPDATE ON customers, orders TO maria, backoffice;
GRANT SELECT ON cards TO maria;
GRANT ALL ON customers, orders, cards TO shop_app;
GRANT SELECT, UPDATE ON orders TO temp;
RESET ROLE;
"""


class Office:
    """Sessions on the server, each of somebody; every statement is committed by itself unless said otherwise."""

    def __init__(self, server: Postgres) -> None:
        self._server = server

    @contextlib.contextmanager
    def desk(self, role: str, application: str = "psql") -> Iterator[psycopg.Connection]:
        """Log somebody in."""
        dsn = self._server.dsn(role)
        with psycopg.connect(dsn, application_name=application, autocommit=True) as session:
            yield session

    def work(self) -> None:
        """Do everything of the ledger."""
        with self.desk("shop_app", "shop-api") as api:
            for order in range(1, ORDERS + 1):
                api.execute(f"INSERT INTO orders VALUES ({order}, {order}, 'paid', 10)")
            api.execute("DELETE FROM orders WHERE id = 5")
            api.execute("DELETE FROM cards WHERE id = 5")
            api.execute("DELETE FROM customers WHERE id = 5")
        with self.desk("maria") as maria:
            maria.execute("SELECT name, email FROM customers WHERE id = 3").fetchall()
            maria.execute("UPDATE orders SET status = 'held' WHERE id = 7")
            maria.execute("SELECT number FROM cards WHERE customer_id = 3").fetchall()
            with maria.transaction(force_rollback=True):
                maria.execute("UPDATE orders SET total = 0")
        with self.desk("shop_app", "support-agent") as agent:
            agent.execute("SELECT name FROM customers WHERE id = 7").fetchall()
            agent.execute("UPDATE orders SET status = 'sent' WHERE id = 7")
            agent.execute("UPDATE customers SET email = 'new@example.org' WHERE id = 3")
        with self.desk("backoffice", "psql jonas") as jonas:
            jonas.execute("SELECT * FROM customers").fetchall()
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                jonas.execute("SELECT * FROM cards")
        with self.desk("temp") as nobody:
            nobody.execute("UPDATE orders SET total = 1 WHERE id = 9")
        with self.desk("lena") as lena:
            with lena.transaction():  # no snapshot between them: it would show two changes, each with its own name
                lena.execute("CREATE ROLE metrics LOGIN")
                lena.execute("ALTER ROLE metrics SUPERUSER")
            lena.execute("GRANT SELECT ON cards TO backoffice")
            lena.execute("SET statement_timeout = '1min'")
            lena.execute("SET log_statement = 'all'")
            lena.execute("SET pgaudit.log = 'all'")
            lena.execute("SET row_security = off")
            lena.execute("SELECT pg_stat_statements_reset()")
        with self.desk("shop_owner") as owner:
            owner.execute("ALTER TABLE orders ADD COLUMN note text")
            owner.execute("DROP TABLE coupons")
            owner.execute("ALTER TABLE cards DISABLE TRIGGER USER")
            owner.execute("UPDATE cards SET number = '0' WHERE id IN (1, 2)")
            owner.execute("ALTER TABLE cards ENABLE ALWAYS TRIGGER pgwitness_beacon")
        for _ in range(3):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self._server.dsn("intruder"))
