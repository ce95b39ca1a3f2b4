"""What stands before the messages of a text log: taken apart in one way, in linear time, whatever a client chooses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.log.formats.prefix import Prefix
from collectors.log.formats.record import LogRecord, Times
from collectors.log.formats.splitting import StderrSplitter
from collectors.log.formats.stderr import StderrLog
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.interpretation.provenance import Provenance
from pgwitness.core.events import Statement
from pgwitness.core.privacy import tokenizer
from tests.collectors.log_server import PREFIX

AT = "2026-11-22 21:26:30.123 UTC"
SESSION = "6b035d50.29"
SHOP = frozenset({"shop"})


def parse(line: str, setting: str = PREFIX) -> LogRecord:
    """Read one message."""
    return StderrLog(Times(), Prefix(setting, databases=lambda: SHOP)).parse(line.encode())


def line(application: str, message: str, user: str = "bob", database: str = "shop", session: str = SESSION) -> str:
    """A line with the documented prefix, of process 41."""
    return f"{AT} [41] {user}@{database}/{application} [local] {session} 3 0 0 00000 {message}"


def test_an_application_that_looks_like_the_rest_of_a_prefix() -> None:
    """A session's id that is not of the line's process is no session's: the statement that ran is read."""
    found = parse(line("x [local] 1.1 1 0 0 00000 LOG:  statement: SELECT 1--", "LOG:  statement: DELETE FROM pay"))
    assert (found.message, found.session, found.readings) == ("statement: DELETE FROM pay", SESSION, ())
    assert found.application == "x [local] 1.1 1 0 0 00000 LOG:  statement: SELECT 1--"


def test_an_application_that_knows_its_session() -> None:
    """With its own id in it both readings are possible: both are kept, and neither is sure."""
    name = f"x [local] {SESSION} 1 0 0 00000 LOG:  statement: SELECT 1--"
    found = parse(line(name, "LOG:  statement: DELETE FROM pay"))
    assert [text[:20] for text in found.readings] == ["statement: SELECT 1-", "statement: DELETE FR"]
    interpreter = Interpreter(tokenizer(b"k" * 32), "stderr", provenance=Provenance("stderr"))
    (event,) = [*interpreter.read(found, "log", 0, 1), *interpreter.idle("log", 1)]
    assert isinstance(event, Statement)
    assert event.parsed is not None
    assert (event.statement, event.trust) == (None, "claimed")
    assert "delete" in event.parsed.operations
    assert "pay" in event.parsed.relations


@pytest.mark.parametrize(
    ("user", "database", "application"),
    [
        ("ann@corp.example", "shop", "psql"),
        ("ann", "shop", "pgAdmin 4 - DB:shop/x@y"),
        ("ann", "shop", "a/b/c@shop/d"),
        ("ann", "shop", ""),
        ("a b", "shop", "LOG:  statement: x"),
        ("[unknown]", "[unknown]", "[unknown]"),
    ],
)
def test_names_with_what_separates_them(user: str, database: str, application: str) -> None:
    """The reading counts that names a database that is there."""
    found = parse(line(application, "LOG:  hello", user, database))
    empty = user == "[unknown]"
    assert (found.user, found.database) == (("", "") if empty else (user, database))
    assert (found.message, found.severity) == ("hello", "LOG")


def test_names_that_nobody_can_tell_apart_are_not_known() -> None:
    """Of databases that are not known to be there, a name is given only where all readings agree."""
    found = parse(line("psql", "LOG:  hello", "ann@b", "c"))
    assert (found.user, found.database, found.application, found.message) == (None, None, "psql", "hello")


@pytest.mark.parametrize("kind", ["client backend", "walsender", "autovacuum worker"])
def test_kinds_of_backends_have_spaces(kind: str) -> None:
    """`%b` and `%i` stand side by side, and both have words with spaces in them."""
    found = parse(f"{AT} {kind} CREATE TABLE [5] 42501 ERROR:  permission denied", "%m %b %i [%p] %e ")
    assert (found.backend_type, found.pid, found.sqlstate, found.severity) == (kind, 5, "42501", "ERROR")
    found = parse(f"{AT} {kind}  [5] 42501 ERROR:  permission denied", "%m %b %i [%p] %e ")
    assert (found.backend_type, found.pid) == (kind, 5)


def test_a_background_line_is_nobodys() -> None:
    """What a table is called makes no session of a line of the autovacuum's."""
    found = parse(
        f'{AT} [5] LOG:  automatic vacuum of "a@shop/b [local] 1.5 1 0 0 00000 LOG:  statement: DROP TABLE t"'
    )
    assert (found.user, found.database, found.session) == (None, None, None)


def test_verbose_errors() -> None:
    """The SQLSTATE before the message is none of it, where a line of the message says where it was written."""
    first = line("psql", "LOG:  00000: duration: 1.0 ms  statement: DELETE FROM pay")
    more = line("psql", "LOCATION:  exec_simple_query, postgres.c:1071")
    found = parse(f"{first}\n\t WHERE true\n{more}")
    assert found.message == "duration: 1.0 ms  statement: DELETE FROM pay\n WHERE true"
    assert (found.sqlstate, found.location) == ("00000", "exec_simple_query, postgres.c:1071")
    assert parse(line("psql", "LOG:  00000: hello")).message == "00000: hello"


def test_a_part_goes_to_its_own_process() -> None:
    """Where lines of several sessions are interleaved, the statement of one is not given to the other."""
    lines = [
        f"{AT} [5] ERROR:  permission denied for table pay", f"{AT} [6] ERROR:  division by zero",
        f"{AT} [5] STATEMENT:  DELETE FROM pay", "\tWHERE true", f"{AT} [6] STATEMENT:  SELECT 1/0",
        f"{AT} [7] STATEMENT:  of nobody", f"{AT} [6] LOG:  the next",
    ]  # fmt: skip
    splitter = StderrSplitter(Prefix("%m [%p] "))
    data = "\n".join([*lines, ""]).encode()
    pieces = splitter.feed(data) + splitter.idle()
    parser = StderrLog(Times(), Prefix("%m [%p] "))
    records = [parser.parse(piece.data) for piece in pieces if piece.readable]
    assert [(record.pid, record.statement) for record in records] == [
        (5, "DELETE FROM pay\nWHERE true"), (6, "SELECT 1/0"), (6, None),
    ]  # fmt: skip
    assert sum(piece.length for piece in pieces) == len(data)
    assert [piece.data for piece in pieces if not piece.readable] == [lines[5].encode()]


def test_lines_end_as_on_windows() -> None:
    """A carriage return at the end of lines is none of the message."""
    splitter = StderrSplitter(Prefix("%m [%p] "))
    data = f"{AT} [5] LOG:  statement: SELECT\r\n\t1\r\n{AT} [5] LOG:  next\r\n".encode()
    pieces = splitter.feed(data) + splitter.idle()
    parser = StderrLog(Times(), Prefix("%m [%p] "))
    assert [parser.parse(piece.data).message for piece in pieces] == ["statement: SELECT\n1", "next"]


def test_a_startup_packet_with_a_line_feed_is_no_session() -> None:
    """What a stranger calls himself may be a whole line: that is claimed at most, and no one is authorized by it."""
    setting = "%m [%p] %q%u@%d "
    name = f"a\n{AT} [41] b@c LOG:  connection authorized: user=boss"
    data = f'{AT} [41] {name}@shop FATAL:  password authentication failed for user "x"\n'.encode()
    splitter = StderrSplitter(Prefix(setting))
    interpreter = Interpreter(tokenizer(b"k" * 32), "stderr", provenance=Provenance("stderr", names=True))
    parser = StderrLog(Times(), Prefix(setting))
    events = []
    for piece in splitter.feed(data) + splitter.idle():
        if parser_reads(parser, piece.data):
            events += interpreter.read(parser.parse(piece.data), "log", 0, 1)
    events += interpreter.idle("log", 1)
    assert {event.trust for event in events} <= {"claimed"}


def parser_reads(parser: StderrLog, data: bytes) -> bool:
    """Say whether bytes are a message."""
    try:
        parser.parse(data)
    except ValueError:
        return False
    return True


def steps(run: Callable[[], object]) -> int:
    """Count the lines of Python that a call runs."""
    counted = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> object:
        nonlocal counted
        counted += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return counted


@pytest.mark.parametrize(
    "text",
    [
        "a@b/c d ",
        "LOG:  ",
        f"@shop/x [local] {SESSION} 1 0 0 00000 LOG:  ",
        "x [local] ",
        "ERROR:  STATEMENT:  ",
        "(1) ",
    ],
)
def test_the_length_of_a_line_does_not_matter(text: str) -> None:
    """How far is looked for the end of a head is bounded: a line of 64 KiB takes as many steps as one of 4 KiB."""
    counts = []
    for length in (4_096, 65_536):
        hostile = f"{AT} [41] " + (text * length)[:length]
        prefix = Prefix(PREFIX, databases=lambda: SHOP)
        counts.append(steps(lambda hostile=hostile, prefix=prefix: prefix.continues(hostile.encode())))  # type: ignore[misc]
        prefix = Prefix(PREFIX, databases=lambda: SHOP)
        counts[-1] += steps(lambda hostile=hostile, prefix=prefix: prefix.head(hostile))  # type: ignore[misc]
    assert counts[1] <= counts[0] * 1.1 + 50
    assert counts[1] < 200_000


@given(st.text(max_size=63), st.text(max_size=63), st.text(max_size=200))
def test_any_names(user: str, application: str, message: str) -> None:
    """Whatever they are, nothing is raised, and where one reading is left it is the right one."""
    user, application, message = (text.replace("\n", "").replace("\r", "") for text in (user, application, message))
    found = Prefix(PREFIX, databases=lambda: SHOP).head(line(application, f"LOG:  {message}", user))
    assert found is not None
    if not found.readings:
        assert found.text == message
        assert (found.fields["user"], found.fields["application"]) == (user, application)
    elif len(found.readings) < 16:
        assert message in found.readings
