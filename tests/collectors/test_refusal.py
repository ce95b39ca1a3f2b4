"""What a server answers us stands in our logs in its own words, and what somebody's code raises does not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from collectors.connection import connect, instance_name
from pgwitness.core.config import Cluster
from pgwitness.core.errors import ConfigurationError, Unreachable
from pgwitness.core.messages.refusal import words
from pgwitness.core.runtime import logs

SECRET = "hush0001@x.example"


@pytest.fixture
def connection(database18: str) -> Iterator[psycopg.Connection]:
    """A connection to a database whose functions raise what they like."""
    with psycopg.connect(database18, autocommit=True) as made:
        made.execute(
            "CREATE FUNCTION raises(code text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION"
            f" USING MESSAGE = 'permission denied for table {SECRET}', ERRCODE = code; END$$"
        )
        yield made


@pytest.mark.parametrize("code", ["42501", "P0001", "57P01", "XX000"])
def test_what_code_raises_is_its_code(connection: psycopg.Connection, code: str) -> None:
    """However well it imitates the server."""
    with pytest.raises(psycopg.Error) as refused:
        connection.execute("SELECT raises(%s)", [code])
    assert words(refused.value) == f"it answered with SQLSTATE {code}, in words that are not its own"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 FROM nothing_there", 'relation "nothing_there" does not exist'),
        (f"SELECT '{SECRET}'::int", 'invalid input syntax for type …: "…"'),
        ("SELECT 1/0", "division by zero"),
    ],
)
def test_the_servers_own_words_are_kept(connection: psycopg.Connection, query: str, said: str) -> None:
    """With the names that they give to who must mend it, and without values."""
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(query)  # type: ignore[call-overload]
    assert words(refused.value) == said


def test_a_login_that_is_refused(connection: psycopg.Connection, database18: str) -> None:
    """By the server, in its words; by a login trigger, without them."""
    cluster = Cluster(dsn=database18)
    with pytest.raises(Unreachable, match='role "nobody_there" does not exist'):
        connect(cluster, psycopg.conninfo.make_conninfo(database18, user="nobody_there"))
    connection.execute(
        "CREATE FUNCTION no_login() RETURNS event_trigger LANGUAGE plpgsql AS"
        f" $$BEGIN RAISE EXCEPTION '{SECRET}'; END$$;"
        "CREATE EVENT TRIGGER no_login ON login EXECUTE FUNCTION no_login()"
    )
    try:
        with pytest.raises(Unreachable, match="words that are not its own") as refused:
            connect(cluster)
        assert SECRET not in str(refused.value)
    finally:
        connection.execute("DROP EVENT TRIGGER no_login")


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://u:hunter2%zz@db/x", "host=db password=hunter2 hunter2"])
def test_a_dsn_that_is_none_is_not_quoted(dsn: str) -> None:
    """A password may stand anywhere in it."""
    with pytest.raises(ConfigurationError, match="cannot be read") as refused:
        instance_name(dsn)
    assert "hunter2" not in str(refused.value)


def test_an_unforeseen_exception_says_where_and_not_what() -> None:
    """Its type and its way stand in the log; ours are told in full."""
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise Unreachable("the server is away; start it") from error
    except Unreachable:
        said = str(logs.trace(None, "error", {"event": "unexpected error", "exc_info": True}))
    assert "ValueError" in said
    assert "test_refusal.py" in said
    assert "the server is away; start it" in said
    assert SECRET not in said
