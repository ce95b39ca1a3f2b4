"""Reading a lake in a bucket: the same views with the same answers, and only what its log names."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pgwitness.core.config import S3
from pgwitness.core.errors import NotInOrder, Unreachable
from pgwitness.core.events import Position
from sinks.lake.storage.objects import Objects
from sinks.lake.storage.store import Store
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from sinks.sql import bucket, query
from sinks.sql.catalogue import connect
from sinks.sql.evidence import Evidence
from tests.servers.s3 import QUICK, Proxy, S3Server
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, Finding, Judgement, change, other

QUESTIONS = (
    "SELECT * FROM events ORDER BY event_id",
    "SELECT event_id, before, after FROM changes ORDER BY event_id",
    "SELECT dt, count(*) FROM events GROUP BY ALL ORDER BY ALL",
    "SELECT count(*) FROM events WHERE dt = DATE '2026-09-23'",
    "SELECT uid, count FROM alerts ORDER BY ALL",
    "SELECT * FROM coverage ORDER BY ALL",
    "SELECT to_json(o) FROM ocsf_datastore_activity AS o ORDER BY ALL",
    "FROM touched('public.orders', 7)",
    "SELECT event_id FROM timeline('maria') ORDER BY ALL",
)


def fill(place: Path | Store) -> None:
    """Land three commits over two days."""
    names = iter(f"{number:032x}" for number in range(1_000))
    lake = Lake(place, clock_us=lambda: NOON_US, unique=lambda: next(names))
    writer = lake.writer("events", 0)
    writer.resume()
    for offset in range(3):
        events: list[Any] = [
            change(n, at=Position(0, n, 0), captured_at_us=NOON_US + n + (DAY_US if n % 3 == 0 else 0))
            for n in range(1 + offset * 10, 11 + offset * 10)
        ]
        events.append(other(500 + offset, at=Position(1, offset, 0), principal="maria", principal_kind="human"))
        verdicts = [ORDINARY] * (len(events) - 1) + [Judgement(alerts=[Finding(f"a{offset}", {"count": 1})])]
        writer.append(offset, events, verdicts)
        lake.commit([writer])


def ask(place: Path | Store, question: str) -> list[tuple[Any, ...]]:
    """Ask one question."""
    with connect(place) as connection:
        return list(query.ask(connection, question).rows)


@pytest.fixture
def store(s3: S3Server) -> Objects:
    """A lake that is filled."""
    made = s3.objects(s3.bucket())
    fill(made)
    return made


def test_questions_have_the_answers_that_a_folder_gives(store: Objects, tmp_path: Path) -> None:
    """Each view and macro, over the same evidence."""
    fill(tmp_path / "lake")
    for question in QUESTIONS:
        assert ask(store, question) == ask(tmp_path / "lake", question), question
    assert ask(store, "SELECT count(*) FROM events") == [(33,)]


def test_a_replay_sees_the_same_events(store: Objects, tmp_path: Path) -> None:
    """In the same order."""
    fill(tmp_path / "lake")
    with Evidence(store, 0) as there, Evidence(tmp_path / "lake", 0) as here:
        assert [past.event for past in there] == [past.event for past in here]
        assert there.total() == here.total() == 33


def test_a_connection_that_is_kept_sees_what_lands(store: Objects) -> None:
    """Also behind files that it has read."""
    with connect(store) as connection:
        assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(33,)]
        lake = Lake(store)
        writer = lake.writer("events", 0)
        writer.resume()
        writer.append(3, [change(900, at=Position(0, 900, 0))], [ORDINARY])
        lake.commit([writer])
        assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(34,)]


def test_only_the_lake_is_read_and_nothing_is_written(store: Objects) -> None:
    """Neither other objects of the bucket, nor files of this host."""
    store.put("events/dt=2026-09-22/planted.parquet", b"planted")
    with connect(store) as connection:
        assert list(query.ask(connection, "SELECT count(*) FROM events").rows) == [(33,)]
        for hostile in (
            f"SELECT * FROM read_parquet('{store.path}/events/dt=2026-09-22/planted.parquet')",
            f"SELECT * FROM read_text('{store.path}/../../head.json')",
            f"SELECT * FROM read_text('{store.path}/head.json')",
            "SELECT * FROM read_text('/etc/hostname')",
            f"COPY (SELECT 1) TO '{store.path}/events/new.csv'",
        ):
            with pytest.raises(NotInOrder):
                query.ask(connection, hostile)
            with suppress(duckdb.Error):
                assert connection.execute(hostile).fetchall() == []
    assert not store.has("events/new.csv")


def test_a_file_that_is_gone_or_altered_fails_the_query_and_says_so(store: Objects) -> None:
    """It is never passed over; the other days answer."""
    listing = Listing(store)
    listing.refresh()
    file = next(file for file in listing.live() if file.table == "events" and "dt=2026-09-23" in file.path)
    content = store.read(file.path)
    assert content is not None
    store.remove(file.path)
    with pytest.raises(NotInOrder, match=f"{file.path}\n.*Ask again"):
        ask(store, "SELECT count(*) FROM events")
    assert ask(store, "SELECT count(*) > 0 FROM events WHERE dt = DATE '2026-09-22'") == [(True,)]
    assert listing.missing() == [file.path]
    store.put(file.path, content[:100] + b"x" + content[101:])
    with pytest.raises(NotInOrder, match="is not what its entry says"):
        ask(store, "SELECT count(principal) FROM events")
    store.put(file.path, content)
    assert ask(store, "SELECT count(*) FROM events") == [(33,)]


def test_who_may_not_read_row_images_has_everything_else(s3: S3Server, store: Objects) -> None:
    """As in a folder: `before` and `after` are empty."""
    proxy = Proxy(s3, lambda method, path: 403 if "/rows/" in path else None)
    proxy.code = "AccessDenied"
    try:
        closed = proxy.objects(store.path)
        assert ask(closed, "SELECT count(*), count(after) FROM changes") == [(30, 0)]
        assert ask(store, "SELECT count(*), count(after) FROM changes") == [(30, 30)]
    finally:
        proxy.close()


def test_where_there_is_no_lake_or_no_answer_it_says_so(s3: S3Server) -> None:
    """Before anything is opened."""
    with pytest.raises(NotInOrder, match="there is no evidence lake at s3://"):
        connect(s3.objects(s3.bucket()))
    proxy = Proxy(s3, lambda method, path: 503)
    try:
        with pytest.raises(NotInOrder, match=r"503.*raise its limits"):
            connect(proxy.objects(s3.bucket()))
    finally:
        proxy.close()
    with pytest.raises(Unreachable, match=r"cannot be reached .*look at the network"):
        connect(Objects(s3.bucket(), S3(endpoint="http://127.0.0.1:1"), **QUICK))


def test_long_files_are_read_in_parts(store: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same answers, whatever the length of a block is, and what was fetched is not fetched again."""
    expected = [ask(store, question) for question in QUESTIONS[:5]]
    for length, asked in ((31, 1), (1_000, 3), (10_000, 5)):  # the shorter, the more requests a question takes
        monkeypatch.setattr(bucket, "BLOCK_BYTES", length)
        monkeypatch.setattr(bucket, "WHOLE_BYTES", 0)
        monkeypatch.setattr(bucket, "CACHE_BYTES", 20_000)
        assert [ask(store, question) for question in QUESTIONS[:asked]] == expected[:asked]


def test_any_part_of_a_file_is_what_stands_there(store: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across blocks, at the end, and behind it."""
    monkeypatch.setattr(bucket, "BLOCK_BYTES", 64)
    monkeypatch.setattr(bucket, "WHOLE_BYTES", 0)
    listing = Listing(store)
    listing.refresh()
    files = bucket.Bucket(store)
    files.show(listing.live())
    name = listing.live()[0].path
    content = store.read(name) or b""
    opened = files.open(f"{store.path}/{name}")
    chance = random.Random(0)
    for _ in range(100):
        start, length = chance.randrange(len(content)), chance.randrange(1, 500)
        opened.seek(start)
        assert opened.read(length) == content[start : start + length]
    assert opened.seek(0, 2) == len(content)
    assert opened.read(10) == b""


def test_the_views_for_a_plain_duckdb_read_the_lake_from_anywhere(
    store: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`views.sql` names objects from the bucket on; tried on a copy of the lake, since DuckDB's wheel reads no S3."""
    script = (store.read("views.sql") or b"").decode()
    assert f"FROM read_text('{store.path}/head.json')" in script
    fill(tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(script.replace(f"{store.path}/", f"{tmp_path}/lake/"))
        for question in QUESTIONS:
            assert connection.execute(question).fetchall() == ask(store, question), question
