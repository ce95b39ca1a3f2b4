"""What can happen to a log, on the real collector: counted, told, survived, and nothing else lost or read twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collectors.log import collector, reading
from collectors.log.sources import files
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.events import Control, Gap, Statement
from pgwitness.demo.servers import Broker
from tests.collectors.log_server import ENDINGS, PREFIX
from tests.collectors.raw_topic import Bench, bench, context_of
from tests.collectors.test_log_collector import await_marks, collecting, expected, marks, running, told

AT = "2026-11-22 21:26:30.123 UTC"
LABELS = ("shop", "db.example:5432")


@contextmanager
def following(
    folder: Path, broker: Broker, config_factory: Callable[..., Config], log_format: str, pattern: str = ""
) -> Iterator[Bench]:
    """A configuration for files that the test writes itself, in `folder/log`."""
    (folder / "log").mkdir()
    path = folder / "log" / (pattern or f"*.{ENDINGS[log_format]}")
    extra = (
        f'[clusters.shop.log]\npath = "{path}"\nformat = "{log_format}"\nline_prefix = "{PREFIX}"\n'
        'interval = "20ms"\nstart = "beginning"\n'
    )
    dsn = "postgresql://pgwitness@db.example/postgres"
    with bench(config_factory(folder, broker.bootstrap, dsn, cluster_extra=extra)) as made:
        yield made


@pytest.fixture(params=list(ENDINGS))
def log_format(request: pytest.FixtureRequest) -> str:
    """Each format in turn."""
    return str(request.param)


@pytest.fixture
def at(
    log_format: str, tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> Iterator[Bench]:
    """A log of files in each format."""
    with following(tmp_path, embedded_broker, config_factory, log_format) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path, log_format: str) -> Path:
    """The first file."""
    return tmp_path / "log" / f"a.{ENDINGS[log_format]}"


def message(log_format: str, number: int, text: str = "'a'\n, 'b'") -> bytes:
    """A message with a statement of two lines."""
    said = f"duration: 0.1 ms  statement: SELECT {text} AS m_{number}_"
    if log_format == "jsonlog":
        return json.dumps(
            {"timestamp": AT, "pid": 41, "user": "app", "dbname": "shop", "session_id": "6b035d50.29",
             "line_num": number, "error_severity": "LOG", "message": said}, ensure_ascii=False
        ).encode() + b"\n"  # fmt: skip
    if log_format == "csvlog":
        return (
            f'{AT},"app","shop",41,"10.0.0.7:5050",6b035d50.29,{number},"SELECT",2026-11-22 20:00:00 UTC,3/9,0,LOG,'
            f'00000,"{said}",,,,,,,,,"web","client backend",,0\n'
        ).encode()
    text = said.replace("\n", "\n\t")
    return f"{AT} [41] app@shop/web 10.0.0.7(5050) 6b035d50.29 {number} 0 0 00000 LOG:  {text}\n".encode()


def append(path: Path, *data: bytes) -> None:
    """Write to the end of a file."""
    with path.open("ab") as file:
        file.write(b"".join(data))


def gaps(at: Bench) -> list[str]:
    """The reasons of the gaps."""
    return [gap.reason for gap in at.raw.of(Gap)]


def test_half_a_line_at_a_restart(at: Bench, path: Path, log_format: str) -> None:
    """The collector ends while the server is writing: the message is read whole afterwards, once."""
    whole = message(log_format, 1)
    append(path, message(log_format, 0), whole[:40])
    with collecting(at) as raised:
        await_marks(at, 1)
    append(path, whole[40:-5])
    with collecting(at) as again:
        pass
    append(path, whole[-5:], message(log_format, 2))
    with collecting(at) as last:
        await_marks(at, 3)
    assert (raised, again, last) == ([], [], [])
    assert marks(told(at)) == expected(3)
    assert gaps(at) == []


def test_a_statement_of_a_megabyte(at: Bench, path: Path, log_format: str) -> None:
    """It is evidence, cut where statements are cut; so is one of a megabyte that does not parse, as a hash."""
    append(path, message(log_format, 0, ", ".join([f"'{'x' * 36}'"] * 25_000)), message(log_format, 1))
    append(path, message(log_format, 2, "(" * 100_000 + "x" * 900_000), message(log_format, 3))
    with collecting(at) as raised:
        await_marks(at, 3)  # all but that of the one without a statement
    assert raised == []
    statements = at.raw.of(Statement)
    assert len(statements) == 4
    assert len(statements[0].statement or "") < 20_000
    assert (statements[2].statement, statements[2].statement_hash is None) == (None, False)
    assert gaps(at) == []


def test_bytes_that_are_no_utf8(at: Bench, path: Path, log_format: str) -> None:
    """A database in another encoding: its statements are read and counted."""
    counter = reading.INVALID.labels(*LABELS)
    before = counter._value.get()
    append(path, message(log_format, 0, "'ä'").replace("ä".encode(), b"\xe4"), message(log_format, 1))
    with collecting(at) as raised:
        await_marks(at, 2)
    assert raised == []
    assert at.raw.of(Statement)[0].statement == "SELECT $1 AS m_0_"
    assert counter._value.get() == before + 1
    assert gaps(at) == []


@pytest.mark.parametrize("garbage", [b"\0" * 5_000, b'\xff\xfe\0\n"\n', b'",",",\n', b"{" * 10_000, bytes(range(256))])
def test_garbage_between_messages(at: Bench, path: Path, log_format: str, garbage: bytes) -> None:
    """Zeros after a crash of the machine, quotes, any bytes: told with a keyed hash, and what follows is read."""
    append(path, message(log_format, 0), garbage, b"\n", message(log_format, 1), message(log_format, 2))
    with collecting(at) as raised:
        await_marks(at, 3)
        at.raw.wait(lambda: gaps(at) != [], "the gap")
    assert raised == []
    assert marks(told(at)) == expected(3)
    assert set(gaps(at)) == {"log_unreadable"}


def test_a_file_emptied_in_place(at: Bench, path: Path, log_format: str) -> None:
    """What may have been written before the emptying is a gap; what comes after is read."""
    append(path, *(message(log_format, number) for number in range(3)))
    with collecting(at) as raised:
        await_marks(at, 2)
        path.write_bytes(b"")
        at.raw.wait(lambda: gaps(at) != [], "the gap")
        append(path, *(message(log_format, number) for number in range(3, 6)))
        await_marks(at, 6)
    assert raised == []
    assert marks(told(at)) == expected(6)
    assert gaps(at) == ["log_truncated"]


def test_rotation_in_the_middle_of_a_message(at: Bench, path: Path, log_format: str) -> None:
    """The next file begins while a message has no end: the next file is read, and the half is told when it goes."""
    whole = message(log_format, 1)
    following_path = path.with_name(f"b.{ENDINGS[log_format]}")
    append(path, message(log_format, 0), whole[:30])
    with collecting(at) as raised:
        await_marks(at, 1)
        append(following_path, whole[30:], *(message(log_format, number) for number in range(2, 5)))
        await_marks(at, 4)
        path.unlink()
        append(following_path, message(log_format, 5))
        at.raw.wait(lambda: "log_half_record" in gaps(at), "the half message")
        await_marks(at, 5)
    assert raised == []
    assert marks(told(at)) == ["0", "2", "3", "4", "5"]
    assert set(gaps(at)) == {"log_half_record", "log_unreadable"}


def test_the_last_message_of_a_rotated_file(at: Bench, path: Path, log_format: str) -> None:
    """Nothing follows it in its file, and the next file is never quiet: it is read all the same."""
    append(path, message(log_format, 0))
    busy = path.with_name(f"b.{ENDINGS[log_format]}")
    number = iter(range(1, 1_000))

    def arrived() -> bool:
        append(busy, message(log_format, next(number)))
        return any("m_0_" in (event.statement or "") for event in at.raw.of(Statement))

    with collecting(at) as raised:
        at.raw.wait(arrived, "the last message of the first file")
    assert raised == []
    assert gaps(at) == []


def test_files_of_another_format_beside(
    tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """The pattern takes in csvlog besides jsonlog, or the server changes over: told, and no line of the log is lost."""
    with following(tmp_path, embedded_broker, config_factory, "jsonlog", "*") as at:
        log = tmp_path / "log"
        append(log / "a.json", message("jsonlog", 0))
        with collecting(at) as raised:
            await_marks(at, 1)
            append(log / "a.csv", message("csvlog", 9), message("csvlog", 9))
            append(log / "a.log", message("stderr", 9))
            append(log / "a.json", message("jsonlog", 1))
            await_marks(at, 2)
            at.raw.wait(lambda: gaps(at) != [], "the gap")
            append(log / "b.json", message("jsonlog", 2))
            await_marks(at, 3)
        assert raised == []
        assert marks(told(at)) == expected(3)
        assert set(gaps(at)) == {"log_unreadable"}


def test_a_state_that_cannot_be_written(at: Bench, path: Path, log_format: str) -> None:
    """The disk is full, say: the log is collected on, the collector is not ready and says why, until it can write."""
    append(path, message(log_format, 0))
    context = context_of(at.config, at.publisher)
    failures = files.STATE_FAILURES.labels(*LABELS)
    before = failures._value.get()
    with running(lambda stop: collector.run(context, stop)) as raised:
        await_marks(at, 1)
        (state,) = at.config.collectors.state_path.glob("log-*.json")
        blocked = state.with_name(f"{state.name}.new")
        blocked.mkdir()
        append(path, message(log_format, 1), message(log_format, 2))
        await_marks(at, 2)
        at.raw.wait(lambda: context.health.not_ready() != [], "trouble")
        assert "collectors.state_path" in context.health.not_ready()[0]
        assert failures._value.get() > before
        blocked.rmdir()
        at.raw.wait(lambda: context.health.not_ready() == [], "the end of it")
    with collecting(at):
        append(path, message(log_format, 3), message(log_format, 4))
        await_marks(at, 4)
    assert raised == []
    assert marks(told(at))[:4] == expected(4)
    assert gaps(at) == []


def test_the_first_state_must_be_written(at: Bench, path: Path) -> None:
    """A first start that could not say where it began would lose lines without a word after a crash: it waits."""
    folder = at.config.collectors.state_path
    folder.mkdir(parents=True)
    (folder / "log-shop.json.new").mkdir()
    with running(lambda stop: collector.run(context_of(at.config, at.publisher), stop)) as raised:
        at.raw.wait(lambda: raised != [], "the error")
    assert isinstance(raised[0], Retry)


def test_a_log_that_nobody_understands(
    tmp_path: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """Many lines and nothing known in them are a gap, told once; when something known comes, that is told too."""
    with following(tmp_path, embedded_broker, config_factory, "jsonlog") as at:
        foreign = message("jsonlog", 0).replace(b"duration: 0.1 ms  statement:", b"trajanje: 0.1 ms  stavek:")
        append(tmp_path / "log" / "a.json", foreign)
        with collecting(at) as raised:
            append(tmp_path / "log" / "a.json", *[foreign] * (2 * reading.UNKNOWN_LINES_MIN))
            at.raw.wait(lambda: gaps(at) != [], "the gap")
            append(tmp_path / "log" / "a.json", *[foreign] * reading.UNKNOWN_LINES_MIN, message("jsonlog", 0))
            at.raw.wait(lambda: at.raw.of(Control) != [], "its end")
        assert raised == []
        assert gaps(at) == ["log_not_understood"]
        assert [event.operation for event in at.raw.of(Control)] == ["log_understood"]
