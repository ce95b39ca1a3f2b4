"""Tools work for an audience through the gateway: psql's own commands, SQLAlchemy, what Django and DBeaver ask."""

from __future__ import annotations

import subprocess

from psycopg.conninfo import make_conninfo
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Numeric, Text, create_engine, func, inspect, select
from sqlalchemy.orm import DeclarativeBase, Session, relationship

from tests.gateway.test_masks import PASSWORD, ROLE, Asking, asking

__all__ = ["asking"]

COMMANDS = r"""
\d
\d+
\d customers
\d+ public.customers
\d public.*
\dt+
\dt public.*
\dv *.*
\dn+
\dp
\ddp
\df public.*
\di public.*
\ds
\dT public.*
\du
\drds
\dx
\dy
\dE
\dC
\do
\db
\l
\sv customers
"""
DJANGO = """
SELECT "customers"."id", "customers"."email", "customers"."city", COUNT("orders"."id") AS "n" FROM "customers"
 LEFT OUTER JOIN "orders" ON ("customers"."id" = "orders"."customer") GROUP BY "customers"."id" ORDER BY "n" DESC;
SELECT "public"."customers"."id", "public"."customers"."email" FROM "public"."customers" LIMIT 21;
DECLARE "_django_curs_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "customers"."id" FROM "customers";
SELECT 1 AS "a" FROM "customers" LIMIT 1;
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
 obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c
 LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
 AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
 AND pg_catalog.pg_table_is_visible(c.oid)
"""
DBEAVER = """
SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d
 ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname;
SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr
 FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0
 WHERE c.relnamespace = 'public'::regnamespace;
SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value, dsc.description
 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON a.attrelid = c.oid
 LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
 LEFT OUTER JOIN pg_catalog.pg_description dsc ON c.oid = dsc.objoid
 WHERE NOT a.attisdropped AND c.oid = 'public.customers'::regclass ORDER BY a.attnum;
SELECT pg_catalog.pg_get_viewdef('views_public.customers'::regclass, true);
SELECT x.oid, x.* FROM (SELECT * FROM pg_catalog.pg_constraint) AS x WHERE x.conrelid = 'public.customers'::regclass;
SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
 WHERE table_schema = 'views_public';
SELECT x.* FROM public.customers x WHERE 1 = 1 LIMIT 200;
SELECT count(*) FROM public.customers
"""


def shown(dsn: str) -> tuple[str, str]:
    """Give what psql prints for its own commands, and its errors."""
    done = subprocess.run(["psql", "-X", dsn], input=COMMANDS, capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr


def test_what_tools_ask_of_catalogues_and_tables(asking: Asking) -> None:
    """Psql shows the same as past the gateway; what Django and DBeaver send runs, and addresses come as tokens."""
    past = shown(make_conninfo(asking.dsn, user=ROLE))
    assert "views_public" in past[0]
    assert shown(asking.gateway.dsn(user=ROLE, password=PASSWORD)) == past
    with asking.connect() as connection:
        for script in (DJANGO, DBEAVER):
            for query in script.split(";\n"):
                cursor = connection.execute(query.encode())
                rows = cursor.fetchall() if cursor.description else []
                assert "@x.example" not in str(rows)


class Base(DeclarativeBase):
    """Of the tables below."""

    metadata = MetaData(schema="public")


class Customer(Base):
    """A customer."""

    __tablename__ = "customers"
    id = Column(Integer, primary_key=True)
    email = Column(Text)
    city = Column(Text)
    orders = relationship("Order", back_populates="buyer")


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)
    customer = Column(Integer, ForeignKey(Customer.id))
    amount = Column(Numeric)
    buyer = relationship(Customer, back_populates="orders")


def test_sqlalchemy(asking: Asking) -> None:
    """Its models name tables with their schema; joins, groups, eager loading and reflection work."""
    port, database = asking.gateway.port, asking.gateway.database
    engine = create_engine(f"postgresql+psycopg://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{database}?sslmode=disable")
    with Session(engine) as session:
        first = session.get(Customer, 1)
        assert first is not None
        assert str(first.email).startswith("tok_")
        assert sorted(order.amount for order in first.orders) == [10, 20]
        counted = select(Customer.id, Customer.email, func.count(Order.id)).join(Order).group_by(Customer.id)
        assert sorted(row[2] for row in session.execute(counted)) == [1, 2]
        assert session.scalars(select(Customer.id).where(Customer.email == first.email)).all() == [1]
        assert session.execute(select(func.count()).select_from(Order)).scalar() == 3
    found = inspect(engine)
    assert {"customers", "orders"} <= set(found.get_view_names("views_public"))
    assert [column["name"] for column in found.get_columns("customers", "public")] == ["id", "email", "city"]
    assert found.get_pk_constraint("orders", "public")["constrained_columns"] == ["id"]
    MetaData().reflect(engine, schema="public")
    engine.dispose()
