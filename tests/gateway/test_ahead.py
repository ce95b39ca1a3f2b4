"""Long texts are read elsewhere, as they would be read here, and hold up nobody but their own session."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

from collectors.gateway.judging.ahead import LONG_BYTES, Ahead
from collectors.gateway.judging.judge import Judging, Settings
from collectors.gateway.wire import frontend
from collectors.gateway.wire.frames import Frames, frame
from pgwitness.core.privacy import tokenizer
from tests.gateway.conftest import Running

KEY = b"k" * 32
LONG = "SELECT 1 WHERE 1 IN (" + ",".join(map(str, range(10_000))) + ")"
TEXTS = (
    LONG,
    LONG.replace("SELECT 1", "SELECT 'é'"),
    "DO $$ BEGIN " + "PERFORM f(1);" * 4_000 + " END $$",
    "x" * 40_000,
)


def test_the_other_process_says_the_same() -> None:
    """What it says of a text is what is said here; when it was lost, the next text finds another one."""
    here, ahead = Judging(tokenizer(KEY)), Ahead(KEY)

    async def ask() -> None:
        for text in TEXTS:
            for settings in (Settings("UTF8", True), Settings("LATIN1", False)):
                assert await ahead.read(text.encode(), settings) == here.read(text.encode(), settings)
        assert ahead._pipe is not None
        ahead._pipe.close()
        assert await ahead.read(LONG.encode(), Settings("UTF8", True)) is None
        assert await ahead.read(LONG.encode(), Settings("UTF8", True)) is not None

    try:
        asyncio.run(ask())
    finally:
        ahead.close()


@pytest.mark.parametrize("cut", [3, 40_000, 48_000])
def test_long_messages_are_seen_before_they_are_taken(cut: int) -> None:
    """With the read that makes a long message whole it is listed, and nothing is taken by that."""
    walker = Frames(frontend.WANTED, "frontend")
    data = frame(b"S") + frontend.query("SELECT 1") + frontend.query(LONG) + frame(b"H")
    seen = [message.body[:-1].decode() for message in walker.whole_with(data[:cut], LONG_BYTES)]
    walker.feed(data[:cut])
    seen += [message.body[:-1].decode() for message in walker.whole_with(data[cut:], LONG_BYTES)]
    assert seen == [LONG]
    walker.feed(data[cut:])
    assert walker.between


class Waits:
    """Reads nothing until it is let; says when it was asked."""

    def __init__(self) -> None:
        self.asked, self.let = threading.Event(), threading.Event()

    async def read(self, _text: bytes, _settings: Settings) -> None:
        self.asked.set()
        await asyncio.to_thread(self.let.wait)


def test_only_its_own_session_waits(gateway: Running) -> None:
    """While a long text is read, others run theirs; then it runs, and what was sent behind it in its order."""
    waits = Waits()
    gateway.house.ahead = waits  # type: ignore[assignment]
    with (
        psycopg.connect(gateway.dsn(), autocommit=True) as slow,
        psycopg.connect(gateway.dsn(), autocommit=True) as other,
    ):
        done: list[int] = []

        def run() -> None:
            with slow.pipeline():
                cursors = [slow.execute(text, prepare=False) for text in (LONG, "SELECT 2", LONG)]
            done.extend(row[0] for cursor in cursors for row in cursor.fetchall())

        thread = threading.Thread(target=run)
        thread.start()
        assert waits.asked.wait(20)
        assert other.execute("SELECT 3").fetchone() == (3,)
        assert not done
        waits.let.set()
        thread.join(20)
        assert done == [1, 2, 1]
    statements = gateway.statements(2)
    assert sorted(ended.outcome for _, ended in statements) == ["success"] * 4
