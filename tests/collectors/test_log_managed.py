"""Logs as managed services write them: what they tell, what they cannot, and who says so."""

from __future__ import annotations

import pytest

from collectors.log.advice import advice
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from pgwitness.core.config import Log
from pgwitness.core.events import SCHEMA_VERSION, Event, RawBatch, RawHeader
from pgwitness.core.privacy import tokenizer
from tests.streams.folding import fold_all

RDS = "%t:%r:%u@%d:[%p]:"
RDS_HEAD = "2026-11-22 21:26:30 UTC:10.0.0.7(5050):app@shop:[41]:"
PREFIXES = {
    RDS: RDS_HEAD,
    "%m [%p]: [%l-1] db=%d,user=%u ": "2026-11-22 21:26:30.000 UTC [41]: [7-1] db=shop,user=app ",  # Cloud SQL
    "%m [%p]: [%l-1] db=%d,user=%u,host=%h ": "2026-11-22 21:26:30.000 UTC [41]: [7-1] db=shop,user=app,host=10.0.0.7 ",
    "%t-%c-user=%u,db=%d,app=%a,client=%h ":
        "2026-11-22 21:26:30 UTC-6922290e.29-user=app,db=shop,app=web,client=10.0.0.7 ",
}  # fmt: skip
BODY = """\
{0}LOG:  connection authenticated: identity="app" method=scram-sha-256 (/etc/pg_hba.conf:13)
{0}LOG:  connection authorized: user=app database=shop application_name=web SSL enabled (protocol=TLSv1.3, bits=256)
{0}LOG:  duration: 12.345 ms  statement: UPDATE orders
\tSET note = 'geheim'
\tWHERE id = 7
{0}LOG:  duration: 1.000 ms  execute <unnamed>: SELECT id FROM orders WHERE note = $1
{0}DETAIL:  parameters: $1 = 'geheim'
{0}ERROR:  duplicate key value violates unique constraint "orders_pkey"
{0}DETAIL:  Key (id)=(geheim) already exists.
{0}STATEMENT:  INSERT INTO orders VALUES ('geheim')
{0}LOG:  AUDIT: SESSION,1,1,WRITE,DELETE,TABLE,public.orders,"DELETE FROM orders WHERE note = 'geheim'",<not logged>
{0}LOG:  disconnection: session time: 0:00:05.000 user=app database=shop host=10.0.0.7 port=5050
2026-11-22 21:26:31 UTC noise without a prefix
"""
CSV = (
    '2026-11-22 21:26:30.123 UTC,"app","shop",41,"10.0.0.7:5050",6922290e.29,7,"UPDATE",2026-11-22 20:00:00 UTC,3/0,'
    '755,LOG,00000,"duration: 12.345 ms  statement: UPDATE orders\nSET note = \'geheim\'",,,,,,,,,"web"\n'
)


def read(settings: Log, data: bytes) -> tuple[list[Event], int]:
    """Read a log to the end; gives what the fold makes of it, and how many records were unreadable."""
    make, parser = formats(settings)
    interpreter = Interpreter(tokenizer(b"k" * 32), settings.format)
    splitter, offset, raw, refused = make(), 0, [], 0
    for piece in [*splitter.feed(data), *splitter.idle()]:
        try:
            raw += interpreter.read(parser.parse(piece.data), "log", offset, 1)
        except ValueError:
            refused += 1
        offset += piece.length
    batch = RawBatch(
        SCHEMA_VERSION, "test", RawHeader("shop", "log", "db:5432"), [*raw, *interpreter.idle("log", offset)]
    )
    return fold_all([batch]), refused


@pytest.mark.parametrize("prefix", PREFIXES)
def test_text_logs_with_a_services_prefix(prefix: str) -> None:
    """Statements, sessions, errors and pgAudit lines are evidence, by role and database, without any value."""
    log = Log(format="stderr", line_prefix=prefix)
    events, refused = read(log, BODY.format(PREFIXES[prefix]).encode())
    assert [event.operation for event in events] == [
        "connect", "update", "select", "insert", "delete", "disconnect",
    ]  # fmt: skip
    assert refused == 1
    assert {(event.role, event.database, event.pid) for event in events} == {("app", "shop", 41)}
    assert events[1].statement == "UPDATE orders SET note = $1 WHERE id = $2"
    assert (events[1].duration_ms, events[1].auth_method) == (12.345, "scram-sha-256")
    assert events[3].outcome == "failure"
    assert "geheim" not in str(events)


def test_what_rds_does_not_tell_is_not_known() -> None:
    """No transaction id, session, query id, application or SQLSTATE: absent, never guessed."""
    events, _ = read(Log(format="stderr", line_prefix=RDS), BODY.format(RDS_HEAD).encode())
    _, update, _, failed, _, _ = events
    assert (update.xid, update.session_id, update.query_id, update.application) == (None, None, None, None)
    assert (update.client_addr, update.client_port) == ("10.0.0.7", 5050)
    assert (failed.sqlstate, failed.detail.get("error")) == (None, 'duplicate key value violates unique constraint "…"')


def test_csvlog_of_a_service_tells_transaction_and_session() -> None:
    """Csvlog has both whatever the prefix is; columns that an old server does not write are not needed."""
    (event,), refused = read(Log(format="csvlog"), CSV.encode())
    assert refused == 0
    assert (event.xid, event.application, event.session_id is None) == (755, "web", False)
    assert "geheim" not in str(event)


def test_the_doctor_says_what_a_prefix_cannot_tell() -> None:
    """Each missing escape is named by what it costs, with the setting that helps; a full prefix and csvlog are fine."""
    (found,) = advice(Log(format="stderr", line_prefix=RDS), RDS, "UTC")
    assert found.subject == "log_line_prefix"
    for word in ("transaction id", "session's start", "query id", "application", "SQLSTATE"):
        assert word in found.problem
    assert "role" not in found.problem
    assert "%x" in found.fix
    full = Log(format="stderr", line_prefix="%m [%p] %q%u@%d/%a %r %c %l %x %v %Q %e ")
    assert advice(full, full.line_prefix, "UTC") == []
    assert advice(Log(format="csvlog"), RDS, "UTC") == []


def test_the_doctor_compares_the_settings_with_the_servers() -> None:
    """A prefix or a zone that is not the server's cannot work; over SQL the server's own are used."""
    full = "%m [%p] %q%u@%d/%a %r %c %l %x %v %Q %e "
    log = Log(format="stderr", line_prefix=full)
    found = advice(log, "%t [%p] ", "Europe/Berlin")
    assert [item.subject for item in found] == ["log.line_prefix", "log.timezone"]
    assert found[1].fix == 'timezone = "Europe/Berlin" in pgwitness.toml'
    assert advice(Log(from_="sql", format="stderr"), full, "Europe/Berlin") == []
    assert advice(log, None, None) == []
