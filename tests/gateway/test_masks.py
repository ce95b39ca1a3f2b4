"""An audience asks through the gateway as it would ask the tables; what is not rewritten is an error of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from collectors.gateway.auth.rolefile import Roles
from collectors.gateway.judging.judge import Person, Rules
from collectors.gateway.masking.audiences import Audiences, Who
from collectors.gateway.masking.source import read
from collectors.gateway.spool.records import Opened
from collectors.masking import install
from collectors.masking.install import Masks
from detectors.gatekeeper import Gatekeeper
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.config import Audience, AudienceColumn, Privacy
from pgwitness.core.config.gateway import AudienceMatch
from tests.gateway.conftest import Running, running
from tests.gateway.test_reading_limits import policy as limiting

ROLE = "masked_at_gateway"
PASSWORD = "pw"
SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, email text, city text);
INSERT INTO customers SELECT n, 'ann' || n || '@x.example', 'Ulm' FROM generate_series(1, 3) AS n;
CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric);
INSERT INTO orders VALUES (1, 1, 10), (2, 1, 20), (3, 2, 5);
"""


def masks(**more: Any) -> Masks:
    """Give an audience that sees all but addresses."""
    columns = [AudienceColumn(column="*.email", as_="token"), AudienceColumn(column="*", as_="clear")]
    audience = Audience(role=ROLE, columns=columns, prefix="views_", **more)
    return Masks(audiences={"analysts": audience}, privacy=Privacy(), key=bytes(range(32)))


class Asking:
    """An audience's session through a gateway, and what it is answered."""

    def __init__(self, gateway: Running, dsn: str) -> None:
        self.gateway, self.dsn = gateway, dsn

    def connect(self, **more: Any) -> psycopg.Connection[Any]:
        """Log in through the gateway."""
        return psycopg.connect(self.gateway.dsn(user=ROLE, password=PASSWORD), autocommit=True, **more)

    def admin(self, statement: str) -> None:
        """Run something as the superuser, past the gateway."""
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(statement.encode())

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask through the gateway."""
        with self.connect() as connection:
            return connection.execute(query.encode(), parameters or None).fetchall()


@pytest.fixture
def asking(tmp_path: Path, database18: str) -> Iterator[Asking]:
    """A gateway in front of a database with masks, on PostgreSQL 18."""
    with gateway_of(tmp_path, database18, masks()) as one:
        yield one


@contextmanager
def gateway_of(
    folder: Path, dsn: str, wanted: Masks, *, roles: str = f'"{ROLE}" "{PASSWORD}"', policy: str = ""
) -> Iterator[Asking]:
    """Run a gateway in front of a database that masks are installed in; a policy decides, if there is one."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SCHEMA.encode())
    with psycopg.connect(dsn) as connection:
        report = install.install(connection, wanted)
    assert not report.left
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'".encode())
    audiences = Audiences(dict(wanted.audiences), lambda _: psycopg.connect(dsn, autocommit=True))
    passwords = folder / "roles"
    passwords.touch(mode=0o600)
    passwords.write_text(roles)

    def name(opened: Opened, _application: str) -> Person:
        return Person(principal=opened.user or opened.role, kind="human", peer_group="analysts")

    rules = Rules(Gatekeeper(Bundle(list(parse(policy, "test")) if policy else []), Sensitive([])), name)
    with running(folder, dsn, audiences=audiences, rules=rules, roles=Roles(passwords)) as gateway:
        yield Asking(gateway, dsn)


def test_what_is_masked_is_limited(tmp_path: Path, database18: str) -> None:
    """Both in one statement, in each flow: what passes is masked, what is beyond the limit is cut."""
    with gateway_of(tmp_path, database18, masks(), policy=limiting("customers", "max_rows: 2")) as asking:
        for factory in (psycopg.Cursor, psycopg.ClientCursor):
            with asking.connect(cursor_factory=factory) as connection:
                found = connection.execute("SELECT email FROM customers WHERE id < 3").fetchall()
                assert [row[0][:4] for row in found] == ["tok_", "tok_"]
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="more than 2 rows"):
                    connection.execute("SELECT email FROM customers")
                assert connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)


def test_names_mean_views(tmp_path: Path, database: str) -> None:
    """With a schema or without, prepared, copied, grouped: what comes is masked, and the evidence has what was sent."""
    with gateway_of(tmp_path, database, masks()) as asking:
        with asking.connect() as connection:
            (plain,) = connection.execute("SELECT email FROM customers WHERE id = 1").fetchall()
            assert plain[0].startswith("tok_")
            for query in (
                "SELECT public.customers.email FROM public.customers WHERE public.customers.id = 1",
                "SELECT 1; SELECT email FROM (TABLE public.customers) AS c WHERE id = 1",
                "WITH customers AS (SELECT 1) SELECT c.email FROM customers, public.customers AS c WHERE id = 1",
                "SELECT email FROM public.customers AS c JOIN public.orders AS o ON o.customer = c.id WHERE c.id = 1"
                " GROUP BY c.id",
            ):
                cursor = connection.execute(query.encode())
                while cursor.nextset():
                    pass
                assert cursor.fetchall() == [plain], query
            prepared = "SELECT email FROM public.customers WHERE id = %s"
            assert connection.execute(prepared, [1], prepare=True, binary=True).fetchall() == [plain]
            with connection.cursor().copy("COPY public.customers (email) TO STDOUT") as copy:
                assert b"".join(map(bytes, copy)).split(b"\n")[0].decode() == plain[0]
        said = [begun.said.statement for begun, _ in asking.gateway.statements()]
    assert "COPY public.customers (email) TO STDOUT" in said
    assert not any(text and "views_public" in text for text in said)


def test_an_error_tells_its_place_in_what_was_sent(asking: Asking) -> None:
    """Also behind what was rewritten, and in an extended query."""
    query = "SELECT public.customers.id, 'ü', nothing FROM public.customers WHERE id = %s"
    with asking.connect() as connection:
        for parameters in (None, [1]):
            with pytest.raises(psycopg.errors.UndefinedColumn) as error:
                connection.execute(query.replace("%s", "1") if parameters is None else query, parameters)
            place = int(error.value.diag.statement_position or 0)
            assert query[place - 1 :].startswith("nothing")


def test_without_rewriting_a_name_is_an_error_and_no_leak(tmp_path: Path, database18: str) -> None:
    """The views' own names work; those of the tables are refused by the server."""
    with gateway_of(tmp_path, database18, masks(rewrite=False)) as asking:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asking.ask("SELECT email FROM public.customers")
        assert asking.ask("SELECT email FROM customers")[0][0].startswith("tok_")


def test_what_may_be_written_is_written(asking: Asking) -> None:
    """To the table where its masked column is assigned, or where only it can be written; through the view else."""
    asking.admin(f"GRANT UPDATE (email), INSERT ON customers TO {ROLE}")
    asking.admin(f"GRANT UPDATE (amount) ON views_public.orders TO {ROLE}")
    asking.admin("GRANT UPDATE (amount) ON orders TO pgwitness_masks")
    with asking.connect() as connection:
        assert connection.execute("UPDATE public.customers SET email = 'new@x.example'").rowcount == 3
        assert connection.execute("UPDATE public.orders SET amount = 7 WHERE id = 3").rowcount == 1
        connection.execute("INSERT INTO public.customers VALUES (4, 'd@x.example', 'Bonn')")
    with psycopg.connect(asking.dsn) as admin:
        assert admin.execute("SELECT amount FROM orders WHERE id = 3").fetchall() == [(7,)]
        assert admin.execute("SELECT count(*) FROM customers WHERE email = 'new@x.example'").fetchall() == [(3,)]


def test_a_view_that_is_new_is_known_when_it_was_looked_for(asking: Asking) -> None:
    """Until then its table's full name is an error of the server; sessions that are open take it up."""
    with asking.connect() as connection:
        connection.execute("SELECT 1 FROM public.customers")
        asking.admin("CREATE TABLE later (id int)")
        with psycopg.connect(asking.dsn) as admin:
            install.install(admin, masks())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM public.later")
        audiences = asking.gateway.house.audiences
        assert audiences is not None
        asking.gateway.house.take_views({place: audiences.look(place) for place in list(audiences.known)})
        assert connection.execute("SELECT * FROM public.later").fetchall() == []


def test_the_views_are_read_by_a_role_without_rights_on_them(asking: Asking) -> None:
    """The collectors have none on the schema of the key, nor on the views, and read what they show all the same."""
    with psycopg.connect(asking.dsn, autocommit=True) as admin:
        known = read(admin, ROLE)
        assert known.relations
        admin.execute("DROP ROLE IF EXISTS reads_catalogues")
        admin.execute("CREATE ROLE reads_catalogues")
        admin.execute("SET ROLE reads_catalogues")
        assert read(admin, ROLE) == known
        admin.execute("RESET ROLE")
        admin.execute("DROP ROLE reads_catalogues")


def test_who_is_of_an_audience_is_logged_in_as_its_role(tmp_path: Path, database18: str) -> None:
    """By what identities say of who has proven to be a role of their own; the evidence has both."""
    match = AudienceMatch(peer_group=["analysts", "support"], kind=["human"], principal="client_*")
    with gateway_of(tmp_path, database18, masks(match=match)) as asking:
        with psycopg.connect(asking.gateway.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT session_user, current_user").fetchall() == [(ROLE, ROLE)]
            connection.execute("SELECT pg_catalog.set_config('role', 'none', false)")
            (value,) = connection.execute("SELECT email FROM public.customers").fetchall()[0]
        assert value.startswith("tok_")
        assert [(one.role, one.user) for one in asking.gateway.opened()] == [(ROLE, asking.gateway.role)]


def test_an_audience_whose_password_is_not_there_is_refused(tmp_path: Path, database18: str) -> None:
    """Nobody of it is let in as who he is; others are."""
    match = AudienceMatch(peer_group="analysts")
    with gateway_of(tmp_path, database18, masks(match=match), roles="") as asking:
        with pytest.raises(psycopg.OperationalError, match=f'no password of role "{ROLE}"'):
            psycopg.connect(asking.gateway.dsn())
        assert [one.sqlstate for one in asking.gateway.opened()] == ["28000"]


def test_an_audience_fits_by_all_that_is_given() -> None:
    """Of several the first; who has no name fits no glob but `*`."""
    support = Audience(match=AudienceMatch(principal=["ann", "b*"], kind=["human"]))
    others = Audience(match=AudienceMatch(kind=["agent", "unknown"]), databases=["shop"], prefix="other_")
    audiences = Audiences({"support": support, "others": others}, lambda _: pytest.fail("nothing is read"))
    assert audiences.role_for(Who("bob", "human", None), "shop") == "support"
    assert audiences.role_for(Who("carl", "human", None), "shop") is None
    assert audiences.role_for(Who("ann", "agent", None), "shop") == "others"
    assert audiences.role_for(Who(None, "unknown", None), "shop") == "others"
    assert audiences.role_for(Who(None, "unknown", None), "other") is None
    with pytest.raises(ValueError, match="match is empty"):
        AudienceMatch()


def test_what_a_view_cannot_do_is_said_in_a_sentence(asking: Asking) -> None:
    """The server's own error stands, with its code; why it comes is its detail or hint."""
    asking.admin("CREATE FUNCTION label(customers) RETURNS text LANGUAGE sql AS $$ SELECT $1.city $$")
    asking.admin(f"GRANT INSERT, UPDATE, DELETE ON customers TO {ROLE}")
    asking.admin(
        f"GRANT UPDATE ON views_public.customers TO {ROLE}; GRANT UPDATE (city) ON customers TO pgwitness_masks"
    )
    said = {
        "SELECT ctid FROM customers": "ctid is of the table's own",
        "SELECT xmin, id FROM public.customers": "xmin is of the table's own",
        "SELECT * FROM customers TABLESAMPLE SYSTEM (50)": "TABLESAMPLE takes a table",
        "SELECT label(c) FROM customers AS c": "rows have a type of their own",
        "SELECT c.label FROM public.customers AS c": "rows have a type of their own",
        "SELECT (c).label FROM public.customers AS c": "rows have a type of their own",
        "SELECT city, email FROM customers GROUP BY city": "have no primary key",
        "INSERT INTO public.customers VALUES (9, 'i@x.example', 'Bonn') RETURNING *": "RETURNING reads columns",
        "INSERT INTO public.customers VALUES (1, 'i@x.example', 'Bonn') ON CONFLICT (id) DO UPDATE"
        " SET email = excluded.email": "ON CONFLICT reads",
        "INSERT INTO customers (id, email) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET email = excluded.email":
            "no view takes a value",
        "UPDATE customers SET email = 'a'": "no view takes a value",
        "DELETE FROM public.customers WHERE city = 'Ulm'": "to read there what WHERE names",
        "TRUNCATE public.customers": "may do nothing else with it",
        "DO $$ BEGIN PERFORM 1 FROM public.customers; END $$": "within a block",
        "DECLARE c CURSOR FOR SELECT * FROM customers; UPDATE customers SET city = 'a' WHERE CURRENT OF c":
            "WHERE CURRENT OF takes a table",
    }  # fmt: skip
    with asking.connect() as connection:
        for query, expected in said.items():
            with pytest.raises(psycopg.Error) as error:
                connection.execute(query.encode())
            diag = error.value.diag
            assert expected in f"{diag.message_detail} {diag.message_hint}", (query, str(error.value))
        connection.execute("SET search_path = public")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="let views_public stand first in search_path"):
            connection.execute("SELECT * FROM customers")


def test_a_comparison_that_would_find_nothing_is_refused(asking: Asking) -> None:
    """And is evidence; the token itself is found."""
    with asking.connect() as connection:
        (token,) = connection.execute("SELECT email FROM customers WHERE id = 1").fetchall()[0]
        query = "SELECT id FROM public.customers WHERE email = '{}'"
        for prepare in (False, True):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is compared with what it never is"):
                connection.execute(query.format("ann1@x.example").encode(), prepare=prepare)
        assert connection.execute(query.format(token).encode()).fetchall() == [(1,)]
        assert connection.execute(query.replace("'{}'", "%s").encode(), [token]).fetchall() == [(1,)]
    ended = [(begun.verdict.policies, end.outcome) for begun, end in asking.gateway.statements() if begun.verdict]
    assert ended == [(["masked"], "denied")] * 2
