"""What operators, container runtimes, cloud services and syslog wrap around the lines of the server's log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.log.formats.envelopes import lines, unframed
from collectors.log.formats.jsonlog import JsonLog
from collectors.log.formats.record import LogRecord, Times, Unreadable
from collectors.log.reading import formats
from collectors.log.sources.shipped import Unwrapper
from pgwitness.core.config import Log

AT = "2026-11-22 21:26:30.123 UTC"
ROW = {
    "log_time": AT, "user_name": "app", "database_name": "shop", "process_id": "41", "connection_from": "10.0.0.7:5050",
    "session_id": "6b035d50.29", "session_line_num": "3", "command_tag": "DELETE", "transaction_id": "755",
    "error_severity": "LOG", "sql_state_code": "00000", "message": "duration: 1.0 ms  statement: DELETE FROM pay",
    "location": "exec_simple_query, postgres.c:1071", "application_name": "web", "backend_type": "client backend",
    "query_id": "-5",
}  # fmt: skip
CNPG = {"level": "info", "ts": AT, "logger": "postgres", "msg": "record", "record": ROW}
RDS = "%t:%r:%u@%d:[%p]:"
RDS_LINE = (
    "2026-11-22 21:26:30 UTC:10.0.0.7(5050):app@shop:[41]:LOG:  duration: 1.0 ms  statement: DELETE FROM pay\n\tWHERE 1"
)


def read(settings: Log, data: bytes) -> list[LogRecord]:
    """Read a file of a log; what is no message is left out."""
    make, parser = formats(settings)
    splitter = make()
    found = []
    pieces = splitter.feed(data) + splitter.idle()
    assert sum(piece.length for piece in pieces) == len(data)
    for piece in pieces:
        if piece.readable:
            try:
                found.append(parser.parse(piece.data))
            except Unreadable:
                continue
    return found


def file(*values: Any) -> bytes:
    """A file of objects, one a line."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(CNPG),
        json.dumps({"log": json.dumps(CNPG) + "\n", "stream": "stdout", "kubernetes": {"pod_name": "db-1"}}),
        f"2026-11-22T21:26:30.123456789Z stdout F {json.dumps(CNPG)}",
        json.dumps({"record": CNPG}),
        json.dumps({"message": json.dumps({"log": json.dumps(CNPG)})}),
    ],
)
def test_cloudnativepg(line: str) -> None:
    """The operator's record is a row of csvlog by name, whatever the cluster's runtime wraps around it."""
    (found,) = read(Log(format="jsonlog"), line.encode() + b"\n")
    assert (found.message, found.pid, found.xid, found.query_id) == (ROW["message"], 41, 755, -5)
    assert (found.user, found.database, found.host, found.port) == ("app", "shop", "10.0.0.7", 5050)
    assert (found.location, found.title, found.line) == ("exec_simple_query, postgres.c:1071", "DELETE", 3)


@pytest.mark.parametrize(
    ("value", "field", "number"),
    [
        ({"timestamp": 1, "message": RDS_LINE}, "message", 1),
        ({"@timestamp": "x", "@message": RDS_LINE, "@logStream": "s"}, "@message", 1),
        ({"messageType": "DATA_MESSAGE", "logEvents": [{"id": "1", "message": RDS_LINE}] * 3}, "logEvents", 3),
        ({"logEvents": [{"id": "1", "message": RDS_LINE}] * 2}, "logEvents.message", 2),
        ({"insertId": "x", "textPayload": RDS_LINE, "resource": {}}, "textPayload", 1),
        ({"jsonPayload": {"message": RDS_LINE}}, "jsonPayload.message", 1),
        ({"category": "PostgreSQLLogs", "properties": {"message": RDS_LINE}}, "properties.message", 1),
        ({"records": [{"properties": {"message": RDS_LINE}}] * 2}, "records", 2),
    ],
)
def test_services_of_clouds(value: Any, field: str, number: int) -> None:
    """CloudWatch, Cloud SQL and Azure: exported to files, or through a topic."""
    settings = Log(format="stderr", line_prefix=RDS, field=field)
    found = read(settings, file(value, value))
    assert [(record.message, record.user, record.pid) for record in found] == [
        ("duration: 1.0 ms  statement: DELETE FROM pay\nWHERE 1", "app", 41)
    ] * (2 * number)
    shipped = Unwrapper(Log(from_="kafka", topic="t", format="stderr", field=field)).read(file(value), None)
    assert shipped.data == "\n".join([RDS_LINE] * number).encode()


def test_what_a_file_of_envelopes_holds_besides_is_said() -> None:
    """An object without the field, and what is no JSON, are unreadable; the others are read."""
    settings = Log(format="stderr", line_prefix=RDS, field="message")
    make, _ = formats(settings)
    pieces = make().feed(file({"message": RDS_LINE}, {"other": 1}) + b"no json\n")
    assert [piece.readable for piece in pieces] == [True, False, False]


def syslog(number: int, *parts: str, header: str = "<134>Nov 22 21:26:30 db postgres[41]: ") -> str:
    """The lines that syslog makes of one message."""
    return "".join(f"{header}[{number}-{part}] {text}\n" for part, text in enumerate(parts, 1))


@pytest.mark.parametrize(
    "header",
    ["<134>Nov 22 21:26:30 db postgres[41]: ", "Nov  2 21:26:30 db postgres[41]: ",
     "2026-11-22T21:26:30.123456+01:00 db postgres[41]: ", "<134>1 2026-11-22T21:26:30Z db postgres 41 - - "],
)  # fmt: skip
def test_syslog(header: str) -> None:
    """Parts are put together by their numbers; no part but the first begins a message, whatever stands in it."""
    text = syslog(
        5, f"{AT} [41] LOG:  statement: SELECT", "#011 1,", f"{AT} [41] LOG:  statement: DROP x", header=header
    )
    text += syslog(6, f"{AT} [41] ERROR:  no", f"{AT} [41] STATEMENT:  DELETE FROM pay", "#011WHERE 1", header=header)
    first, second = read(Log(format="stderr"), text.encode())
    assert first.message == f"statement: SELECT\n 1,\n{AT} [41] LOG:  statement: DROP x"
    assert (second.severity, second.statement) == ("ERROR", "DELETE FROM pay\nWHERE 1")


def test_a_line_of_the_servers_own_is_never_unwrapped() -> None:
    """What a session writes into a message stays in it."""
    inner = json.dumps(CNPG)
    plain = {"timestamp": AT, "pid": 7, "error_severity": "LOG", "message": inner, "log": inner, "record": ROW}
    found = JsonLog(Times()).parse(json.dumps(plain).encode())
    assert (found.pid, found.message) == (7, inner)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["log", "message", "record", "logEvents", "error_severity", "log_time", "process_id"]),
                inner,
            )
        ),
    )
)
def test_unwrapping_is_total(value: Any) -> None:
    """Whatever is wrapped, lines come out or none."""
    assert all(isinstance(line, bytes) for line in lines(value))


@given(st.binary(max_size=300))
def test_framing_is_total(line: bytes) -> None:
    """Any bytes give bytes that are no longer."""
    assert len(unframed(line)[0]) <= len(line)
