"""A lake in a bucket is sealed where it is, and a bucket with object lock keeps checkpoints."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from pgwitness.cli import main
from pgwitness.core.config import S3, Anchor, Config, Lake, S3Path, Seal
from pgwitness.core.errors import Retry, Stop
from sinks.lake import writer
from sinks.lake.log import chain
from sinks.lake.storage.objects import Objects
from sinks.seal import anchors
from sinks.seal.anchors.given import notes
from sinks.seal.opening import checking_key, open_sealer, sealed_to
from sinks.seal.verification import bucket as verifying_bucket
from sinks.seal.verification.bundle import verify_bundle
from sinks.seal.verification.copies import copy_of
from sinks.seal.verification.verify import Wanted, verify
from tests.servers.s3 import S3Server
from tests.sinks.material import NOON_US, ORDINARY, change
from tests.sinks.seal.material import KEY, named

LOCK = (
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
    "<Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
)


def grow(store: Objects, start: int, count: int) -> None:
    """Land commits of one transaction each."""
    lake = writer.Lake(store, clock_us=lambda: NOON_US)
    one = lake.writer("events", 0)
    end, _ = one.resume()
    for number in range(start, start + count):
        one.append(end + number - start, [change(number)], [ORDINARY])
        one.commit()


def configured(folder: Path, s3: S3Server, path: S3Path, **targets: Anchor) -> Config:
    """Configure a lake in a bucket, and its sealer."""
    key = folder / "seal.key"
    if not key.exists():
        key.write_text(KEY.text())
        key.chmod(0o600)
    seal = Seal(key=key, public_key=KEY.public().text(), state_path=folder / "memory", anchors=targets)
    return Config(lake=Lake(path=path, s3=S3(endpoint=s3.endpoint)), seal=seal)


def copied(store: Objects, folder: Path) -> Path:
    """Copy a bucket into a folder, as any tool does."""
    for name, _ in store.walk(""):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(store.read(name) or b"")
    return folder


def asked(s3: S3Server, method: str, path: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    """Send a request as the bucket's owner would."""
    connection = http.client.HTTPConnection("127.0.0.1", s3.port, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_a_lake_in_a_bucket_is_sealed_and_its_copy_verified(s3: S3Server, tmp_path: Path) -> None:
    """The log lies in the bucket, too; an altered file there is never signed over."""
    path = s3.bucket()
    store, config = s3.objects(path), configured(tmp_path, s3, path)
    grow(store, 0, 3)
    first = open_sealer(config).sealer.round()
    assert (first.checkpoint.size, sealed_to(config)) == (4, 3)
    grow(store, 3, 2)
    running = open_sealer(config).sealer
    assert running.round().entries == 2
    copy = copied(store, tmp_path / "copy")
    report = verify(
        copy, Wanted(checking_key(config), NOON_US, remembered=(("kept", first.note),), rows=True, root=store.root)
    )
    assert report.findings == []
    assert report.sealed_to == 5
    plain = verify(copy, Wanted(checking_key(config), NOON_US, unanchored=True))
    assert named(plain) == {("altered", "views.sql")}  # what it reads is elsewhere

    before = {name for name, _ in store.walk("events")}
    grow(store, 7, 1)
    name = next(name for name, _ in store.walk("events") if name not in before)
    store.replace(name, (store.read(name) or b"")[:-1] + b"X")
    with pytest.raises(Stop, match=r"has the SHA-256 .*: nothing is signed over it"):
        running.round()
    store.remove(name)
    with pytest.raises(Stop, match="is missing: nothing is signed over it"):
        running.round()
    assert sealed_to(config) == 5


def test_a_bucket_that_does_not_answer_is_waited_for(s3: S3Server, tmp_path: Path) -> None:
    """The text says what to look at, and the next round goes on."""
    path = s3.bucket()
    config = configured(tmp_path, s3, S3Path(f"s3://{path.bucket}-not/lake"))
    with pytest.raises(Retry, match="could not be read or its seal not written"):
        open_sealer(config).sealer.round()


def test_a_locked_bucket_keeps_checkpoints(s3: S3Server, tmp_path: Path) -> None:
    """Nobody takes one back, and a sealer that has lost everything finds it there."""
    path, locked = s3.bucket(), f"locked-{tmp_path.name}"[:60].replace("_", "-").lower()
    assert asked(s3, "PUT", f"/{locked}", **{"x-amz-bucket-object-lock-enabled": "true"})[0] == 200
    assert asked(s3, "PUT", f"/{locked}?object-lock", LOCK)[0] == 200
    target = Anchor(kind="s3", bucket=f"s3://{locked}/shop", endpoint=s3.endpoint)
    config = configured(tmp_path, s3, path, kept=target)
    grow(s3.objects(path), 0, 3)
    sealer, anchoring = open_sealer(config, lambda: NOON_US)
    done = sealer.round()
    assert anchoring.round(done.lake, done.checkpoint.size, done.note) == []
    (anchor,) = anchors.make(config)
    assert anchor.target.newest() == done.note
    kept = s3.objects(S3Path(f"s3://{locked}/shop"))
    (name,) = kept.names("")
    assert name == f"{NOON_US:017d}-000000000004.json"
    assert notes(kept.read(name) or b"") == [done.note]
    versions = asked(s3, "GET", f"/{locked}?versions")[1].decode()
    version = re.findall("<VersionId>(.+?)</VersionId>", versions)[0]
    assert asked(s3, "DELETE", f"/{locked}/shop/{name}?versionId={version}")[0] == 403

    other = s3.bucket()
    grow(s3.objects(other), 0, 1)
    lost = msgspec.structs.replace(
        configured(tmp_path, s3, other, kept=target),
        seal=msgspec.structs.replace(config.seal, state_path=tmp_path / "new"),
    )
    with pytest.raises(Stop, match="the anchor kept has a later checkpoint"):
        open_sealer(lost).sealer.round()


def test_a_lake_is_verified_where_it_is(s3: S3Server, tmp_path: Path) -> None:
    """In its bucket, as in a copy of it: the same report in order, and the same findings when somebody was at it."""
    path = s3.bucket()
    store, config = s3.objects(path), configured(tmp_path, s3, path)
    grow(store, 0, 4)
    note = open_sealer(config).sealer.round().note
    wanted = Wanted(checking_key(config), NOON_US, remembered=(("kept", note),), rows=True, root=store.root)
    report = verify(store, wanted)
    assert (report.findings, report.sealed_to, report.files, report.rows) == ([], 4, 8, 8)
    copy = verify(copied(store, tmp_path / "before"), wanted)
    assert msgspec.structs.replace(copy, lake=report.lake) == report

    altered, gone, moved = sorted(name for name, _ in store.walk("events") if "/dt=2026" in name)[:3]
    content = store.read(altered) or b""
    store.replace(altered, content[:-9] + b"Z" + content[-8:])
    store.remove(gone)
    store.put("events/dt=2026-09-22/planted.parquet", store.read(moved) or b"")
    store.remove(moved)
    entry = chain.entry_name(2)
    store.replace(entry, (store.read(entry) or b"").replace(b'"events"', b'"eventz"', 1))
    found = named(verify(store, wanted))
    assert found == {
        ("altered", altered), ("missing", gone), ("moved", moved), ("moved", "events/dt=2026-09-22/planted.parquet"),
        ("altered", entry),
    }  # fmt: skip
    assert named(verify(copied(store, tmp_path / "after"), wanted)) == found


def test_what_nobody_can_have_written_there_is_read_up_to_a_bound(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that was made too long fills no memory, and is a finding."""
    path = s3.bucket()
    store, config = s3.objects(path), configured(tmp_path, s3, path)
    grow(store, 0, 2)
    open_sealer(config).sealer.round()
    monkeypatch.setattr(verifying_bucket, "BYTES_MAX", 100_000)
    store.replace(chain.entry_name(1), b"x" * 200_000)
    wanted = Wanted(checking_key(config), NOON_US, unanchored=True, root=store.root)
    assert ("altered", chain.entry_name(1)) in named(verify(store, wanted))
    assert store.read_at_most(chain.entry_name(1), 100) == b"x" * 100


def test_entries_that_are_fetched_ahead_are_those_that_are_there(s3: S3Server) -> None:
    """In order or not; and one that was not there is seen when it has come."""
    store = s3.objects(s3.bucket())
    grow(store, 0, 9)
    copy = copy_of(store)
    for number in (*range(5), 7, 2, *range(10)):
        assert copy.read(chain.entry_name(number)) == store.read(chain.entry_name(number))
    assert copy.read(chain.entry_name(10)) is None
    grow(store, 9, 2)
    for number in (10, 11):
        assert copy.read(chain.entry_name(number)) == store.read(chain.entry_name(number)) is not None
    assert copy.read(chain.entry_name(12)) is None


def test_an_event_is_proven_out_of_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    """The bundle is a folder, and needs the bucket no more; `verify` takes the bucket's name, too."""
    path = s3.bucket()
    store, config = s3.objects(path), configured(tmp_path, s3, path)
    grow(store, 0, 3)
    open_sealer(config).sealer.round()
    file = tmp_path / "pgwitness.toml"
    file.write_text(
        f'[kafka]\nbootstrap = "127.0.0.1:1"\n[lake]\npath = "{path}"\n[lake.s3]\nendpoint = "{s3.endpoint}"\n'
        f'[seal]\npublic_key = "{KEY.public().text()}"\nlag_max = "99999d"\n'
    )

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--config", str(file)])

    bundle = tmp_path / "proof"
    made = run("prove", f"{1:032x}-0", "--row-images", "--output", str(bundle))
    assert made.exit_code == 0, made.output
    assert verify_bundle(bundle, KEY.public()).findings == []
    assert run("prove", "no-such-event", "--output", str(tmp_path / "none")).exit_code == 1
    for words in (["verify", "--unanchored"], ["verify", str(path), "--unanchored"]):
        done = run(*words)
        assert done.exit_code == 0, done.output
        assert "in order: 4 entries, 6 files, 6 rows landed" in done.output
    page = tmp_path / "page.html"
    done = run("report", "--verify", "--output", str(page))
    assert done.exit_code == 0, done.output
    assert "sealed to entry 3" in page.read_text()
    assert "over 4 entries and 6 files: all is in order" in page.read_text()
    assert "must be s3://BUCKET/PREFIX" in run("verify", "s3://").output
