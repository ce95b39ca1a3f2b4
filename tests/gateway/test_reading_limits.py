"""What a statement answers is cut where it is too much, and never what comes behind it; how often is limited, too."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from collectors.gateway.judging.rates import WHO_MAX, Rates
from collectors.gateway.session.metering import Meter
from collectors.gateway.wire import frontend
from collectors.gateway.wire.frames import frame
from detectors.gatekeeper import Rate, Verdict
from detectors.policy.files import parse
from pgwitness.core.errors import ConfigurationError
from tests.gateway.conftest import Running, running
from tests.gateway.test_refusals import rules

POLICY = """
id: {id}
title: {id}
description: Agents read little at a time.
severity: high
kinds: [statement]
when: >-
  relations.exists(r, r.endsWith("{table}"))
effect: limit
{limit}
message: "{{who}} {{done:read|read}} {{what}}"
hint: Ask for less.
runbook: Ask.
tests:
  - {{name: a, match: true, action: {{asked: true, relations: [public.{table}]}}}}
  - {{name: b, match: false, action: {{asked: true, relations: [public.other]}}}}
"""


def policy(table: str, limit: str) -> str:
    """A limit on what names a table."""
    return POLICY.format(id=f"few_{table}", table=table, limit=limit)


@pytest.fixture
def limited(tmp_path: Path, database18: str) -> Iterator[Running]:
    """Tables of which ten rows, 10 kB, half a second, or five statements an hour may be read; and a free one."""
    texts = [
        policy("rows", "max_rows: 10"),
        policy("bytes", "max_bytes: 10KB"),
        policy("slow", "max_duration: 500ms"),
        policy("often", "max_rate: 5/1h"),
    ]
    with running(tmp_path, database18, rules=rules(*texts)) as one:
        with psycopg.connect(database18, autocommit=True) as admin:
            for table in ("t_rows", "t_bytes", "t_slow", "t_often", "free"):
                admin.execute(
                    f"CREATE TABLE {table} AS SELECT n AS id, repeat('x', 100) AS word FROM generate_series(1, 20000) n"
                )
                admin.execute(f"GRANT ALL ON {table} TO {one.role}")
            admin.execute("CREATE TABLE audit_rows (id int)")
            admin.execute(f"GRANT ALL ON audit_rows TO {one.role}")
        yield one


TOO_MANY = [
    "SELECT * FROM t_rows",
    "TABLE t_rows",
    "SELECT * FROM t_rows ORDER BY id DESC",
    "SELECT word FROM t_rows UNION ALL SELECT word FROM t_rows LIMIT 11",
    "WITH a AS (UPDATE t_rows SET word = 'y' WHERE id = 1 RETURNING 1) SELECT free.* FROM free",
    "SELECT a.id FROM t_rows a CROSS JOIN t_rows b",
]


@pytest.mark.parametrize("way", ["simple", "extended", "prepared", "binary"])
def test_rows_are_cut(limited: Running, way: str) -> None:
    """In each flow, alone and in a block; ten rows pass, and no limit holds what is free."""
    factory = psycopg.ClientCursor if way == "simple" else psycopg.Cursor
    more = {"prepare": way == "prepared"} if way != "binary" else {"binary": True}
    with psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=factory) as client:
        for text in TOO_MANY:
            with pytest.raises(errors.InsufficientPrivilege, match="it answers more than 10 rows"):
                client.execute(text, **more)  # type: ignore[call-overload]
            assert client.execute("SELECT 7").fetchone() == (7,)
            client.execute("BEGIN")
            with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
                client.execute(text, **more)  # type: ignore[call-overload]
            with pytest.raises(errors.InFailedSqlTransaction):
                client.execute("SELECT 1")
            client.execute("ROLLBACK")
        for n in (0, 1, 9, 10):
            found = client.execute(f"SELECT id FROM t_rows WHERE id <= {n}", **more)  # type: ignore[call-overload]
            assert (len(found.fetchall()), found.statusmessage) == (n, f"SELECT {n}")
        assert len(client.execute("SELECT * FROM free", **more).fetchall()) == 20_000  # type: ignore[call-overload]
        with pytest.raises(errors.UndefinedColumn):
            client.execute("SELECT absent FROM t_rows")
        with pytest.raises(errors.DivisionByZero):
            client.execute("SELECT 1 / (id - 3) FROM t_rows WHERE id < 5 ORDER BY id")
    cut = [(begun.said.statement, ended.rows) for begun, ended in limited.statements() if ended.outcome == "denied"]
    assert len(cut) == 2 * len(TOO_MANY)
    assert {rows for _, rows in cut} == {10}


def test_copies_and_cursors_are_cut(limited: Running) -> None:
    """A COPY in text and in binary, a cursor by small steps and by one, a portal with a row limit."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        for form in ("", " (FORMAT binary)"):
            with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
                _copied(client, f"COPY t_rows TO STDOUT{form}")
            with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
                _copied(client, f"COPY (SELECT * FROM t_rows) TO STDOUT{form}")
            assert _copied(client, f"COPY (SELECT * FROM t_rows WHERE id <= 10) TO STDOUT{form}") > 0
        with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
            _fetched(client, "DECLARE c CURSOR FOR SELECT id FROM t_rows", "FETCH 4 FROM c", 3)
        with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
            _fetched(client, "DECLARE d CURSOR FOR SELECT id FROM t_rows", "FETCH ALL FROM d", 1)
        assert _fetched(client, "DECLARE c CURSOR FOR SELECT id FROM t_rows", "FETCH 5 FROM c", 2) == 10
        assert client.execute("SELECT 7").fetchone() == (7,)


def _fetched(client: psycopg.Connection, declared: str, fetch: str, times: int) -> int:
    with client.transaction():
        client.execute(declared)  # type: ignore[call-overload]
        return sum(len(client.execute(fetch).fetchall()) for _ in range(times))  # type: ignore[call-overload]


def _copied(client: psycopg.Connection, text: str) -> int:
    with client.cursor().copy(text) as copy:  # type: ignore[arg-type]
        return sum(len(part) for part in copy)


def test_bytes_and_time_are_limited(limited: Running) -> None:
    """Each cuts what runs, and the session goes on; what is within them is as without."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        with pytest.raises(errors.InsufficientPrivilege, match="it answers more than 10,000 bytes"):
            client.execute("SELECT * FROM t_bytes")
        with pytest.raises(errors.InsufficientPrivilege, match="few_bytes"):
            client.execute("SELECT repeat('y', 20000) FROM t_bytes LIMIT 1")
        assert len(client.execute("SELECT * FROM t_bytes LIMIT 50").fetchall()) == 50
        for _ in range(2):
            with pytest.raises(errors.InsufficientPrivilege, match=r"it runs for more than 0[.]5 s"):
                client.execute("SELECT pg_sleep(60) FROM t_slow LIMIT 1")
            assert client.execute("SELECT count(*) FROM t_slow").fetchone() == (20_000,)
        with pytest.raises(errors.InsufficientPrivilege, match="few_slow"):
            client.execute("UPDATE t_slow SET word = pg_sleep(60)::text WHERE id = 1")


def test_what_runs_behind_is_never_hit(limited: Running) -> None:
    """Forty reads that are cut, each with a statement at once behind it, in pipelines and without."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        for n in range(20):
            with pytest.raises(errors.InsufficientPrivilege):
                client.execute("SELECT * FROM t_rows" if n % 2 else "SELECT * FROM t_bytes")
            assert client.execute("SELECT count(*), %s FROM free", [n]).fetchone() == (20_000, n)
        for n in range(20):
            answers = _piped(client, "SELECT * FROM t_rows", f"SELECT count(*), {n} FROM free")
            assert answers == ["42501", ("20000", str(n))]


def test_a_pipeline_of_a_hundred_waits_for_the_one_that_is_cut(limited: Running) -> None:
    """Each of them has its own answer, in its place, whatever is cut in the middle."""
    texts = [f"SELECT count(*), {n} FROM free WHERE id < 10" for n in range(100)]
    texts[50] = "SELECT * FROM t_bytes"
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        expected = [("9", str(n)) for n in range(100)]
        assert _piped(client, *texts) == [*expected[:50], "42501", *expected[51:]]
        assert client.execute("SELECT 7").fetchone() == (7,)


def _piped(client: psycopg.Connection, *texts: str) -> list[object]:
    """Send all, each with its own Sync, then read: the first row of each answer, or its SQLSTATE."""
    raw = client.pgconn
    raw.enter_pipeline_mode()
    for text in texts:
        raw.send_query_params(text.encode(), None)
        raw.pipeline_sync()
    found: list[object] = []
    for _ in texts:
        result = _result(raw)
        assert result is not None
        state = result.error_field(DiagnosticField.SQLSTATE)
        row = tuple(value.decode() for at in range(result.nfields) if (value := result.get_value(0, at)) is not None)
        found.append(state.decode() if state is not None else row)
        assert _result(raw) is None
        ended = _result(raw)
        assert ended is not None
        assert ended.status == ExecStatus.PIPELINE_SYNC
    raw.exit_pipeline_mode()
    return found


def _result(raw: PGconn) -> PGresult | None:
    """Wait for the next result; the gateway runs in this process, which a wait in libpq would stop."""
    while raw.is_busy():
        assert select.select([raw.socket], [], [], 60.0)[0]
        raw.consume_input()
    return raw.get_result()


def test_a_cut_in_a_pipeline_takes_the_rest_along(limited: Running) -> None:
    """Up to the next Sync nothing behind it runs, and what stood before it is undone, as after any error."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        with pytest.raises(errors.InsufficientPrivilege):
            _in_pipeline(
                client, "DELETE FROM free WHERE id = 1", "SELECT * FROM t_rows", "DELETE FROM free WHERE id = 2"
            )
        assert client.execute("SELECT count(*) FROM free").fetchone() == (20_000,)


def _in_pipeline(client: psycopg.Connection, *texts: str) -> None:
    with client.pipeline():
        for text in texts:
            client.execute(text)  # type: ignore[call-overload]


def test_several_statements_in_one_string_are_refused(limited: Running) -> None:
    """Which of them answered what would not be known; none of them runs."""
    with psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor) as client:
        with pytest.raises(errors.InsufficientPrivilege, match="sent alone"):
            client.execute("DELETE FROM free WHERE id = 1; SELECT * FROM t_rows LIMIT 1")
        assert client.execute("SELECT count(*) FROM free").fetchone() == (20_000,)


def test_rates(limited: Running) -> None:
    """Five pass, the sixth is told when the next may come, in another session and flow as well."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        for n in range(5):
            client.execute("SELECT * FROM t_often WHERE id = %s", [n], prepare=bool(n % 2))
        with pytest.raises(
            errors.InsufficientPrivilege, match=r"5 in 3600 s is the most by few_often, and the next may come in \d+ s"
        ):
            client.execute("SELECT * FROM t_often WHERE id = 1")
        assert client.execute("SELECT count(*) FROM free").fetchone() == (20_000,)
    simple = psycopg.connect(limited.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor)
    with simple, pytest.raises(errors.InsufficientPrivilege, match="refused by the limit of policy few_often"):
        simple.execute("SELECT * FROM t_often WHERE id = 1")
    told = [begun.verdict.effect for begun, _ in limited.statements(2) if begun.verdict is not None]
    assert told == ["limit"] * 5 + ["deny"] * 2


def test_inserts_and_truncate_are_counted(limited: Running) -> None:
    """INSERT, COPY and SELECT INTO functions by their rows; TRUNCATE, which counts none, is refused."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        with pytest.raises(errors.InsufficientPrivilege, match="it changed 11 rows, and 10 is the most"):
            client.execute("INSERT INTO t_rows SELECT n FROM generate_series(1, 11) n")
        client.execute("INSERT INTO t_rows SELECT n FROM generate_series(1, 10) n")
        with pytest.raises(errors.InsufficientPrivilege, match="it changed 11 rows"):
            _copy_in(client, 11)
        _copy_in(client, 10)
        with pytest.raises(errors.InsufficientPrivilege, match="few_rows"):
            client.execute("TRUNCATE t_rows")
        assert client.execute("SELECT count(*) FROM t_rows").fetchone() == (20_020,)


def _copy_in(client: psycopg.Connection, rows: int) -> None:
    with client.cursor().copy("COPY t_rows (id) FROM STDIN") as copy:
        for n in range(rows):
            copy.write_row((n,))


def test_a_client_that_goes_in_the_midst_is_no_harm(limited: Running) -> None:
    """One that reads nothing, and one that leaves, while their read is cut: others go on, and both end."""
    gone = psycopg.connect(limited.dsn(), autocommit=True)
    thread = threading.Thread(target=_ignored, args=(gone,))
    thread.start()
    gone.pgconn.socket  # noqa: B018 - its connection is there
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        assert client.execute("SELECT 7").fetchone() == (7,)
        with closing(socket.fromfd(gone.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM)) as raw:
            raw.shutdown(socket.SHUT_RDWR)
        thread.join(20.0)
        assert not thread.is_alive()
        gone.close()
        assert client.execute("SELECT 8").fetchone() == (8,)


def _ignored(client: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error):
        client.execute("SELECT pg_sleep(60) FROM t_slow LIMIT 1")


def test_no_small_steps_lead_round_it(limited: Running) -> None:
    """A cursor counts on behind savepoints and a DECLARE that failed; closed and declared anew it begins anew."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        client.execute("BEGIN")
        client.execute("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t_rows ORDER BY id LIMIT 40")
        assert len(client.execute("FETCH 6 FROM c").fetchall()) == 6
        client.execute("SAVEPOINT s")
        with pytest.raises(errors.DuplicateCursor):
            client.execute("DECLARE c CURSOR FOR SELECT id FROM t_rows")
        client.execute("ROLLBACK TO s")
        with pytest.raises(errors.InsufficientPrivilege, match="more than 10 rows"):
            client.execute("FETCH 6 FROM c")
        with pytest.raises(errors.InFailedSqlTransaction):
            client.execute("SELECT 1")
        client.execute("ROLLBACK TO s")
        client.execute("COMMIT")
        with pytest.raises(errors.InsufficientPrivilege):
            client.execute("FETCH 1 FROM c")
        client.execute("CLOSE c")
        with client.transaction():
            client.execute("DECLARE c CURSOR FOR SELECT id FROM t_rows ORDER BY id")
            assert client.execute("FETCH 10 FROM c").fetchall()[-1] == (10,)
        client.execute("PREPARE q AS SELECT * FROM t_rows")
        for text in ("EXECUTE q", "SELECT generate_series(1, 100) FROM t_rows WHERE id = 1"):
            with pytest.raises(errors.InsufficientPrivilege, match="more than 10 rows"):
                client.execute(text)
        with pytest.raises(errors.InsufficientPrivilege, match="bytes"):
            client.execute("SELECT repeat('y', 50000000) FROM t_bytes LIMIT 1")
        assert client.execute("SELECT 7").fetchone() == (7,)
    told = {ended.error for begun, ended in limited.statements() if ended.outcome == "denied"}
    assert told == {"cut: it answers more than 10 rows", "cut: it answers more than 10,000 bytes"}


def test_a_portal_counts_on_where_it_was_suspended(limited: Running) -> None:
    """Steps of four rows, in one pipeline: the third is cut in its midst, and what is behind it is passed over."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        told = _by_hand(
            client,
            frontend.parse_of(b"", b"SELECT id FROM t_rows"),
            frame(b"B", b"p\0\0" + b"\0\0" * 3),
            *[frame(b"E", b"p\0" + (4).to_bytes(4, "big"))] * 4,
            frame(b"S"),
        )
        assert told == "12DDDDsDDDDsDDEZ"
        told = _by_hand(
            client,
            frontend.parse_of(b"", b"SELECT id FROM t_rows WHERE id < 9"),
            frame(b"B", b"p\0\0" + b"\0\0" * 3),
            *[frame(b"E", b"p\0" + (4).to_bytes(4, "big"))] * 3,
            frame(b"S"),
        )
        assert told == "12DDDDsDDDDsCZ"
        copied = frame(b"d", b"1\n")
        told = _by_hand(
            client,
            frontend.parse_of(b"", b"COPY t_rows (id) FROM STDIN"),
            frame(b"B", b"\0\0" + b"\0\0" * 3),
            frontend.execute_of(b""),
            frame(b"S"),
            copied * 11 + frame(b"c") + frame(b"S"),
        )
        assert told == "12GEZ"
        assert client.execute("SELECT count(*) FROM t_rows").fetchone() == (20_000,)


def _by_hand(client: psycopg.Connection, *messages: bytes) -> str:
    """Send messages past libpq; return the types of what is answered, up to ReadyForQuery."""
    with socket.fromfd(client.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as raw:
        raw.setblocking(True)
        raw.settimeout(60.0)
        raw.sendall(b"".join(messages))
        types, held = "", b""
        while not types.endswith("Z"):
            held += raw.recv(65536)
            while len(held) >= 5 and len(held) > (size := int.from_bytes(held[1:5], "big")):
                types, held = types + chr(held[0]), held[size + 1 :]
        raw.setblocking(False)
    return types


def test_its_clients_own_cancel_and_the_cut_do_not_meet_behind(limited: Running) -> None:
    """Both at once, again and again: one of them ends the read, and the next statement is never hit."""
    with psycopg.connect(limited.dsn(), autocommit=True) as client:
        for n in range(15):
            both = threading.Thread(target=client.cancel_safe)
            both.start()
            with pytest.raises((errors.InsufficientPrivilege, errors.QueryCanceled)):
                client.execute("SELECT a.id FROM t_rows a CROSS JOIN t_rows b")
            both.join()
            assert client.execute("SELECT count(*), %s FROM free", [n]).fetchone() == (20_000, n)


def test_a_server_that_ends_in_the_midst_ends_that_session_alone(limited: Running, database18: str) -> None:
    """What waited behind the read is told of to nobody, and did not run."""
    with psycopg.connect(limited.dsn(), autocommit=True) as other, psycopg.connect(limited.dsn()) as client:
        pid = client.execute("SELECT pg_backend_pid()").fetchone()
        client.rollback()
        ends = threading.Timer(0.1, _terminated, (database18, pid))
        ends.start()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT pg_sleep(60) FROM t_rows LIMIT 1")
        ends.join()
        assert client.closed
        assert other.execute("SELECT 7").fetchone() == (7,)


def _terminated(dsn: str, pid: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", pid)  # type: ignore[arg-type]


def test_the_meter_cuts_at_a_rows_beginning_however_the_stream_is_cut() -> None:
    """Fed byte by byte behind headers, or whole: the same rows pass, what is no row passes too."""
    row, notice = frame(b"D", b"\0\1" + b"v" * 30), frame(b"N", b"note\0")
    stream = row * 3 + notice + row * 2 + notice

    def fed(size: int) -> bytes:
        meter = Meter(Verdict("limit", ["p"], "", "", "", "", answered=2), False)
        passed, at = b"", 0
        while at < len(stream):
            end = max(at + size, at + 5)
            while any(start < end < start + 5 for start in (0, 37, 74, 111, 121, 158, 195)):
                end += 1  # a header comes whole
            passed += meter.take(stream[at:end])
            at = end
        assert meter.rows == 2
        return passed

    assert {fed(size) for size in (5, 6, 7, 13, 36, 37, 38, 100, 1000)} == {row * 2 + notice * 2}


def test_rates_forget_what_is_long_ago_and_are_bounded() -> None:
    """A window slides; of very many principals the one that ran nothing for longest is forgotten."""
    rates, verdict = Rates(), Verdict("limit", ["p"], "m", "", "", "", rates=(Rate("p", 2, 10.0),))
    at = [rates.admitted(verdict, ("ada",), second * 1_000_000).effect for second in (0, 5, 9, 10, 11, 15)]
    assert at == ["limit", "limit", "deny", "limit", "deny", "limit"]
    assert rates.admitted(verdict, ("bob",), 11_000_000) is verdict
    for n in range(WHO_MAX + 10):
        rates.admitted(verdict, (str(n),), 12_000_000)
    assert len(rates._times) == WHO_MAX


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("title: x", "go with effect: limit"),
        ("max_rows: -1", "max_rows: zero or more"),
        ("max_bytes: many", "max_bytes: expected a number"),
        ("max_duration: 0s", "max_duration: greater than zero"),
        ("max_rate: five", "max_rate: a number up to"),
        ("max_rate: 5/soon", "max_rate: expected a number"),
        ("max_rate: 99999/1m", "max_rate: a number up to"),
    ],
)
def test_limits_that_mean_nothing_are_refused(limit: str, said: str) -> None:
    """With what they take."""
    text = policy("t", limit) if limit != "title: x" else policy("t", "").replace("\n\n", "\n")
    with pytest.raises(ConfigurationError, match=said):
        list(parse(text, "test"))
