"""Anchors: what they are given, when, what is kept of their answers, and what a sealer finds there."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pgwitness.core.config import Anchor, Config, Lake, Seal
from pgwitness.core.errors import ConfigurationError, Retry, Stop
from pgwitness.core.units import Duration
from pgwitness.core.webhooks import signed
from pgwitness.demo.servers import Broker
from sinks.seal import anchors, keys
from sinks.seal.anchors.given import notes
from sinks.seal.anchors.timestamp import certificates, stamped_at_us
from sinks.seal.opening import Opened, open_sealer
from sinks.seal.prove import prove
from sinks.seal.tlog.note import public_key
from sinks.seal.verification.bundle import verify_bundle
from sinks.seal.verification.verify import Wanted, verify
from streams.kafka import admin
from streams.kafka.reading import make_reader, read
from tests.sinks.material import NOON_US
from tests.sinks.seal.authority import authority, establish
from tests.sinks.seal.material import checkpoint, grow

HOUR_US = 3_600_000_000


class Clock:
    """A clock that stands."""

    now_us = NOON_US

    def __call__(self) -> int:
        """Tell the time."""
        return self.now_us


def configured(folder: Path, **targets: Anchor) -> Config:
    """Configure a lake, whose sealer has a key, with these anchors."""
    seal = Seal(key=folder / "seal.key", state_path=folder / "memory", anchors=targets)
    config = Config(lake=Lake(path=folder / "lake"), seal=seal)
    if not (folder / "seal.key").exists():
        text = keys.make_key(folder / "seal.key", "example.com/lake").text()
        (folder / "key.pub").write_text(text)
    return config


def round_of(opened: Opened) -> list[str]:
    """Seal, and give the anchors what is due; gives what went wrong."""
    done = opened.sealer.round()
    return opened.anchoring.round(done.lake, done.checkpoint.size, done.note)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a lake."""
    grow(tmp_path / "lake", range(3))
    return tmp_path


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Take what is posted; gives the address and what came."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_gets_a_line_every_so_often_also_when_nothing_came(folder: Path) -> None:
    """So that a lake that was cut off does not look like an idle one."""
    clock, elsewhere = Clock(), folder / "elsewhere.jsonl"
    opened = open_sealer(configured(folder, kept=Anchor(kind="file", path=elsewhere)), clock)
    assert round_of(opened) == []
    assert round_of(opened) == []
    clock.now_us += HOUR_US
    assert round_of(opened) == []
    lines = [json.loads(line) for line in elsewhere.read_text().splitlines()]
    assert [(line["size"], line["at"]) for line in lines] == [(4, "2026-09-22T12:00:00Z"), (4, "2026-09-22T13:00:00Z")]
    assert notes(elsewhere.read_bytes()) == [checkpoint(folder / "lake")] * 2
    grow(folder / "lake", [7])
    clock.now_us -= 3 * HOUR_US  # a clock that is set back must not silence the anchors
    assert round_of(open_sealer(configured(folder, kept=Anchor(kind="file", path=elsewhere)), clock)) == []
    assert len(elsewhere.read_text().splitlines()) == 3
    key = public_key((folder / "key.pub").read_text())
    wanted = Wanted(key, NOON_US, remembered=(("elsewhere", elsewhere.read_bytes()),))
    assert verify(folder / "lake", wanted).findings == []


def test_a_sealer_that_has_lost_everything_still_signs_no_second_history(folder: Path) -> None:
    """The anchor has the checkpoint that memory and seal have no more."""
    config = configured(folder, kept=Anchor(kind="file", path=folder / "elsewhere.jsonl"))
    shutil.copytree(folder / "lake", folder / "older")
    grow(folder / "lake", [7])
    assert round_of(open_sealer(config, Clock())) == []
    shutil.rmtree(folder / "lake")
    shutil.rmtree(folder / "memory")
    shutil.move(folder / "older", folder / "lake")
    with pytest.raises(Stop, match="the anchor kept has a later checkpoint"):
        round_of(open_sealer(config, Clock()))
    grow(folder / "lake", [8, 9])
    with pytest.raises(Stop, match="the anchor kept has a later checkpoint"):
        round_of(open_sealer(config, Clock()))
    assert not (folder / "lake" / "seal" / "checkpoint").exists()


def test_a_torn_line_is_passed_over(folder: Path) -> None:
    """What a kill left of a line is no checkpoint, and the next one begins on a line of its own."""
    elsewhere = folder / "elsewhere.jsonl"
    config = configured(folder, kept=Anchor(kind="file", path=elsewhere))
    clock = Clock()
    assert round_of(open_sealer(config, clock)) == []
    with elsewhere.open("a") as file:
        file.write('{"lake":"x","size":')
    clock.now_us += HOUR_US
    assert round_of(open_sealer(config, clock)) == []
    assert len(notes(elsewhere.read_bytes())) == 2


def test_a_webhook_gets_a_signed_line(folder: Path) -> None:
    """Its receiver can check who sent it; what it does not take is tried again."""
    (folder / "secret").write_text("s3cret")
    with receiver() as (url, got):
        config = configured(folder, hook=Anchor(kind="webhook", url=url, secret_file=folder / "secret"))
        opened = open_sealer(config, Clock())
        assert round_of(opened) == []
        assert round_of(opened) == []
    ((headers, body),) = got
    expected = signed(body, headers["webhook-id"], int(headers["webhook-timestamp"]), b"s3cret")
    assert headers["webhook-signature"] == expected["webhook-signature"]
    assert json.loads(body)["checkpoint"].encode() == checkpoint(folder / "lake")
    (trouble,) = round_of(open_sealer(configured(folder, other=Anchor(kind="webhook", url=url)), Clock()))
    assert trouble.startswith("the anchor other did not take the checkpoint (no answer")
    for status in (302, 500):
        with receiver(status) as (url, got):
            opened = open_sealer(configured(folder, other=Anchor(kind="webhook", url=url)), Clock())
            assert "HTTP" in round_of(opened)[0]
            assert "HTTP" in round_of(opened)[0]
            assert len(got) == 2


def test_an_authority_stamps_checkpoints(folder: Path) -> None:
    """Stamps are kept in the seal; pgwitness and openssl check them; a proof takes one along."""
    root = establish(folder / "tsa")
    lake, clock = folder / "lake", Clock()
    with authority(folder / "tsa") as url:
        config = configured(folder, notary=Anchor(kind="timestamp", url=url, certificates=root))
        assert round_of(open_sealer(config, clock)) == []
    kept = sorted(path.name for path in (lake / "seal" / "anchors").iterdir())
    assert kept == [f"000000000004-{NOON_US}.checkpoint", f"000000000004-{NOON_US}.notary.tsr"]
    note, stamp = ((lake / "seal" / "anchors" / name) for name in kept)
    done = subprocess.run(
        ["openssl", "ts", "-verify", "-in", stamp, "-data", note, "-CAfile", root],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Verification: OK" in done.stdout + done.stderr

    grow(lake, [7])
    open_sealer(config, clock).sealer.round()
    key = public_key((folder / "key.pub").read_text())
    trusted = tuple(certificates(root))
    report = verify(lake, Wanted(key, NOON_US, unanchored=True, trusted=trusted))
    assert report.findings == []
    assert report.anchored_at_us == stamped_at_us(stamp.read_bytes(), note.read_bytes(), list(trusted)) > NOON_US
    prove(lake, lake / "seal", key, f"{1:032x}-0", folder / "proof")
    assert (folder / "proof" / "checkpoint.tsr").read_bytes() == stamp.read_bytes()
    bundle = verify_bundle(folder / "proof", key, trusted)
    assert bundle.findings == []
    assert bundle.anchored_at_us == report.anchored_at_us

    other = certificates(establish(folder / "other"))
    assert [found.kind for found in verify_bundle(folder / "proof", key, other).findings] == ["altered"]
    content = bytearray(stamp.read_bytes())
    content[len(content) // 2] ^= 1
    stamp.write_bytes(bytes(content))
    report = verify(lake, Wanted(key, NOON_US, unanchored=True, trusted=trusted))
    assert {(found.kind, found.subject) for found in report.findings} == {("altered", f"seal/anchors/{kept[1]}")}


def test_a_stamp_that_does_not_fit_is_not_kept(folder: Path) -> None:
    """The authority of another root, and whoever answers anything else."""
    establish(folder / "tsa")
    other = establish(folder / "other")
    with authority(folder / "tsa") as url, receiver() as (nowhere, _):
        wrong = Anchor(kind="timestamp", url=url, certificates=other)
        empty = Anchor(kind="timestamp", url=nowhere, certificates=other)
        troubles = round_of(open_sealer(configured(folder, wrong=wrong, empty=empty), Clock()))
    assert [trouble.split(" (")[0] for trouble in troubles] == [
        "the anchor wrong did not take the checkpoint",
        "the anchor empty did not take the checkpoint",
    ]
    assert not (folder / "lake" / "seal" / "anchors").exists()


def test_a_topic_keeps_checkpoints(
    folder: Path, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """Under the lake's id, each as it was signed."""
    there = config_factory(folder, embedded_broker.bootstrap, "postgresql://localhost/shop")
    admin.apply(there)
    config = msgspec.structs.replace(configured(folder, topic=Anchor(kind="topic")), kafka=there.kafka)
    opened = open_sealer(config, Clock())
    assert round_of(opened) == []
    reader = make_reader(there.kafka)
    try:
        (record,) = read(reader, there.kafka.topic("checkpoints"), 0)
    finally:
        reader.close()
    done = opened.sealer.round()
    assert (record.key(), record.value()) == (done.lake.encode(), done.note)


def test_a_topic_that_is_not_there_is_said(folder: Path) -> None:
    """A broker that does not answer stops no seal."""
    config = msgspec.structs.replace(
        configured(folder, topic=Anchor(kind="topic", timeout=Duration(0.3))),
        kafka=msgspec.structs.replace(Config().kafka, bootstrap="127.0.0.1:1"),
    )
    (trouble,) = round_of(open_sealer(config, Clock()))
    assert "topic pgwitness.checkpoints" in trouble


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "file"}, "seal.anchors.x.path"),
        ({"kind": "webhook"}, "an address that begins with https://"),
        ({"kind": "webhook", "url": "file:///etc/passwd"}, "an address that begins with https://"),
        ({"kind": "timestamp", "url": "http://localhost"}, "the authority's certificates"),
        ({"kind": "timestamp", "url": "http://localhost", "certificates": Path("nowhere")}, "has no certificates"),
    ],
)
def test_what_an_anchor_lacks_is_said(folder: Path, settings: dict[str, Any], said: str) -> None:
    """Before anything is signed."""
    with pytest.raises(ConfigurationError, match=said):
        anchors.make(configured(folder, x=Anchor(**settings)))


def test_an_anchor_in_the_lake_and_a_strange_name_are_refused(folder: Path) -> None:
    """Neither would be out of reach, nor a name of a file."""
    with pytest.raises(ConfigurationError, match="lies in the lake"):
        anchors.make(configured(folder, x=Anchor(kind="file", path=folder / "lake" / "kept")))
    with pytest.raises(ConfigurationError, match="letters, digits"):
        open_sealer(configured(folder, **{"../x": Anchor(kind="file", path=folder / "kept")}))


def test_an_anchor_that_cannot_be_read_is_waited_for(folder: Path) -> None:
    """Nothing is signed before it is known what it has."""
    (folder / "kept").mkdir()
    with pytest.raises(Retry, match="the anchor x could not be read"):
        open_sealer(configured(folder, x=Anchor(kind="file", path=folder / "kept"))).sealer.round()
