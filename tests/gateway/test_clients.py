"""Native clients work through the gateway as they do without it, and every statement of theirs is written down."""

from __future__ import annotations

import subprocess
import threading

import psycopg
import pytest

from tests.gateway.conftest import Running


def test_simple_statements(gateway: Running) -> None:
    """A statement is written down with its rows and without its literals; the session knows itself by its backend."""
    with psycopg.connect(gateway.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        client.execute("CREATE TABLE pay (id int, secret text)")
        client.execute("INSERT INTO pay SELECT n, %s FROM generate_series(1, 5) n", ["hunter2"])
        assert client.execute("SELECT count(*) FROM pay").fetchone() == (5,)
        with pytest.raises(psycopg.errors.UndefinedTable):
            client.execute("SELECT * FROM absent WHERE x = 'hunter2'")
        pid = client.execute("SELECT pg_backend_pid()").fetchone()
        assert pid == (client.info.backend_pid,)
        backend = client.info.backend_pid
    found = gateway.statements()
    assert [(begun.said.statement, ended.outcome, ended.rows, ended.sqlstate) for begun, ended in found] == [
        ("CREATE TABLE pay (id int, secret text)", "success", None, None),
        ("INSERT INTO pay SELECT n, $1 FROM generate_series($2, $3) n", "success", 5, None),
        ("SELECT count(*) FROM pay", "success", 1, None),
        ("SELECT * FROM absent WHERE x = $1", "failure", None, "42P01"),
        ("SELECT pg_backend_pid()", "success", 1, None),
    ]
    (opened,) = gateway.opened()
    assert (opened.role, opened.database, opened.pid) == (gateway.role, gateway.database, backend)
    assert opened.server_port is not None
    spooled = b"".join(path.read_bytes() for path in gateway.spool.folder.iterdir())
    assert b"hunter2" not in spooled


def test_extended_statements(gateway: Running) -> None:
    """Prepared, binary and repeated statements are known by what their names stand for when they run."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        for n in range(8):
            assert client.execute("SELECT %s::int + 1", [n], binary=True, prepare=True).fetchone() == (n + 1,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("SELECT 1 / %s", [0])
    found = gateway.statements()
    assert [begun.said.statement for begun, _ in found] == ["SELECT $1::int + $2"] * 8 + ["SELECT $2 / $1"]
    assert [ended.outcome for _, ended in found] == ["success"] * 8 + ["failure"]


def test_pipelines_and_transactions(gateway: Running) -> None:
    """A pipeline's statements are told apart, those behind an error did not run, and those before it were undone."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        client.execute("CREATE TABLE t (id int PRIMARY KEY)")
        with client.pipeline():
            for n in range(20):
                client.execute("INSERT INTO t VALUES (%s)", [n])
        with pytest.raises(psycopg.errors.UniqueViolation):
            _fail_in_pipeline(client)
        assert client.execute("SELECT count(*) FROM t").fetchone() == (20,)
    found = gateway.statements()[1:]
    assert [ended.outcome for _, ended in found[:20]] == ["success"] * 20
    told = [(begun.said.statement, ended.outcome, ended.ran, ended.sqlstate) for begun, ended in found[20:]]
    insert = "INSERT INTO t VALUES ($1)"
    assert told[:2] == [(insert, "rolled_back", True, None), (insert, "failure", True, "23505")]
    # Sent after the server's error has passed, it is no statement at all: the server reads over it.
    assert [one for one in told[2:] if "DELETE" in str(one[0])] in ([], [(DELETE, "failure", False, None)])


DELETE = "DELETE FROM t WHERE id = $1"


def _fail_in_pipeline(client: psycopg.Connection) -> None:
    with client.pipeline() as pipeline:
        client.execute("INSERT INTO t VALUES (%s)", [100])
        client.execute("INSERT INTO t VALUES (%s)", [1])
        client.execute("DELETE FROM t WHERE id = %s", [1])
        pipeline.sync()


def test_copy_both_ways(gateway: Running) -> None:
    """COPY in and out, with a failure in its midst, leaves the session usable and counted."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        client.execute("CREATE TABLE t (id int, word text)")
        with client.cursor().copy("COPY t FROM STDIN") as copy:
            for n in range(10_000):
                copy.write_row((n, "x" * 100))
        with client.cursor().copy("COPY t TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 10_000
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            _copy_nonsense(client)
        with pytest.raises(RuntimeError), client.cursor().copy("COPY t FROM STDIN"):
            raise RuntimeError
        assert client.execute("SELECT count(*) FROM t").fetchone() == (10_000,)
    found = gateway.statements()
    assert [(ended.outcome, ended.rows) for _, ended in found] == [
        ("success", None), ("success", 10_000), ("success", 10_000), ("failure", None), ("failure", None),
        ("success", 1),
    ]  # fmt: skip


def _copy_nonsense(client: psycopg.Connection) -> None:
    with client.cursor().copy("COPY t FROM STDIN") as copy:
        for _ in range(1_000):
            copy.write(b"none\tx\n")


def test_cursors(gateway: Running) -> None:
    """Cursors of the server are read through the gateway."""
    with psycopg.connect(gateway.dsn()) as client, client.cursor("c") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT generate_series(1, 1000)")
        assert sum(1 for _ in cursor) == 1_000
    assert next(begun.said.statement for begun, _ in gateway.statements()) == "BEGIN"


def test_cancel(gateway: Running) -> None:
    """A cancel at the gateway ends what its session runs, and no other's; a wrong key ends nothing."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        timer = threading.Timer(0.3, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        timer.join()
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert gateway.statements()[0][1].sqlstate == "57014"


def test_psql(gateway: Running) -> None:
    """Psql works, its own queries for backslash commands among them."""
    done = subprocess.run(
        ["psql", "-X", "-A", "-t", gateway.dsn()],
        input="\\d\nSELECT 1;SELECT 2\\;SELECT 3;\n\\copy (SELECT 7) to stdout\n",
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "2", "3", "7"], done.stderr


def test_refused_logins(gateway: Running) -> None:
    """A wrong password and an unknown role are refused alike, and written down; the server's own refusals pass on."""
    for more in ({"password": "wrong"}, {"user": "nobody_at_all"}):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(gateway.dsn(**more))
    with pytest.raises(psycopg.OperationalError, match='database "absent" does not exist'):
        psycopg.connect(gateway.dsn(dbname="absent"))
    with pytest.raises(psycopg.OperationalError, match="replication connections do not go through"):
        psycopg.connect(gateway.dsn(replication="database"))
    assert [one.sqlstate for one in gateway.opened()] == ["28P01", "28P01", "3D000"]
