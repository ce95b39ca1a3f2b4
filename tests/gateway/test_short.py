"""The short lane does what the session does, or nothing; without a compiler there is none, and nothing else changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from collectors.gateway.connection import Connection, House
from collectors.gateway.judging.judge import Judging
from collectors.gateway.link import Link
from collectors.gateway.session.actions import Moment
from collectors.gateway.session.session import Session
from collectors.gateway.spool.ledger import Lines, ledger
from collectors.gateway.spool.records import Begun
from collectors.gateway.spool.spool import BEGINS, Reader, Spool
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import frame
from collectors.gateway.wire.native import SWITCH, VERSION, Native, load, native
from hatch_build import compiled
from pgwitness.core.privacy import tokenizer
from tests.conftest import leave_out
from tests.gateway.conftest import running
from tests.gateway.short import OPENED, Twin, compare, compare_shape, decided, jumble, twins, written
from tests.gateway.test_refusals import policy, rules

SOURCE = Path(__file__).parents[2] / "collectors/gateway/wire/native.c"
NOW = Moment(1_700_000_000_000_000, 1_000)
ANSWER = frame(b"C", b"SELECT 1\0") + backend.ready("I")


def made(folder: Path, source: bytes) -> Path:
    """Compile a source; gives the library."""
    file = folder / SOURCE.name
    file.write_bytes(source)
    failed = compiled(file)
    if failed is not None:
        leave_out(failed)
    return file.with_suffix(".native")


USERS = ("session.short", "spool.ledger", "judging.judge")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """Give the library as an installation makes it, whatever this one has."""
    found = load(made(tmp_path_factory.mktemp("native"), SOURCE.read_bytes()))
    assert found is not None
    with pytest.MonkeyPatch.context() as patch:
        for name in USERS:
            patch.setattr(f"collectors.gateway.{name}.native", lambda: found)
        yield found


def test_sessions_cannot_be_told_apart(library: Native) -> None:
    """Whatever is asked and answered, both lanes send and write down the same; and the short one takes its share."""
    took = compare(library, 250, 1)
    assert took["client"] > 500
    assert took["server"] > 500


def test_shapes_are_those_of_python(library: Native) -> None:
    """A text has the shape that Python finds, or none; most statements with other literals have one."""
    chance = random.Random(1)
    for _ in range(5_000):
        compare_shape(library, jumble(chance))
    assert sum(compare_shape(library, written(chance)) for _ in range(5_000)) > 3_000


def at_rest(library: Native) -> Twin:
    """Give a session that has decided on one statement."""
    one, _ = twins(library, decided())
    for _ in range(2):
        one.of_client(frontend.query("SELECT a FROM t WHERE b = 1"), NOW)
        one.of_server(ANSWER, NOW)
    one.state()
    assert one.session.lane is not None
    return one


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("SELECT a FROM t WHERE b = 12345", True),
        ("SELECT a FROM t WHERE b = 1.5", True),
        ("SELECT a FROM t WHERE b = 'x'", False),
        ("SELECT a FROM t WHERE b = 1 ", False),
        ("SELECT a FROM t WHERE b = -- \n1", False),
        ("DELETE FROM victim", False),
    ],
)
def test_what_is_taken(library: Native, text: str, short: bool) -> None:
    """A statement of a shape that was decided on is; another one is not."""
    one = at_rest(library)
    one.of_client(frontend.query(text), NOW)
    assert one.took["client"] == 1 + short


def test_other_rules_hold_at_once(library: Native) -> None:
    """What is denied from now on is denied in a session that the short lane serves."""
    one = at_rest(library)
    judging = one.session._judge._judging  # type: ignore[attr-defined]
    reads = '"\\"select\\" in statement.operations"'
    judging.adopt(rules(policy(when=reads)))
    sent, _, _ = one.of_client(frontend.query("SELECT a FROM t WHERE b = 2"), NOW)
    assert b"pgwitness refused" in sent


@pytest.mark.parametrize("with_library", [True, False])
def test_a_real_session(
    tmp_path: Path, database: str, library: Native, with_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real server every statement is in the evidence once, with its outcome and rows, by either lane."""
    for name in USERS:
        monkeypatch.setattr(f"collectors.gateway.{name}.native", lambda: library if with_library else None)
    with running(tmp_path, database) as gateway:
        with psycopg.connect(gateway.dsn(), autocommit=True) as client:
            client.execute("CREATE TABLE t (a int)")
            for value in range(20):
                client.execute(f"INSERT INTO t VALUES ({value}), ({value})".encode())
                client.execute("SELECT a FROM t WHERE a = %s", [value], prepare=value > 5)
            with client.transaction():
                client.execute("UPDATE t SET a = 1")
            with pytest.raises(psycopg.errors.DivisionByZero):
                client.execute("SELECT 1 / 0")
            client.execute("DELETE FROM t")
        found = gateway.statements()
    assert [one.number for one, _ in found] == list(range(1, len(found) + 1))
    of = {"INSERT": [], "SELECT": [], "UPDATE": [], "DELETE": []}  # type: dict[str, list[tuple[str, int | None]]]
    for begun, ended in found:
        word = (begun.said.statement or "").split(" ")[0]
        of.setdefault(word, []).append((ended.outcome, ended.rows))
    assert of["INSERT"] == [("success", 2)] * 20
    assert of["SELECT"] == [("success", 2)] * 20 + [("failure", None)]
    assert of["UPDATE"] == [("pending", 40)]
    assert of["DELETE"] == [("success", 40)]


def test_both_ledgers_keep_the_order(library: Native) -> None:
    """What was added comes back in its order, once, with how many statements begin in it."""
    for one in (Lines(), library.ledger()):
        one.add(b"", 0)
        for number in range(2_000):
            one.add(b"%d\n" % number, number % 2)
        assert one.take() == (b"".join(b"%d\n" % number for number in range(2_000)), 1_000)
        assert one.take() == (b"", 0)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"version", %d' % VERSION, b'"version", 0'), (b"PyInit_pgwitness", b"PyInit_other")]
)
def test_a_library_of_another_version_is_not_used(tmp_path: Path, old: bytes, new: bytes) -> None:
    """It is as if it were not there; so is what is no library, and one that is switched off."""
    assert old in SOURCE.read_bytes()
    assert load(made(tmp_path, SOURCE.read_bytes().replace(old, new))) is None
    assert load(SOURCE) is None
    assert load(tmp_path / "none") is None


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then everything is done in Python."""
    monkeypatch.setenv(SWITCH, "0")
    assert native.__wrapped__() is None
    monkeypatch.setattr("collectors.gateway.spool.ledger.native", lambda: None)
    assert isinstance(ledger(), Lines)


class Transport:
    """A transport that keeps what is written, with whatever else happens."""

    def __init__(self, happened: list[tuple[str, bytes]], name: str) -> None:
        self.happened, self.name, self.protocol = happened, name, Link()
        self.protocol.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.happened.append((self.name, data))

    def set_protocol(self, protocol: Link) -> None:
        self.protocol = protocol

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize("behind", [frame(b"X"), frontend.query("SELECT 2"), frame(b"S")])
def test_nothing_overtakes_what_is_held_back(library: Native, tmp_path: Path, behind: bytes) -> None:
    """What the short lane has taken is on the spool before it goes to the server, and what comes behind goes behind."""
    happened: list[tuple[str, bytes]] = []
    spool = Spool(tmp_path, 1 << 30)
    query = frontend.query("SELECT a FROM t WHERE b = 1")

    async def one_session() -> None:
        judging = Judging(tokenizer(b"k" * 32), decided())
        house = House({}, spool, judging, None, None, 1.0, 2)
        client, server = Transport(happened, "client"), Transport(happened, "server")
        judge = judging.session(OPENED)
        session = Session(7, {}, judge, house.ledger)
        there = SimpleNamespace(link=server.protocol)
        Connection(house, session, client.protocol, there, b"", OPENED, judge).begin()  # type: ignore[arg-type]
        for _ in range(3):
            client.protocol.data_received(query)
            await asyncio.sleep(0)
            server.protocol.data_received(ANSWER)
        assert happened == [("server", query), ("client", ANSWER)] * 3
        assert session.lane is not None
        assert session.lane.rows == 2
        happened.clear()
        client.protocol.data_received(query)
        assert session.lane.holding
        client.protocol.data_received(behind)
        assert happened == []
        await asyncio.sleep(0)
        records = [record for _, record in Reader(tmp_path, 0).read(spool.end)]
        assert sum(isinstance(record, Begun) for record in records) == 4 + (behind[:1] == b"Q")
        assert b"".join(data for _, data in happened) == query + behind

    asyncio.run(one_session())
    spool.close()


def test_begun_is_told_by_how_its_line_begins(library: Native) -> None:
    """Of lines that cannot be written down those are kept that say how something has ended."""
    one = at_rest(library)
    one.of_client(frontend.query("SELECT a FROM t WHERE b = 2"), NOW)
    line = one.state()[-1]
    assert isinstance(line, bytes)
    assert line.startswith(BEGINS)
    assert Begun.__struct_config__.tag == "begun"
