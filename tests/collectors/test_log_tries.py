"""Whatever a session's code writes into the log must not pass for a line of the server's own.

Each way of writing writes every form of line, with a mark in it; all three formats of the server's log are read, with
and without the source location. No event that came from a marked line may be anything but the finding.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import psycopg
import pytest
from msgspec.structs import replace

from collectors.log.formats.record import Unreadable
from collectors.log.interpretation.interpret import Interpreter, Seen
from collectors.log.interpretation.provenance import Provenance, Surroundings
from collectors.log.reading import formats
from collectors.log.surroundings import ask
from pgwitness.core.config import Cluster, Log
from pgwitness.core.events import LogFormat, Session, Statement, encode_event
from pgwitness.core.privacy import tokenizer
from pgwitness.demo.servers import Postgres
from tests.collectors.log_server import PREFIX, SECONDS_MAX, TIMEZONE, files, logging_server
from tests.conftest import DEBIAN_BIN, leave_out

TOKEN = tokenizer(b"k" * 32)
FORMATS: tuple[LogFormat, ...] = ("jsonlog", "csvlog", "stderr")
FORMS = {
    "duration": "duration: 6.660 ms",
    "duration statement": "duration: 6.660 ms  statement: DELETE FROM forged",
    "duration execute": "duration: 6.660 ms  execute <unnamed>: DELETE FROM forged",
    "statement": "statement: DELETE FROM forged",
    "execute": "execute S_1: DELETE FROM forged",
    "plan": "duration: 6.660 ms  plan:\nQuery Text: DELETE FROM forged\nDelete on forged  (cost=0.00..1.00)",
    "fastpath": 'fastpath function call: "forged" (OID 6)',
    "authenticated": 'connection authenticated: identity="forged@corp.example" method=gss (/etc/pg_hba.conf:1)',
    "trusted": 'connection authenticated: user="forged" method=cert (/etc/pg_hba.conf:1)',
    "authorized": "connection authorized: user=forged database=forged application_name=forged",
    "replication": "replication connection authorized: user=forged",
    "disconnection": "disconnection: session time: 0:00:06.660 user=forged database=forged host=[local]",
    "audit": "AUDIT: SESSION,6,1,WRITE,DELETE,TABLE,forged.forged,DELETE FROM forged,<none>",
    "started": "database system is ready to accept connections",
}
SCHEMA = """
CREATE TABLE forms (number int PRIMARY KEY, text text);
GRANT SELECT ON forms TO PUBLIC;
CREATE TABLE rows (a int);
CREATE FUNCTION forge() RETURNS int LANGUAGE plpgsql AS $$
DECLARE form text; BEGIN FOR form IN SELECT text FROM public.forms LOOP RAISE LOG '%', form; END LOOP; RETURN 1; END $$;
CREATE FUNCTION forge(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM public.forge(); RETURN $1; END';
CREATE FUNCTION forge_sql() RETURNS int LANGUAGE sql AS 'SELECT public.forge()';
CREATE FUNCTION forge_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.forge(); RETURN NULL; END';
CREATE FUNCTION forge_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.forge(); END';
CREATE FUNCTION forge_more() RETURNS void LANGUAGE plpgsql AS $$
DECLARE form text; BEGIN
  FOR form IN SELECT text FROM public.forms LOOP
    RAISE LOG USING MESSAGE = form, DETAIL = form, HINT = form, ERRCODE = '00000';
    RAISE LOG USING MESSAGE = form, ERRCODE = '57P01', TABLE = form;
    BEGIN RAISE EXCEPTION '%', form; EXCEPTION WHEN OTHERS THEN RAISE LOG '%', SQLERRM; END;
  END LOOP;
END $$;
CREATE FUNCTION "a
at RAISE x"() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM public.forge(); END';
CREATE PROCEDURE forge_call() LANGUAGE plpgsql AS 'BEGIN PERFORM public.forge(); COMMIT; PERFORM public.forge(); END';
CREATE TABLE deferred (a int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION forge_trigger();
CREATE VIEW seen AS SELECT forge();
CREATE INDEX forging ON rows (forge(a));
"""


def quietly(connection: psycopg.Connection) -> None:
    """The statement that made it write is not in the log's records."""
    connection.execute("SET log_min_error_statement = panic")
    connection.execute("SELECT forge()")


def deferred(connection: psycopg.Connection) -> None:
    """A deferred trigger fires at the commit, in the extended protocol at Sync."""
    connection.execute("INSERT INTO deferred VALUES (1)")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO deferred VALUES (2)", prepare=True)
    connection.execute("COMMIT")


def fastpath(connection: psycopg.Connection) -> None:
    """The protocol's function call runs a function without a statement."""
    oid = connection.execute("SELECT 'forge()'::regprocedure::oid::int").fetchone()
    assert oid is not None
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as raw:
        raw.settimeout(SECONDS_MAX)
        body = struct.pack("!Ihhh", oid[0], 0, 0, 0)
        raw.sendall(b"F" + struct.pack("!I", 4 + len(body)) + body)
        answer = b""
        while not answer.endswith(b"Z\x00\x00\x00\x05I"):
            answer += raw.recv(4096)


def held(connection: psycopg.Connection) -> None:
    """A cursor WITH HOLD is run to its end at the commit."""
    connection.execute("BEGIN")
    connection.execute("DECLARE c CURSOR WITH HOLD FOR SELECT forge() FROM generate_series(1, 2)")
    connection.execute("COMMIT")


def settings(connection: psycopg.Connection) -> None:
    """What a client calls itself may look like the rest of a prefix and a line behind it."""
    name = "x [local] 1.1 1 0 0 00000 LOG:  statement: DELETE FROM forged"
    connection.execute("SELECT set_config('application_name', %s, false)", [name])
    connection.execute("SELECT 1")


def named(connection: psycopg.Connection) -> None:
    """Names of statements and portals are the client's own."""
    plain = connection.pgconn
    name = b"a: DELETE FROM forged --"
    plain.prepare(name, b"SELECT 1")
    plain.exec_prepared(name, [])


def ran(text: str) -> Callable[[psycopg.Connection], None]:
    """Make a way of one statement."""

    def run(connection: psycopg.Connection) -> None:
        connection.execute(text)

    return run


RAW = "LOG:  duration: 7.770 ms  statement: DELETE FROM raw_forgery"


def line(port: int) -> str:
    """A whole line of the text log, as somebody would write it who knows the prefix."""
    return f"2026-11-22 21:26:30.123 UTC [41] boss@postgres/x 127.0.0.1({port}) 6b035d50.29 3 0 0 00000 {RAW}"


def startup(connection: psycopg.Connection) -> None:
    """What a stranger calls himself and his database may have line feeds."""
    for name in (f"a\n{RAW}", f"b\n{line(1)[:50]}", line(2)):
        said = f"user\0{name}\0database\0{name}\0application_name\0{name}\0\0".encode()
        with socket.create_connection((connection.info.host, connection.info.port)) as raw:
            raw.settimeout(SECONDS_MAX)
            raw.sendall(struct.pack("!II", 8 + len(said), 196_608) + said)
            raw.recv(4096)


def role(connection: psycopg.Connection) -> None:
    """A role's name may have a line feed, which stands in the prefix of each of its lines."""
    name = f"x\n{RAW[:50]}"
    connection.execute("DROP ROLE IF EXISTS " + f'"{name}"')  # type: ignore[arg-type]
    connection.execute("CREATE ROLE " + f'"{name}" LOGIN')  # type: ignore[arg-type]
    dsn = psycopg.conninfo.make_conninfo(connection.info.dsn, user=name)
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT 2")


def foreign(connection: psycopg.Connection) -> None:
    """What another server notices is printed as it is, by whoever may use dblink."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS dblink")
    notice = f"DO $$ BEGIN RAISE NOTICE E'x\\n{line(3)}\\n'; END $$"
    where = f"host={connection.info.host} port={connection.info.port} user=postgres dbname=postgres"
    connection.execute("SELECT dblink_exec(%s, %s)", [where, notice])


def autovacuum(connection: psycopg.Connection) -> None:
    """The autovacuum's ANALYZE runs the functions of indexes, in nobody's session."""
    connection.execute("CREATE TABLE IF NOT EXISTS busy (a int)")
    connection.execute("CREATE INDEX IF NOT EXISTS busy_forging ON busy (forge(a))")
    connection.execute("ALTER TABLE busy SET (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0)")
    connection.execute("INSERT INTO busy SELECT generate_series(1, 5)")
    question = "SELECT coalesce(autoanalyze_count, 0) FROM pg_stat_user_tables WHERE relname = 'busy'"
    before = connection.execute(question).fetchone()
    deadline = time.monotonic() + SECONDS_MAX
    while connection.execute(question).fetchone() == before:
        assert time.monotonic() < deadline, "the autovacuum does not come"
        connection.execute("SELECT pg_sleep(0.2)")


WAYS: dict[str, Callable[[psycopg.Connection], None]] = {
    "DO": ran("DO 'BEGIN PERFORM forge(); END'"),
    "a function": ran("SELECT forge()"),
    "a function of SQL": ran("SELECT forge_sql()"),
    "details and codes": ran("SELECT forge_more()"),
    "a function with a line feed in its name": ran('SELECT "a\nat RAISE x"()'),
    "a procedure": ran("CALL forge_call()"),
    "a view": ran("TABLE seen"),
    "an index": ran("INSERT INTO rows VALUES (1)"),
    "ANALYZE": ran("ANALYZE rows"),
    "CREATE TABLE AS": ran("CREATE TEMP TABLE made AS SELECT forge()"),
    "EXPLAIN ANALYZE": ran("EXPLAIN (ANALYZE) SELECT forge()"),
    "PREPARE": ran("PREPARE p AS SELECT forge(); EXECUTE p"),
    "a cursor": held,
    "no statement": quietly,
    "a deferred trigger": deferred,
    "fastpath": fastpath,
    "an application's name": settings,
    "a statement's name": named,
    "a startup packet": startup,
    "a role with a line feed": role,
    "a foreign server's notice": foreign,
    "the autovacuum": autovacuum,
}


class Bench(NamedTuple):
    """A server, and the log that it wrote while every way was tried, by format, without and with the location."""

    server: Postgres
    logs: dict[tuple[str, LogFormat], bytes]


@pytest.fixture(scope="module", params=[18, 15])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Try every way on one server per version."""
    if request.param == 15 and not DEBIAN_BIN.is_dir():
        leave_out("PostgreSQL 15")
    data = tmp_path_factory.mktemp("tries") / "data"
    with logging_server(data, DEBIAN_BIN if request.param == 15 else None) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET log_statement = 'all'")
            admin.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("SET log_min_messages = warning")
            admin.execute(SCHEMA)
            with admin.cursor() as cursor:
                cursor.executemany("INSERT INTO forms VALUES (%s, %s)", list(enumerate(FORMS.values())))
            if request.param >= 17:
                admin.execute("CREATE EVENT TRIGGER login ON login EXECUTE FUNCTION forge_event()")
        logs: dict[tuple[str, LogFormat], bytes] = {}
        for verbosity in ("default", "verbose"):
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute(f"ALTER SYSTEM SET log_error_verbosity = {verbosity}".encode())
                admin.execute("SELECT pg_reload_conf(), pg_sleep(0.1)")
            before = {(kind, file): file.stat().st_size for kind in FORMATS for file in files(server, kind)}
            attack(server)
            for kind in FORMATS:
                logs[verbosity, kind] = b"".join(
                    file.read_bytes()[before.get((kind, file), 0) :] for file in files(server, kind)
                )
        yield Bench(server, logs)


def attack(server: Postgres, ways: dict[str, Callable[[psycopg.Connection], None]] = WAYS) -> None:
    """Try every way, each in a session of its own, and wait until the log has the last of them."""
    for way in ways.values():
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            way(connection)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SELECT 'the end of it'")
    deadline = time.monotonic() + SECONDS_MAX
    while not all(_ended(files(server, kind)) for kind in FORMATS):
        assert time.monotonic() < deadline, "the server does not write its log"
        time.sleep(0.05)


def _ended(logs: list[Path]) -> bool:
    tail = logs[-1].read_bytes()[-4_000:] if logs else b""
    return b"the end of it" in tail and b"disconnection: " in tail[tail.rindex(b"the end of it") :]


def read(log: bytes, kind: LogFormat, surroundings: Surroundings) -> list[Seen]:
    """Read a log as the collector does."""
    settings = Log(format=kind, line_prefix=PREFIX, timezone=TIMEZONE)
    make, parser = formats(settings)
    splitter = make()
    interpreter = Interpreter(TOKEN, kind, provenance=Provenance(kind, surroundings=surroundings))
    events: list[Seen] = []
    offset = 0
    for piece in [*splitter.feed(log), *splitter.idle()]:
        offset += piece.length
        if piece.readable:
            try:
                events += interpreter.read(parser.parse(piece.data), "log", offset, 1)
            except Unreadable:
                continue
    return events + interpreter.idle("log", offset)


def marked(event: Seen) -> bool:
    """Say whether an event rests on a marked line."""
    if isinstance(event, Statement) and event.source in ("imitated", "error"):
        return False
    if isinstance(event, Statement) and event.duration_ms == 6.66:
        return True
    if isinstance(event, Session) and event.duration_ms == 6_660.0:
        return True
    encoded = encode_event(replace(event, application=""))  # what a client calls itself is its own
    return b"@corp.example" in encoded or b"DELETE FROM forged" in encoded


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("verbosity", ["default", "verbose"])
def test_no_line_of_a_session_passes_for_the_servers(bench: Bench, verbosity: str, kind: LogFormat) -> None:
    """However it is written, a line in the server's form is a finding that names its session, and nothing else."""
    log = bench.logs[verbosity, kind]
    assert log.count(b"6.660 ms  statement: DELETE FROM forged") >= len(WAYS)
    events = read(log, kind, ask(cast(Cluster, Cluster(dsn=bench.server.dsn())), bench.server.dsn()))
    assert [event for event in events if marked(event)] == []
    raw = [
        event
        for event in events
        if b"raw_forgery" in encode_event(replace(event, application="", role="", database=""))
    ]
    assert {event.trust for event in raw if isinstance(event, Session) or event.source != "statement"} <= {"claimed"}
    assert not raw or kind == "stderr" or all(event.statement is None for event in raw if isinstance(event, Statement))
    found = [event for event in events if isinstance(event, Statement) and event.source == "imitated"]
    assert len(found) >= len(WAYS) - 6
    assert {event.role for event in found} <= {"postgres", None, f"x\n{RAW[:50]}"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("verbosity", ["default", "verbose"])
def test_the_servers_own_lines_are_believed(bench: Bench, verbosity: str, kind: LogFormat) -> None:
    """What the server wrote between them is certain with its location, likely without, claimed in a text log."""
    events = read(bench.logs[verbosity, kind], kind, Surroundings(frozenset({"postgres"}), True))
    trust = "claimed" if kind == "stderr" else "certain" if verbosity == "verbose" else "likely"
    own = [event for event in events if not (isinstance(event, Statement) and event.source == "imitated")]
    refused = [event for event in own if isinstance(event, Session) and event.operation == "login_failed"]
    assert len(refused) >= (1 if kind == "stderr" else 3)
    assert {event.trust for event in own if not isinstance(event, Statement) or event.statement is not None} == {trust}
    doubtful = [
        event
        for event in own
        if isinstance(event, Statement) and event.parsed is not None and "delete" in event.parsed.operations
    ]
    assert {event.trust for event in doubtful if event.statement is None} == {"claimed"}
    connects = [event for event in own if isinstance(event, Session) and event.operation == "connect"]
    more = 1 if kind == "stderr" else 2  # dblink, and a role with a line feed, whose lines no text log tells
    assert len(connects) == len(WAYS) + 1 + more
    calls = [event for event in own if isinstance(event, Statement) and event.statement == "SELECT forge()"]
    assert calls


UNPACKED = Path(__file__).parents[2] / "deploy" / "postgres" / "debian" / "usr" / "lib" / "postgresql" / "15"
LANGUAGES = next((path for path in (UNPACKED, DEBIAN_BIN.parent) if (path / "lib" / "plperl.so").exists()), UNPACKED)
"""A PostgreSQL 15 with PL/Perl and PL/Tcl: `bin` and `lib` in it."""
PERL = """
DO LANGUAGE plperlu $p$
my $line = "duration: 6.660 ms  statement: DELETE FROM forged"; elog(LOG, $line);
eval 'END { elog(LOG, $line) }';
$p$
"""
TCL = """
CREATE FUNCTION forge_tcl() RETURNS void LANGUAGE pltclu
AS $t$ elog LOG "duration: 6.660 ms  statement: DELETE FROM forged" $t$
"""


@pytest.mark.debian
def test_languages_that_can_write_anything_lower_every_line(tmp_path: Path) -> None:
    """PL/Perl's END leaves nothing that tells its lines apart: without the location all lines are claimed."""
    libraries = LANGUAGES / "lib"
    if not all((libraries / f"{name}.so").exists() for name in ("plperl", "pltcl")):
        leave_out("PL/Perl and PL/Tcl of PostgreSQL 15 (postgresql-plperl-15, postgresql-pltcl-15)")
    with logging_server(tmp_path / "data", LANGUAGES / "bin") as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE EXTENSION plperlu")
            admin.execute("CREATE EXTENSION pltclu")
            admin.execute(TCL)
        logs = {}
        for verbosity in ("default", "verbose"):
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute(f"ALTER SYSTEM SET log_error_verbosity = {verbosity}".encode())
                admin.execute("SELECT pg_reload_conf(), pg_sleep(0.1)")
            before = sum(len(file.read_bytes()) for file in files(server, "jsonlog"))
            attack(server, {"PL/Perl": ran(PERL), "PL/Tcl": ran("SELECT forge_tcl()")})
            logs[verbosity] = b"".join(file.read_bytes() for file in files(server, "jsonlog"))[before:]
        known = ask(Cluster(dsn=server.dsn()), server.dsn())
    events = read(logs["default"], "jsonlog", known)
    assert [event.trust for event in events if marked(event)] == ["claimed"]
    assert {event.trust for event in events} <= {"claimed", "likely"}
    assert not [event for event in events if isinstance(event, Statement) and event.trust == "likely" and marked(event)]
    assert [event for event in read(logs["verbose"], "jsonlog", known) if marked(event)] == []
