"""What every registered alert target promises, held on real receivers on this machine.

A new target is added to `sinks.deliveries.targets.TARGETS`, to the kinds of `Delivery`, and to `MATERIAL`: a receiver,
and settings for one that is not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest
from msgspec.structs import replace

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import AlertTarget, NotTaken
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration
from sinks.deliveries import targets
from sinks.deliveries.routing import Item
from tests.sinks.test_deliveries import HOSTILE, hooks, item, syslog_server

TIMEOUT_S = 2.0
SECONDS_MAX = 10.0
SECRET = "T0SECRET"

Received = Callable[[], list[bytes]]
"""Gives what a receiver has taken so far, one item each."""


@dataclass(frozen=True)
class Material:
    """`receiver` runs one in a folder and gives the settings that lead to it; `gone` are settings that lead nowhere."""

    receiver: Callable[[Path], AbstractContextManager[tuple[Delivery, Received]]]
    gone: Callable[[Path], Delivery]


Posted = Literal["webhook", "slack", "teams", "pagerduty", "splunk", "elastic", "opensearch", "datadog"]


def _posted(kind: Posted) -> Material:
    def settings(folder: Path, url: str) -> Delivery:
        (folder / "key").write_text(SECRET)
        keyed = kind not in ("webhook", "slack", "teams")
        return Delivery(kind=kind, url=url, secret_file=folder / "key" if keyed else None)

    @contextmanager
    def receiver(folder: Path) -> Iterator[tuple[Delivery, Received]]:
        with hooks() as (url, got):
            yield settings(folder, url), lambda: [body for _, body in got]

    return Material(receiver, lambda folder: settings(folder, f"http://127.0.0.1:1/{SECRET}"))


@contextmanager
def _syslog(_: Path) -> Iterator[tuple[Delivery, Received]]:
    with syslog_server() as (address, got):
        yield Delivery(kind="syslog", address=address, transport="tcp"), lambda: got


@contextmanager
def _file(folder: Path) -> Iterator[tuple[Delivery, Received]]:
    path = folder / "alerts.jsonl"
    yield Delivery(kind="file", path=path), lambda: path.read_bytes().splitlines() if path.exists() else []


MATERIAL = {
    **{kind: _posted(kind) for kind in get_args(Posted)},
    "syslog": Material(_syslog, lambda _: Delivery(kind="syslog", address="127.0.0.1:1", transport="tcp")),
    "file": Material(_file, lambda folder: Delivery(kind="file", path=folder / "none" / "alerts.jsonl")),
}


@pytest.fixture(params=targets.TARGETS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each registered kind of target in turn."""
    return str(request.param)


def marked(number: int, **changes: Any) -> Item:
    """An alert whose sentence names it."""
    return item(message=f"alert mark-{number} {changes.pop('message', '')}", **changes)


def sending(settings: Delivery, steps: list[Item | None]) -> None:
    """Send items; None closes the target, which goes on after it. Closes it twice at the end."""
    target: AlertTarget[Item] = targets.make("soc", replace(settings, timeout=Duration(TIMEOUT_S)))

    async def work() -> None:
        try:
            for step in steps:
                await (target.close() if step is None else target.send(step))
        finally:
            await target.close()
            await target.close()

    asyncio.run(work())


def arrived(received: Received, number: int) -> list[bytes]:
    """Wait until so many arrived, and give them."""
    deadline = time.monotonic() + SECONDS_MAX
    while len(received()) < number:
        assert time.monotonic() < deadline, f"{len(received())} of {number} arrived"
        time.sleep(0.01)
    return received()


def test_the_configuration_names_every_kind() -> None:
    """What may stand in `kind` is what is registered, and this suite tries all of it."""
    assert set(get_args(get_type_hints(Delivery)["kind"])) == set(targets.TARGETS) == set(MATERIAL)


def test_what_is_missing_is_named_by_its_table(kind: str) -> None:
    """Without any setting of its own, the error names the table of the configuration."""
    with pytest.raises(ConfigurationError, match=r"deliveries\.soc"):
        targets.make("soc", Delivery(kind=kind))  # type: ignore[arg-type]


def test_alerts_arrive_one_by_one_in_order(kind: str, tmp_path: Path) -> None:
    """Each once; closing in between lets go of connections only; the same item again arrives again."""
    with MATERIAL[kind].receiver(tmp_path) as (settings, received):
        sending(settings, [marked(1), marked(2), None, marked(3), marked(3)])
        came = arrived(received, 4)
    marks = [next(n for n in (1, 2, 3) if f"mark-{n} ".encode() in each) for each in came]
    assert sorted(marks) == [1, 2, 3, 3]
    # Behind the closing there is another connection, which a receiver may read first.
    assert [mark for mark in marks if mark < 3] == [1, 2]


@pytest.mark.parametrize("message", [HOSTILE, "x" * 100_000, "\x00\x1b[31m"], ids=["markup", "long", "control"])
def test_no_text_of_an_alert_spoils_the_next_one(kind: str, tmp_path: Path, message: str) -> None:
    """Whatever a client put into a name, each alert is one item for the receiver."""
    with MATERIAL[kind].receiver(tmp_path) as (settings, received):
        sending(settings, [marked(1, message=message), marked(2)])
        came = arrived(received, 2)
    assert len(came) == 2
    assert b"mark-1 " in came[0]
    assert b"mark-2 " in came[1]


def test_a_receiver_that_is_gone_has_not_taken_it(kind: str, tmp_path: Path) -> None:
    """That is `NotTaken`, soon, with a sentence in which no address stands that may be a secret."""
    began = time.monotonic()
    with pytest.raises(NotTaken) as raised:
        sending(MATERIAL[kind].gone(tmp_path), [marked(1)])
    assert time.monotonic() - began < TIMEOUT_S + SECONDS_MAX
    assert str(raised.value)
    assert SECRET not in str(raised.value)
