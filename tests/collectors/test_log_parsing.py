"""The parsers of the three formats, and how bytes are cut into records."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.log.formats import csvlog
from collectors.log.formats.csvlog import CsvLog
from collectors.log.formats.jsonlog import JsonLog
from collectors.log.formats.prefix import Prefix
from collectors.log.formats.record import (
    BACKEND_CHARS_MAX,
    BACKENDS_MAX,
    SECONDS_MAX,
    Backend,
    Backends,
    LogRecord,
    Times,
    Unreadable,
)
from collectors.log.formats.splitting import CsvSplitter, JsonSplitter, Splitter, StderrSplitter
from collectors.log.formats.stderr import StderrLog
from collectors.log.reading import formats
from pgwitness.core.config import Log
from pgwitness.core.errors import ConfigurationError
from tests.collectors.log_server import PREFIX

AT = "2026-11-22 21:26:30.123 UTC"
AT_US = 1_795_382_790_123_000
START_US = 1_795_381_200_000_000
SESSION = f"{START_US // 1_000_000:x}.29"

JSON = json.dumps(
    {
        "timestamp": AT, "user": "app", "dbname": "shop", "pid": 41, "remote_host": "10.0.0.7", "remote_port": 5050,
        "session_id": SESSION, "line_num": 7, "ps": "UPDATE", "session_start": "2026-11-22 21:00:00 UTC",
        "vxid": "3/9", "txid": 755, "error_severity": "ERROR", "state_code": "23505", "message": "no\nway",
        "detail": "because", "hint": "do not", "statement": "UPDATE t\nSET a = '\"x\", 1'",
        "application_name": "web, 1", "backend_type": "client backend", "query_id": -17,
    }
).encode()  # fmt: skip
CSV = (
    f'{AT},"app","shop",41,"10.0.0.7:5050",{SESSION},7,"UPDATE",2026-11-22 21:00:00 UTC,3/9,755,ERROR,23505,'
    '"no\nway","because","do not",,,,"UPDATE t\nSET a = \'""x"", 1\'",,,"web, 1","client backend",,-17'
).encode()
HEAD = f"{AT} [41] app@shop/web, 1 10.0.0.7(5050) {SESSION} 7 755 -17 23505 "
TEXT = (
    f"{HEAD}ERROR:  no\n\tway\n{HEAD}DETAIL:  because\n{HEAD}HINT:  do not\n"
    f"{HEAD}STATEMENT:  UPDATE t\n\tSET a = '\"x\", 1'"
).encode()
RECORDS = {"jsonlog": JSON, "csvlog": CSV, "stderr": TEXT}


def settings(log_format: str, **more: str) -> Log:
    """The settings of a log in a format."""
    return Log(format=log_format, line_prefix=PREFIX, **more)  # type: ignore[arg-type]


def cut(splitter: Splitter, data: bytes, at: list[int]) -> list[bytes]:
    """Feed data in pieces; gives the records, and holds that their lengths add up."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    pieces = [piece for a, b in itertools.pairwise(places) for piece in splitter.feed(data[a:b])]
    pieces += splitter.idle()
    assert sum(piece.length for piece in pieces) + splitter.waiting == len(data)
    return [piece.data for piece in pieces if piece.readable]


@pytest.mark.parametrize("log_format", RECORDS)
def test_a_byte_that_is_no_text_is_shown_by_its_number(log_format: str) -> None:
    """So the log of a database without an encoding names what its rows name; a line of JSON stays one."""
    _, parser = formats(settings(log_format))
    assert parser.parse(RECORDS[log_format].replace(b"because", b"caf\xe9")).detail == "caf\\xe9"


@pytest.mark.parametrize("log_format", RECORDS)
def test_the_same_message_reads_the_same_in_every_format(log_format: str) -> None:
    """What the formats have in common is the same fact for fact, line breaks and quotes included."""
    _, parser = formats(settings(log_format))
    record = parser.parse(RECORDS[log_format])
    assert record.time_us == AT_US
    assert (record.pid, record.session, record.line, record.start_us) == (41, SESSION, 7, START_US)
    assert (record.user, record.database, record.application) == ("app", "shop", "web, 1")
    assert (record.host, record.port, record.xid, record.query_id) == ("10.0.0.7", 5050, 755, -17)
    assert (record.severity, record.sqlstate, record.message) == ("ERROR", "23505", "no\nway")
    assert (record.detail, record.hint) == ("because", "do not")
    assert record.statement == "UPDATE t\nSET a = '\"x\", 1'"


@pytest.mark.parametrize("log_format", RECORDS)
@given(at=st.lists(st.integers(0, 3_000), max_size=8), number=st.integers(1, 4))
def test_records_are_whole_wherever_a_reading_ends(log_format: str, at: list[int], number: int) -> None:
    """However the bytes come, each record comes whole, once and in order; a half one waits."""
    make, _ = formats(settings(log_format))
    record = RECORDS[log_format]
    assert cut(make(), (record + b"\n") * number, at) == [record] * number
    half = make()
    assert cut(half, (record + b"\n") * number + record[:-3], at)[:number] == [record] * number


@pytest.mark.parametrize("log_format", RECORDS)
@given(garbage=st.binary(max_size=400), at=st.lists(st.integers(0, 3_000), max_size=4))
def test_garbage_between_messages_is_survived(log_format: str, garbage: bytes, at: list[int]) -> None:
    """Whatever stands in between: nothing raises but `Unreadable`, and the message after it is read."""
    make, parser = formats(settings(log_format))
    data = RECORDS[log_format] + b"\n" + garbage + b"\n" + (RECORDS[log_format] + b"\n") * 3
    read: list[LogRecord] = []
    for record in cut(make(), data, at):
        try:
            read.append(parser.parse(record))
        except Unreadable:
            continue
    assert [record.statement for record in read].count("UPDATE t\nSET a = '\"x\", 1'") >= 3


@given(st.binary(max_size=300))
def test_parsers_are_total(line: bytes) -> None:
    """Any bytes give a record or `Unreadable`."""
    for log_format in RECORDS:
        _, parser = formats(settings(log_format))
        try:
            assert isinstance(parser.parse(line), LogRecord)
        except Unreadable:
            continue


def test_invalid_utf8_is_read_and_counted() -> None:
    """A log of a database in another encoding is no UTF-8; the message is read all the same."""
    for log_format, record in RECORDS.items():
        _, parser = formats(settings(log_format))
        read = parser.parse(record.replace(b"because", b"b\xe4cause"))
        assert (read.detail, parser.invalid_utf8) == (r"b\xe4cause", 1)


def test_a_statement_of_a_megabyte() -> None:
    """Long statements are records like others."""
    text = b"SELECT '" + b"x" * 1_000_000 + b"'"
    for log_format, record in RECORDS.items():
        make, parser = formats(settings(log_format))
        (long,) = cut(make(), record.replace(b"do not", text) + b"\n", [100_000, 500_000])
        assert parser.parse(long).hint == text.decode()


def test_a_cut_line_does_not_turn_csv_inside_out() -> None:
    """After a crash in the middle of a quoted field the next records are read as what they are."""
    splitter = CsvSplitter(csvlog.is_record)
    data = CSV[:-40] + b"\n" + (CSV + b"\n") * 2
    assert cut(splitter, data, [])[-2:] == [CSV, CSV]


def test_empty_lines_and_zeros_are_no_messages() -> None:
    """A crash of the machine can leave zeros in a file."""
    assert cut(JsonSplitter(), b"\n\n" + JSON + b"\n", []) == [JSON]
    with pytest.raises(Unreadable):
        JsonLog(Times()).parse(b"\0" * 100)
    with pytest.raises(Unreadable):
        CsvLog(Times()).parse(b"\0" * 100)


def test_a_statement_cannot_write_a_line_of_the_text_log() -> None:
    """A line break in a statement has a tab behind it in the log: what it imitates stays part of the statement."""
    forged = f"{HEAD}LOG:  statement: SELECT 1\n\t{HEAD}LOG:  connection authorized: user=cfo\n".encode()
    (record,) = cut(StderrSplitter(Prefix(PREFIX)), forged, [])
    assert StderrLog(Times(), Prefix(PREFIX)).parse(record).message.startswith("statement: SELECT 1\n")


@pytest.mark.parametrize(
    ("prefix", "head"),
    [
        ("%m [%p] ", "2026-11-22 21:26:30.123 UTC [41] "),
        ("%t:%r:%u@%d:[%p]:", "2026-11-22 21:26:30 UTC:10.0.0.7(5050):app@shop:[41]:"),
        ("%n %p %q%u ", "1795382790.123 41 app "),
        ("%m [%-8p] %10u %% %c ", f"2026-11-22 21:26:30.123 UTC [41      ]        app % {SESSION} "),
        ("%m [%p] %q%u@%d/%a %h ", "2026-11-22 21:26:30.123 UTC [41] "),
        ("%m [%p] %r [%b] %u ", "2026-11-22 21:26:30.123 UTC [41]  [checkpointer]  "),
    ],
)
def test_prefixes(prefix: str, head: str) -> None:
    """Common prefixes are read: RDS's, with epochs, with padding, with a percent sign, without a session."""
    record = StderrLog(Times(), Prefix(prefix)).parse(f"{head}LOG:  hello".encode())
    assert (record.pid, record.message, record.severity) == (41, "hello", "LOG")
    assert record.time_us // 1_000_000 == AT_US // 1_000_000


def test_what_a_prefix_does_not_say_is_not_known() -> None:
    """Without %a nobody knows the application, which is something else than none."""
    record = StderrLog(Times(), Prefix("%m [%p] ")).parse(f"{AT} [41] LOG:  hello".encode())
    assert (record.application, record.user, record.host, record.session) == (None, None, None, None)
    assert JsonLog(Times()).parse(JSON.replace(b"web, 1", b"")).application == ""


def test_only_sessions_need_to_say_which_process_they_are() -> None:
    """With `%c` behind `%q` and no `%p`, the server's own processes write lines without either; both are read."""
    parser = StderrLog(Times(), Prefix("%m %q%u %c "))
    server = parser.parse(f"{AT} LOG:  checkpoint starting: time".encode())
    assert (server.pid, server.session, server.message) == (0, None, "checkpoint starting: time")
    client = parser.parse(f"{AT} app {SESSION} LOG:  hello".encode())
    assert (client.pid, client.session, client.user) == (41, SESSION, "app")


def test_a_line_with_the_word_of_a_part_in_its_text_begins_a_message() -> None:
    """`DETAIL:  ` in a statement makes no part of its line, and no lines without a prefix are taken for one."""
    lines = [f"{HEAD}LOG:  statement: SELECT 'DETAIL:  x'", f"{HEAD}LOG:  hello", "DETAIL:  without a prefix"]
    assert cut(StderrSplitter(Prefix(PREFIX)), "\n".join([*lines, ""]).encode(), []) == [x.encode() for x in lines]


def test_a_row_too_many_spoils_no_later_record() -> None:
    """What is no record of csvlog leaves nothing behind in the reader that all records share."""
    parser = CsvLog(Times())
    whole = parser.parse(CSV)
    for broken in (CSV + b"\n" + CSV, CSV[:-40], b'"', b"", b'a"b,"c"d', CSV + b'\n"'):
        with pytest.raises(Unreadable):
            parser.parse(broken)
        assert parser.parse(CSV) == whole


def test_remembered_sessions_are_bounded() -> None:
    """A session is taken apart once; neither many of them nor long names fill the memory."""
    asked: list[tuple[str | None, ...]] = []
    backends = Backends(lambda said: asked.append(said) or Backend(len(asked)))
    assert backends.get(("a", None)) is backends.get(("a", None))
    assert asked == [("a", None)]
    long = ("x" * BACKEND_CHARS_MAX, "y")
    assert backends.get(long) is not backends.get(long)
    fits = ("x" * (BACKEND_CHARS_MAX - 1), "y")
    assert backends.get(fits) is backends.get(fits)
    asked.clear()
    for number in range(BACKENDS_MAX):
        backends.get((str(number),))
    backends.get(("a", None))
    assert asked.count(("a", None)) == 1
    assert len(backends) <= BACKENDS_MAX


def test_remembered_times_are_bounded() -> None:
    """Seconds of a long log, and times with words for zones, do not fill the memory; all are read right."""
    times = Times()
    assert times.read("2026-11-22 21:26:30.123 " + "x" * 1_000) == AT_US
    first = times.read("2026-11-22 00:00:00.250 UTC")
    for second in range(2 * SECONDS_MAX):
        at = f"2026-11-22 {second // 3_600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        assert times.read(f"{at}.250 UTC") == first + second * 1_000_000
        assert times.read(f"{at} UTC") == first + second * 1_000_000 - 250_000
    assert len(times) <= SECONDS_MAX


@pytest.mark.parametrize("prefix", ["%m ", "[%p] "])
def test_a_prefix_that_tells_too_little_is_refused(prefix: str) -> None:
    """Without time, or without process, there is no evidence; the error says what to set."""
    with pytest.raises(ConfigurationError, match=r"log_line_prefix|%m"):
        Prefix(prefix)


def test_times_are_read_in_the_servers_zone() -> None:
    """The hour that comes twice in autumn is told apart by its abbreviation; offsets and unknown words are handled."""
    times = Times("Europe/Berlin")
    summer, winter = times.read("2026-10-25 02:30:00.000 CEST"), times.read("2026-10-25 02:30:00.000 CET")
    assert winter - summer == 3_600_000_000
    assert times.read("2026-10-25 02:30:00.000 +02") == summer
    assert times.read("2026-10-25 00:30:00.5 UTC") == summer + 500_000
    with pytest.raises(Unreadable):
        times.read("yesterday")
    with pytest.raises(ConfigurationError, match="SHOW log_timezone"):
        Times("Mars/Olympus")


def test_addresses_with_colons() -> None:
    """An IPv6 client's port is what stands behind the last colon."""
    record = CsvLog(Times()).parse(CSV.replace(b"10.0.0.7:5050", b"fd00::7:5050"))
    assert (record.host, record.port) == ("fd00::7", 5050)
    local = CsvLog(Times()).parse(CSV.replace(b"10.0.0.7:5050", b"[local]"))
    assert (local.host, local.port) == ("local", None)


HUGE = b"9" * 30


@pytest.mark.parametrize(
    ("log_format", "there"),
    [
        ("jsonlog", b'"txid": 755'), ("jsonlog", b'"pid": 41'), ("jsonlog", b'"query_id": -17'),
        ("jsonlog", b'"remote_port": 5050'), ("csvlog", b",755,"), ("csvlog", b",41,"), ("stderr", b"7 755 -17"),
        ("stderr", b"[41]"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_unreadable(log_format: str, there: bytes) -> None:
    """A number beyond its type is garbage; it must not reach an encoder that refuses it."""
    number = there.strip(b",[]").split(b": ")[-1].split(b" ")[-1]
    record = RECORDS[log_format].replace(there, there.replace(number, HUGE))
    _, parser = formats(settings(log_format))
    with pytest.raises(Unreadable):
        parser.parse(record)
