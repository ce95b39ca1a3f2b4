"""What messages of the log witness."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.log.formats.record import LogRecord
from collectors.log.interpretation import readings, running
from collectors.log.interpretation.interpret import Interpreter, Memory, Seen, silences
from collectors.log.interpretation.provenance import Provenance, Surroundings
from collectors.names import Names
from collectors.own import OwnSessions, code
from pgwitness.core.events import Session, Statement, encode_event
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.statements import facts

TITLE = "authentication"
AT_US = 1_795_382_790_123_000
KEY = b"k" * 32
TOKEN = tokenizer(KEY)
OWN = OwnSessions(KEY, "pgwitness")
PLAIN = Provenance("jsonlog", surroundings=Surroundings(frozenset({"shop"})))


class Feed:
    """An interpreter and the place of its next message."""

    def __init__(self, interpreter: Interpreter | None = None) -> None:
        self.interpreter = interpreter or Interpreter(TOKEN, "jsonlog", OWN, provenance=PLAIN)
        self.offset = 0

    def __call__(self, message: str, severity: str = "LOG", **fields: Any) -> list[Seen]:
        self.offset += 100
        given = {
            "time_us": AT_US, "pid": 41, "session": "6b035d50.29", "start_us": 1_795_382_608_000_000, "user": "app",
            "database": "shop", "application": "web", "host": "10.0.0.7", "port": 5050, "line": self.offset,
            "backend_type": "client backend",
        } | fields  # fmt: skip
        return self.interpreter.read(LogRecord(message=message, severity=severity, **given), "log", self.offset, 1)

    def one(self, message: str, severity: str = "LOG", **fields: Any) -> Any:
        """The one event of a message."""
        (event,) = self(message, severity, **fields)
        return event


@pytest.fixture
def feed() -> Feed:
    """A fresh interpreter."""
    return Feed()


def test_a_statement_with_its_duration(feed: Feed) -> None:
    """One line tells what ran, how long, in which transaction; literals stay behind."""
    event = feed.one("duration: 1.250 ms  statement: SELECT * FROM t WHERE mail = 'a@b.c'", xid=755, query_id=-3)
    assert isinstance(event, Statement)
    assert (event.source, event.duration_ms, event.xid, event.query_id) == ("duration", 1.25, 755, -3)
    assert (event.statement, event.outcome) == ("SELECT * FROM t WHERE mail = $1", "success")
    assert (event.role, event.application, event.client_addr, event.client_port) == ("app", "web", "10.0.0.7", 5050)
    assert (event.place.offset, event.place.line) == (100, "6b035d50.29/100")


@pytest.mark.parametrize("name", ["<unnamed>", "S_1", "fetch from S_1/C_2", "_pg3_0"])
def test_the_extended_protocol(feed: Feed, name: str) -> None:
    """Executions count, with their parameters dropped; parsing and binding do not."""
    event = feed.one(f"duration: 0.1 ms  execute {name}: UPDATE t SET a = $1", detail="Parameters: $1 = 'geheim'")
    assert event.statement == "UPDATE t SET a = $1"
    assert b"geheim" not in encode_event(event)
    assert feed(f"duration: 0.1 ms  parse {name}: UPDATE t SET a = $1") == []
    assert feed(f"duration: 0.1 ms  bind {name}: UPDATE t SET a = $1") == []


def test_a_statements_name_cannot_hide_the_statement(feed: Feed) -> None:
    """A client that names its statement `x: SELECT 1 --` is not believed: both are possible, and neither is certain."""
    event = feed.one("duration: 0.1 ms  execute x: SELECT 1 --: DROP TABLE t")
    assert (event.statement, event.statement_hash is not None, event.trust) == (None, True, "claimed")
    assert event.parsed.operations == ["select", "drop_table"]
    assert event.parsed.relations == ["t"]
    event = feed.one("duration: 0.1 ms  execute x: SELECT 1 /* controller: users */")
    assert event.statement == "SELECT $1"


def test_the_query_id_decides_what_a_name_leaves_open(feed: Feed) -> None:
    """Where the same statement came under a plain name before, its query id says which of two it is."""
    feed("duration: 0.1 ms  execute <unnamed>: DELETE FROM pay WHERE id = 5", query_id=7)
    event = feed.one("duration: 0.1 ms  execute a: SELECT 1 --: DELETE FROM pay WHERE id = 6", query_id=7)
    assert (event.statement, event.trust) == ("DELETE FROM pay WHERE id = $1", "likely")
    event = feed.one("duration: 0.1 ms  execute a: SELECT 1 --: DELETE FROM pay", query_id=8)
    assert (event.statement, event.parsed.where) == (None, "none")


def test_a_query_id_cannot_hide_a_second_statement(feed: Feed) -> None:
    """Of several statements in one text the server gives the id of one: the text is read itself."""
    feed("duration: 0.1 ms  statement: SELECT 1", query_id=5)
    event = feed.one("duration: 0.1 ms  statement: DROP TABLE t; SELECT 2", query_id=5)
    assert event.statement == "DROP TABLE t; SELECT $1"


def test_a_query_id_is_parsed_once(feed: Feed) -> None:
    """Texts that differ in literals only are parsed once; an id outlives the renaming of a table, names do not."""
    for number in range(100):
        event = feed.one(f"duration: 0.1 ms  statement: SELECT {number} FROM t", query_id=5)
        assert event.statement == "SELECT $1 FROM t"
    assert feed.interpreter.texts.parsed == 1
    event = feed.one("duration: 0.1 ms  statement: SELECT 7 FROM renamed", query_id=5)
    assert (event.statement, feed.interpreter.texts.parsed) == ("SELECT $1 FROM renamed", 2)


def test_what_does_not_parse_is_a_hash(feed: Feed) -> None:
    """A text whose literals cannot be told leaves nothing but a keyed hash, equal for equal texts."""
    first = feed.one("duration: 0.1 ms  statement: SELEC 'geheim'")
    again = feed.one("duration: 0.1 ms  statement: SELEC 'geheim'")
    assert first.statement is None
    assert first.statement_hash == again.statement_hash == TOKEN(b"SELEC 'geheim'").decode()


def test_log_statement_waits_for_its_duration(feed: Feed) -> None:
    """log_statement and the line with the duration are one event, at the place of the second."""
    assert feed("statement: DELETE FROM t WHERE id = 5") == []
    assert feed("duration: 9.0 ms  statement: SELECT 1", session="other.1", pid=1)[0].pid == 1
    event = feed.one("duration: 3.5 ms", xid=12)
    assert (event.source, event.statement, event.duration_ms, event.xid) == (
        "statement", "DELETE FROM t WHERE id = $1", 3.5, 12,
    )  # fmt: skip
    assert (event.place.offset, event.place.line, event.outcome) == (300, "6b035d50.29/100", "success")
    assert feed("duration: 3.5 ms") == []


def test_log_statement_alone_goes_on(feed: Feed) -> None:
    """Where no duration comes, the next statement of the session, its end, time or quiet lets a statement go."""
    feed("statement: SELECT 1 AS a")
    assert [e.statement for e in feed("statement: SELECT 2 AS b") if isinstance(e, Statement)] == ["SELECT $1 AS a"]
    released, end = feed("disconnection: session time: 1:02:03.500 user=app database=shop host=10.0.0.7 port=5050")
    assert (released.outcome, end.operation, end.duration_ms) == ("unknown", "disconnect", 3_723_500.0)  # type: ignore[union-attr]
    assert [event.place.index for event in (released, end) if event.place is not None] == [0, 1]
    feed("statement: SELECT 3 AS c")
    late = feed("checkpoint starting: time", session="bg.1", pid=2, time_us=AT_US + 1_500_000)
    assert [e.statement for e in late if isinstance(e, Statement)] == ["SELECT $1 AS c"]
    feed("statement: SELECT 4 AS d")
    (quiet,) = feed.interpreter.idle("log", 1_000)
    assert quiet.place is not None
    assert (quiet.place.offset, feed.interpreter.idle("log", 1_001)) == (1_000, [])


def test_a_restart_remembers_what_waits() -> None:
    """What a collector must know again holds no literal, and a successor goes on with it."""
    first = Feed()
    first('connection authenticated: identity="cn=ann" method=cert (/etc/pg_hba.conf:7)')
    first("statement: DELETE FROM t WHERE mail = 'a@b.c'")
    stored = msgspec.json.encode(first.interpreter.memory)
    assert b"a@b.c" not in stored
    second = Feed()
    second.interpreter.remember(msgspec.json.decode(stored, type=Memory))
    event = second.one("duration: 3.5 ms")
    assert (event.statement, event.auth_method) == ("DELETE FROM t WHERE mail = $1", "cert")


def test_errors() -> None:
    """An error is the statement's failure, with its code; values in details become tokens."""
    feed = Feed(Interpreter(TOKEN, "jsonlog", names=Names(["t_mail_key", "mail"])))
    event = feed.one(
        'duplicate key value violates unique constraint "t_mail_key"', "ERROR", sqlstate="23505",
        detail="Key (mail)=(a@b.c) already exists.", statement="INSERT INTO t VALUES ('a@b.c')",
    )  # fmt: skip
    assert (event.outcome, event.sqlstate, event.statement) == ("failure", "23505", "INSERT INTO t VALUES ($1)")
    assert event.error == 'duplicate key value violates unique constraint "t_mail_key"'
    assert event.error_detail == f"Key (mail)=({TOKEN(b'a@b.c').decode()}) already exists."
    denied = feed.one("permission denied for table t", "ERROR", sqlstate="42501", statement="SELECT * FROM t")
    assert (denied.outcome, denied.error) == ("denied", "permission denied for table t")


@pytest.mark.parametrize(
    ("message", "sqlstate", "detail"),
    [
        ('invalid input syntax for type integer: "geheim"', "22P02", None),
        ("new row violates check", "23514", "Failing row contains (1, geheim)."),
        ("customer geheim is bad", "P0001", "geheim"),
        ('syntax error at or near "geheim"', "42601", None),
        ("insert violates foreign key", "23503", 'Key (a, b)=(geheim, 2) is not present in table "t".'),
        ("something new: geheim", "XX000", "Key (a)=(1) geheim"),
    ],
)
def test_no_value_leaves_in_an_error(feed: Feed, message: str, sqlstate: str, detail: str | None) -> None:
    """Whatever an error quotes, values stay behind."""
    event = feed.one(message, "ERROR", sqlstate=sqlstate, detail=detail, hint="geheim", statement="SELECT 'geheim'")
    assert b"geheim" not in encode_event(event)


def test_an_error_ends_the_statement_that_was_announced(feed: Feed) -> None:
    """log_statement's line and the error are one event."""
    feed("statement: INSERT INTO t VALUES (1)")
    event = feed.one("no", "ERROR", sqlstate="23505", statement="INSERT INTO t VALUES (1)")
    assert (event.outcome, event.place.line) == ("failure", "6b035d50.29/100")
    assert feed("duration: 3.5 ms") == []


def test_a_session_from_its_login_to_its_end(feed: Feed) -> None:
    """Connecting tells the application and how it authenticated; statements of the session carry that too."""
    assert feed("connection received: host=10.0.0.7 port=5050", user=None, database=None) == []
    assert feed('connection authenticated: identity="ann@CORP" method=gss (/etc/pg_hba.conf:7)', title=TITLE) == []
    authorized = "connection authorized: user=app database=shop application_name=my app SSL enabled (protocol=TLSv1.3)"
    assert feed(authorized, application="", title=TITLE) == []
    event, statement = feed("duration: 0.1 ms  statement: SELECT 1")
    assert isinstance(event, Session)
    assert (event.operation, event.application, event.auth_method) == ("connect", "my app", "gss")
    assert (event.identity, event.backend_start_us) == ("ann@CORP", 1_795_382_608_000_000)
    assert (event.trust, statement.auth_method) == ("likely", "gss")
    end = feed.one("disconnection: session time: 0:00:02.250 user=app database=shop host=10.0.0.7 port=5050")
    assert (end.operation, end.duration_ms, end.auth_method) == ("disconnect", 2250.0, "gss")
    assert (feed.interpreter.memory.auth, feed.interpreter.memory.pending) == ([], [])


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ('password authentication failed for user "app"', "28P01"),
        ('no pg_hba.conf entry for host "10.0.0.7", user "app", database "shop", no encryption', "28000"),
        ('role "app" does not exist', "28000"),
        ('database "shop" does not exist', "3D000"),
        ('password authentication failed for user "app"', None),
    ],
)
def test_failed_logins(feed: Feed, message: str, sqlstate: str | None) -> None:
    """Whoever is turned away at the door is a session's event, whose role is known."""
    event = feed.one(message, "FATAL", sqlstate=sqlstate, user=None if sqlstate is None else "app")
    assert (event.operation, event.sqlstate) == ("login_failed", sqlstate)
    assert event.role == "app"


def test_pgaudit(feed: Feed) -> None:
    """Session and object lines keep what pgAudit found, and the rows where log_rows is on."""
    event = feed.one(
        "AUDIT: OBJECT,33,1,WRITE,UPDATE,TABLE,public.account,\"update account set password = 'HASH2',"
        '\n note = \'a ""b""\'",<not logged>,3',
        xid=9,
    )
    assert (event.source, event.row_count, event.xid, event.outcome) == ("pgaudit", 3, 9, "unknown")
    assert event.statement == "update account set password = $1, note = $2"
    assert event.audit == {
        "type": "OBJECT", "statement_id": "33", "substatement_id": "1", "class": "WRITE", "command": "UPDATE",
        "object_type": "TABLE", "object_name": "public.account",
    }  # fmt: skip
    role = feed.one("AUDIT: SESSION,34,1,ROLE,CREATE ROLE,,,CREATE ROLE x SUPERUSER PASSWORD <REDACTED>,<not logged>")
    assert role.statement == "CREATE ROLE x SUPERUSER PASSWORD $1"
    again = feed.one("AUDIT: SESSION,33,2,READ,SELECT,,,<previously logged>,<previously logged>")
    assert (again.statement, again.statement_hash, again.audit["command"]) == (None, None, "SELECT")
    broken = feed.one('AUDIT: SESSION,"geheim')
    assert (broken.statement, broken.statement_hash is not None) == (None, True)


JSON_PLAN = (
    'duration: 2.5 ms  plan:\n{\n  "Query Text": "select * from t where a = \'geheim\'",\n'
    '  "Plan": {"Node Type": "Seq Scan", "Actual Rows": 3, "Filter": "(a = \'geheim\')"}\n}'
)
TEXT_PLAN = (
    "duration: 2.5 ms  plan:\nQuery Text: select *\nfrom t where a = 'geheim'\n"
    "Query Parameters: $1 = 'geheim'\nSeq Scan on t  (cost=0.00..25.88 rows=6 width=36)\n  Filter: (a = 'geheim')"
)


@pytest.mark.parametrize(("message", "rows"), [(JSON_PLAN, 3), (TEXT_PLAN, None)])
def test_auto_explain(feed: Feed, message: str, rows: int | None) -> None:
    """Of a plan the statement stays, and the rows where they were counted; the plan holds values and goes."""
    event = feed.one(message)
    assert (event.source, event.duration_ms, event.row_count) == ("auto_explain", 2.5, rows)
    assert " ".join(event.statement.split()) == "select * from t where a = $1"
    assert b"geheim" not in encode_event(event)


def test_our_own_reading_is_left_out_and_nothing_else(feed: Feed) -> None:
    """The collectors' queries are no evidence; what writes under their name is, and so is who only takes the name."""
    own = {"user": "pgwitness", "application": f"pgwitness stats {code(KEY, '6b035d50.29')}"}
    assert feed("duration: 0.1 ms  statement: SELECT * FROM pg_stat_activity", **own) == []
    assert feed.one("duration: 0.1 ms  statement: DELETE FROM t", **own).role == "pgwitness"
    assert feed.one("duration: 0.1 ms  statement: SELECT 1", application="pgwitness").role == "app"
    read = "SET LOCAL lock_timeout = '1s'; SELECT key FROM pgwitness.key"
    assert feed(f"duration: 0.1 ms  statement: {read}", **own) == []
    assert feed.one(f"duration: 0.1 ms  statement: {read}; DELETE FROM t", **own).role == "pgwitness"
    assert feed.interpreter.own == 2


SESSION = "6b035d50.29"


@pytest.mark.parametrize(
    ("application", "session"),
    [
        ("pgwitness stats", SESSION),
        (f"pgwitness stats {code(KEY, '6b035d50.2a')}", SESSION),
        (f"pgwitness stats {code(KEY, SESSION)}", "6b035d51.29"),
        (f"pgwitness stats {TOKEN(SESSION.encode()).decode()[4:28]}", SESSION),
        (f"pgwitness stats {code(KEY, SESSION)} ", SESSION),
        (f"pgwitness stats {code(KEY, SESSION)[:-1]}é", SESSION),
        (f"psql {code(KEY, SESSION)}", SESSION),
        (f"pgwitness stats {code(KEY, SESSION)}", None),
        (None, SESSION),
    ],
)
def test_whoever_has_the_collectors_password_is_seen(feed: Feed, application: str | None, session: str | None) -> None:
    """Neither their name nor the code of another session of theirs, nor a token of the lake, hides a read."""
    line = "duration: 0.1 ms  statement: SELECT key FROM pgwitness.key"
    event = feed.one(line, user="pgwitness", application=application, session=session)
    assert (event.role, event.statement) == ("pgwitness", "SELECT key FROM pgwitness.key")
    assert feed.interpreter.own == 0


def test_a_command_on_the_database_is_known_by_its_code(feed: Feed) -> None:
    """`pgwitness db` of whatever role is told and marked; its name alone, or a collector's code, marks nothing."""

    def own(application: str, session: str = SESSION) -> bool:
        event = feed.one("duration: 0.1 ms  statement: DROP TABLE t", application=application, session=session)
        assert event.statement == "DROP TABLE t"
        return bool(event.own)

    shown = f"pgwitness db {code(KEY, SESSION, command=True)}"
    assert own(shown)
    assert not own(shown, "6b035d51.29")
    assert not own("pgwitness db")
    assert not own(f"pgwitness db {code(KEY, SESSION)}")
    assert not own(shown.replace("pgwitness db", "psql"))
    assert feed("duration: 0.1 ms  statement: SELECT 1", user="pgwitness", application=shown) != []


severities = st.sampled_from(["LOG", "ERROR", "FATAL", "WARNING", "PANIC"])
beginnings = st.sampled_from(
    ["", "duration: ", "duration: 1 ms", "duration: 1 ms  plan:\n{", "statement: ", "execute ", "AUDIT: ",
     "AUDIT: SESSION,", "connection authorized: ", "connection authenticated: ", "disconnection: ",
     "duration: 1 ms  execute "]
)  # fmt: skip


@given(severities, beginnings, st.text(max_size=60), st.none() | st.text(max_size=20))
def test_any_message_is_survived(severity: str, beginning: str, rest: str, detail: str | None) -> None:
    """Whatever a message says, its events can be encoded, and it raises nothing."""
    for event in Feed()(beginning + rest, severity, detail=detail, statement=rest, sqlstate="22000"):
        encode_event(event)


ANN: dict[str, Any] = {"session": "a.1", "pid": 1}
BOB: dict[str, Any] = {"session": "b.1", "pid": 2}
READY = "database system is ready to accept connections"
HOUR_US = 3_600_000_000


def started(feed: Feed) -> None:
    """The server has started, and what follows in its log is known from the first session on."""
    feed(READY, user=None, database=None, session="p.1", backend_type="postmaster")


def ended(feed: Feed, **fields: Any) -> Any:
    """The one statement that a line with nothing but a duration ends."""
    return feed.one("duration: 3.5 ms", **fields)


def test_who_runs_alone(feed: Feed) -> None:
    """A statement is alone if nobody else's was in progress between its two lines, by the order of the lines."""
    started(feed)
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert ended(feed, **ANN).alone
    feed("statement: UPDATE t SET a = 1", **ANN)
    feed("statement: SELECT f()", **BOB)
    assert not ended(feed, **ANN).alone
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert not ended(feed, **BOB).alone
    assert not ended(feed, **ANN).alone
    feed("execute <unnamed>: UPDATE t SET a = $1", **ANN)
    assert ended(feed, **ANN).alone


@pytest.mark.parametrize("text", ["BEGIN", "SET a = 1", "SHOW a", "COMMIT", "ROLLBACK; BEGIN"])
def test_who_cannot_write_disturbs_nobody(feed: Feed, text: str) -> None:
    """Settings, and what begins or ends a transaction that has written nothing, count as nothing."""
    started(feed)
    feed(f"statement: {text}", **BOB)
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert ended(feed, **ANN).alone


@pytest.mark.parametrize(
    ("text", "xid"),
    [("COMMIT", 7), ("COMMIT PREPARED 'a'", 0), ("SELECT 1", 0), ("DO 'x'", 0), ("no sql", 0), ("BEGIN; CALL p()", 0)],
)
def test_who_may_write_disturbs_everybody(feed: Feed, text: str, xid: int) -> None:
    """A COMMIT of what was written, a call, a view's SELECT, anything that cannot be read."""
    started(feed)
    feed(f"statement: {text}", **BOB, xid=xid)
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert not ended(feed, **ANN).alone


@pytest.mark.parametrize(
    "line",
    [
        ("duration: 1.0 ms", "LOG", {}),
        ("canceling statement", "ERROR", {"sqlstate": "57014"}),
        ("disconnection: session time: 0:00:01.000 user=app", "LOG", {}),
        (READY, "LOG", {"user": None, "session": "p.1"}),
    ],
)
def test_a_statement_is_over(feed: Feed, line: tuple[str, str, dict[str, Any]]) -> None:
    """Its duration, its failure, its session's end, or a crash of the whole server."""
    started(feed)
    feed("statement: CALL p()", **BOB)
    message, severity, fields = line
    feed(message, severity, **(BOB | fields))
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert ended(feed, **ANN).alone


def test_what_is_in_progress_unseen(feed: Feed) -> None:
    """From the middle of a log, after lost lines, or beside unannounced statements nobody is alone for an hour."""

    def alone(time_us: int) -> bool:
        feed("statement: UPDATE t SET a = 1", **ANN, time_us=time_us)
        return bool(ended(feed, **ANN, time_us=time_us).alone)

    assert not alone(AT_US)
    assert not alone(AT_US + HOUR_US - 1)
    assert alone(AT_US + HOUR_US)
    feed.interpreter.lost()
    assert not alone(AT_US + 2 * HOUR_US - 1)
    assert alone(AT_US + 2 * HOUR_US)
    for message in ("statement: SHOW log_statement", "statement: SELECT current_setting('log_statement')"):
        feed(message, **BOB, time_us=AT_US + 2 * HOUR_US)
        feed("duration: 1.0 ms", **BOB, time_us=AT_US + 2 * HOUR_US)
        assert alone(AT_US + 2 * HOUR_US)
    for message in ("duration: 1.0 ms  statement: SELECT 1", "statement: SET LOG_statement = none"):
        feed(message, **BOB, time_us=AT_US + 3 * HOUR_US)
        assert not alone(AT_US + 4 * HOUR_US - 1)
        assert alone(AT_US + 5 * HOUR_US)


def test_what_is_in_progress_outlives_a_restart(feed: Feed) -> None:
    """A successor knows who had a statement in progress, and who was alone."""
    started(feed)
    feed("statement: CALL p()", **BOB)
    for others in ([], [BOB]):
        again = Feed()
        again.interpreter.remember(msgspec.json.decode(msgspec.json.encode(feed.interpreter.memory), type=Memory))
        if not others:
            again("disconnection: session time: 0:00:01.000 user=app", **BOB)
        again("statement: UPDATE t SET a = 1", **ANN)
        assert ended(again, **ANN).alone == (not others)


def test_a_long_statement_that_may_yet_commit_stays_in_progress(feed: Feed) -> None:
    """In the extended protocol a statement ends before its commit: one whose id no event has told counts on."""
    started(feed)
    feed("execute <unnamed>: UPDATE t SET a = $1", **BOB)
    (gone,) = feed("statement: BEGIN", **ANN, time_us=AT_US + 2_000_000)
    assert gone.pid == BOB["pid"]
    feed("duration: 2100.0 ms", **BOB, xid=8, time_us=AT_US + 2_100_000)
    feed("statement: UPDATE t SET a = 1", **ANN, time_us=AT_US + 2_200_000)
    assert not ended(feed, **ANN, time_us=AT_US + 2_200_000).alone


@pytest.mark.parametrize(
    "unsure", [Interpreter(TOKEN, "stderr"), Interpreter(TOKEN, "jsonlog", ordered=False, provenance=PLAIN)]
)
def test_who_was_alone_takes_true_lines_in_their_order(unsure: Interpreter) -> None:
    """What can be forged, or comes in another order than it was written, is no proof."""
    feed = Feed(unsure)
    started(feed)
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert not ended(feed, **ANN).alone


def test_sessions_in_progress_are_bounded(feed: Feed) -> None:
    """Too many at once are forgotten, and nobody is alone for an hour."""
    started(feed)
    for number in range(running.SESSIONS_MAX + 10):
        feed("statement: CALL p()", session=f"s.{number}", pid=number)
    assert len(feed.interpreter.memory.running.sessions) <= running.SESSIONS_MAX
    feed(READY, user=None, time_us=AT_US - 1)
    started(feed)
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert ended(feed, **ANN).alone


@pytest.mark.parametrize(
    ("message", "severity", "fields"),
    [
        ("duration: 1.0 ms  statement: {}", "LOG", {}),
        ("duration: 1.0 ms  execute <unnamed>: {}", "LOG", {}),
        ("duration: 1.0 ms  plan:\nQuery Text: {}\nSeq Scan on t  (cost=0.00..1.00 rows=1 width=4)", "LOG", {}),
        ('AUDIT: SESSION,1,1,READ,SELECT,,,"{}",<none>', "LOG", {}),
        ("no", "ERROR", {"sqlstate": "23505", "statement": "{}"}),
    ],
)
def test_tags_of_a_comment_go_on_and_the_comment_does_not(
    feed: Feed, message: str, severity: str, fields: dict[str, Any]
) -> None:
    """What the client says of itself is taken out before the literals and comments go, in each statement anew."""
    for number in (1, 2):
        text = f"SELECT 'geheim' FROM t /*agent='triage-bot',agent_instance='{number}',route='geheim'*/"
        filled = {key: value.format(text) if key == "statement" else value for key, value in fields.items()}
        event = feed.one(message.format(text), severity, query_id=5, **filled)
        assert event.tags == {"agent": "triage-bot", "agent_instance": str(number)}
        assert event.statement == "SELECT $1 FROM t"
        assert b"geheim" not in encode_event(event)
    (plain,) = feed("duration: 1.0 ms  statement: SELECT 'geheim' FROM t", query_id=5)
    assert isinstance(plain, Statement)
    assert plain.tags == {}


def test_an_imitated_end_ends_nothing(feed: Feed) -> None:
    """Who writes `duration: …` himself still runs his statement, so nobody else ran alone meanwhile."""
    started(feed)
    feed("statement: DO $$ … $$", **BOB)
    (finding,) = feed("duration: 0.1 ms", **BOB, context="PL/pgSQL function inline_code_block line 1 at RAISE")
    assert (finding.source, finding.imitates, finding.pid) == ("imitated", "duration", BOB["pid"])
    feed("statement: UPDATE t SET a = 1", **ANN)
    assert not ended(feed, **ANN).alone


def test_an_imitated_login_changes_nothing(feed: Feed) -> None:
    """How a session authenticated is what the server wrote of it, and a second login is none."""
    feed('connection authenticated: identity="app" method=md5 (/etc/pg_hba.conf:7)', title=TITLE)
    for more in (
        {"context": "PL/pgSQL function f() line 1 at RAISE"},
        {"statement": "SELECT f()"},
        {"title": "SELECT"},
    ):
        feed('connection authenticated: identity="ceo@corp.example" method=gss', **more)
        feed("connection authorized: user=ceo database=shop", **more)
        feed("disconnection: session time: 0:00:01.000 user=app database=shop host=[local]", statement="SELECT f()")
    event = feed.one("duration: 0.1 ms  statement: SELECT 1")
    assert event.auth_method == "md5"
    assert feed.interpreter.memory.auth == [("6b035d50.29", "md5", "app")]
    assert feed.interpreter.imitated == 9


def test_imitations_are_told_once_a_minute(feed: Feed) -> None:
    """However many lines a session writes, the first is told at once and the others as a number."""
    code = {"context": "PL/pgSQL function f() line 1 at RAISE"}
    told = [feed("statement: DROP TABLE t", **code, time_us=AT_US + second * 1_000_000) for second in range(61)]
    assert [len(events) for events in told] == [1] + [0] * 59 + [1]
    assert [event.lines for events in told for event in events if isinstance(event, Statement)] == [1, 60]
    assert feed.interpreter.imitated == 61


def test_a_process_id_that_comes_again_is_another_session(feed: Feed) -> None:
    """In a log without session ids, what the first session proved is not the second's."""
    feed('connection authenticated: identity="ceo" method=gss (f:1)', title=TITLE, session=None)
    feed("connection received: host=10.0.0.7 port=5050", session=None)
    assert feed.one("duration: 0.1 ms  statement: SELECT 1", session=None).auth_method is None


@pytest.mark.parametrize(("sqlstate", "refused"), [("28000", True), ("53300", True), ("3D000", True), ("57P01", False)])
def test_a_session_that_was_authorized_may_yet_be_refused(feed: Feed, sqlstate: str, refused: bool) -> None:
    """Only what it does next shows that it began; who is ended by an administrator has begun."""
    feed("connection authorized: user=app database=shop", title=TITLE)
    events = feed("no such thing", "FATAL", sqlstate=sqlstate)
    assert [event.operation for event in events if isinstance(event, Session)] == (
        ["login_failed"] if refused else ["connect"]
    )


def test_a_garbled_startup_packet_is_no_statement(feed: Feed) -> None:
    """A stranger who speaks no protocol has run nothing."""
    (event,) = feed("invalid startup packet layout", "FATAL", sqlstate="08P01", line=2)
    assert (event.operation, event.sqlstate) == ("login_failed", "08P01")


def test_plans_of_nested_statements_have_a_context(feed: Feed) -> None:
    """auto_explain tells of what functions run, with their context; a line of RAISE in it was written by hand."""
    plan = "duration: 1.0 ms  plan:\nQuery Text: SELECT 1\nResult  (cost=0.00..0.01 rows=1 width=4)"
    context = 'SQL statement "SELECT 1"\nPL/pgSQL function f() line 3 at SQL statement'
    assert feed.one(plan, context=context).source == "auto_explain"
    assert feed.one(plan, context=f"PL/pgSQL function g() line 3 at RAISE\n{context}").source == "imitated"
    assert feed.one(plan, context="在RAISE的第3行的PL/pgSQL函数g()", session="a.9").source == "imitated"


@pytest.mark.parametrize("name", ["a: ", "a: select 1 --: ", "a: /*: ", "a: (((: "])
def test_names_of_statements_cost_a_bounded_number_of_parses(
    feed: Feed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many colons a name has, few statements are looked for behind them; what is left open is said."""
    parsed = []
    monkeypatch.setattr(readings, "facts", lambda text, **more: parsed.append(text) or facts(text, **more))
    feed(f"duration: 0.1 ms  execute {name * 300}x")
    assert len(parsed) <= 2 * readings.TRIES_MAX + 4


@pytest.mark.parametrize(
    ("text", "silencing"),
    [
        ("SET log_statement = none", True),
        ("SELECT set_config('log_' || 'x', 'log_statement', false)", True),
        ("CREATE FUNCTION f() … set_config(x) … log_min_messages", True),
        ("CREATE OR REPLACE FUNCTION pgwitness.beacon() … SET search_path … current_setting('log_statement')", False),
        ("CREATE OR REPLACE FUNCTION pgwitness.x() … set_config('log_statement', 'none', false)", True),
        ("CREATE OR REPLACE FUNCTION pgwitness.x() … SET LOCAL log_min_messages = fatal", True),
        ("SHOW log_statement", False),
    ],
)
def test_what_may_take_a_session_out_of_the_log(text: str, silencing: bool) -> None:
    """To mention both is enough; the beacon's functions, which look at the settings, are no reason to doubt the log."""
    assert silences(text) == silencing
