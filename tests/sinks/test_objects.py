"""The lake in a bucket: what it promises on an S3 server, also where requests and answers are lost, refused or late."""

from __future__ import annotations

import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgwitness.core.config import S3, S3Path
from pgwitness.core.errors import ConfigurationError, Retry, Stop, Superseded
from pgwitness.core.events import Position
from sinks.lake.compaction.compactor import Compactor
from sinks.lake.log import chain
from sinks.lake.storage.files import Files
from sinks.lake.storage.objects import Objects
from sinks.lake.storage.refusals import Refused, refusal
from sinks.lake.storage.store import Folder
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from tests.collectors.tls import Authority
from tests.servers.s3 import QUICK, Fault, Proxy, S3Server
from tests.sinks.material import ORDINARY, change, entries, landed
from tests.sinks.test_faults import EXPECTED, RECORDS, TOPIC


@pytest.fixture
def store(s3: S3Server) -> Objects:
    """A lake of its own."""
    return s3.objects(s3.bucket())


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A proxy without faults."""
    made = Proxy(s3, lambda method, path: None)
    yield made
    made.close()


def test_a_name_is_given_once(store: Objects) -> None:
    """The second gets False, and what the first made stays."""
    assert store.create("_log/000000/000/001.json", b"one")
    assert not store.create("_log/000000/000/001.json", b"two")
    assert store.read("_log/000000/000/001.json") == b"one"


def test_of_many_who_race_for_a_name_one_gets_it(store: Objects) -> None:
    """For each of twenty names, by eight threads at once."""
    for number in range(20):
        won: list[int] = []
        start = threading.Barrier(8)

        def race(own: int, number: int = number, won: list[int] = won, start: threading.Barrier = start) -> None:
            start.wait()
            if store.create(f"_log/{number}", str(own).encode()):
                won.append(own)

        threads = [threading.Thread(target=race, args=(own,)) for own in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(own).encode() for own in won] == [store.read(f"_log/{number}")]


def test_names_and_walk_list_what_a_folder_of_a_disk_would(store: Objects) -> None:
    """Folders and objects right below, in order; everything below; nothing where nothing is."""
    for name in ("events/dt=2026-01-02/b.parquet", "events/dt=2026-01-01/a.parquet", "head.json", "eventsx/c"):
        store.put(name, b"x")
    assert store.names("events") == ["dt=2026-01-01", "dt=2026-01-02"]
    assert store.names("events/dt=2026-01-01") == ["a.parquet"]
    assert sorted(name for name, _ in store.walk("events")) == [
        "events/dt=2026-01-01/a.parquet",
        "events/dt=2026-01-02/b.parquet",
    ]
    assert (store.names("rows"), list(store.walk("rows"))) == ([], [])
    assert store.names("") == ["events", "eventsx", "head.json"]


def test_more_objects_than_an_answer_holds_are_listed(store: Objects) -> None:
    """An answer holds a thousand."""
    for number in range(1_003):
        store.put(f"_snapshots/{number:04}", b"")
    assert len(store.names("_snapshots")) == len(list(store.walk("_snapshots"))) == 1_003


def test_what_is_there_can_be_read_written_over_and_removed(store: Objects) -> None:
    """Also in parts, also when it is longer than one request takes."""
    long = random.Random(0).randbytes(40 * 1024**2)
    store.put("events/dt=2026-01-01/long.parquet", long)
    assert store.read("events/dt=2026-01-01/long.parquet") == long
    assert store.read_range("events/dt=2026-01-01/long.parquet", 17, 5) == long[17:22]
    with store.open("events/dt=2026-01-01/long.parquet") as file:
        assert (file.seek(-9, 2), file.read()) == (len(long) - 9, long[-9:])
        assert (file.seek(3_000_000), file.read(2_000_000)) == (3_000_000, long[3_000_000:5_000_000])
    written_us = store.written_us("events/dt=2026-01-01/long.parquet")
    assert dict(store.walk("events")) == {"events/dt=2026-01-01/long.parquet": written_us}
    store.replace("head.json", b"1")
    store.replace("head.json", b"2")
    assert (store.read("head.json"), store.has("head.json")) == (b"2", True)
    store.remove("head.json")
    store.remove("head.json")
    assert (store.read("head.json"), store.has("head.json")) == (None, False)
    with pytest.raises(FileNotFoundError):
        store.read_range("head.json", 0, 1)
    with pytest.raises(FileNotFoundError):
        store.open("head.json")


def test_a_storage_that_writes_over_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `If-None-Match` is ignored two workers would lose each other's commits."""
    store = s3.objects(s3.bucket())

    def careless(self: Objects, name: str, content: bytes) -> bool:
        self.put(name, content)
        return True

    monkeypatch.setattr(Objects, "create", careless)
    with pytest.raises(Stop, match="writes over"):
        Lake(store).prepare()


@pytest.mark.parametrize("which", [1, 2])
def test_a_lost_answer_does_not_make_a_storage_look_careless(s3: S3Server, proxy: Proxy, which: int) -> None:
    """The client library asks again by itself, and finds the object that it has made."""
    asked = 0

    def lost(method: str, path: str) -> Fault:
        nonlocal asked
        asked += method == "PUT"
        return "after" if method == "PUT" and asked == which else None

    proxy.fault = lost
    again = {"max_retries": 3, "backoff": {"init_backoff": timedelta(milliseconds=1)}}
    proxy.objects(s3.bucket(), retry_config=again).prepare()
    assert asked == 3


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "the clock of this host"),
        (403, "SignatureDoesNotMatch", "credentials"),
        (400, "ExpiredToken", "renew them"),
        (404, "NoSuchBucket", "there is no such bucket"),
        (400, "AuthorizationHeaderMalformed", "lake.s3.region"),
        (503, "SlowDown", "slow down"),
        (500, "InternalError", "busy"),
        (507, "XMinioStorageFull", "make room"),
    ],
)
def test_each_refusal_is_a_sentence_and_nothing_is_lost(
    s3: S3Server, proxy: Proxy, status: int, code: str, advice: str
) -> None:
    """Whatever is refused raises `Retry`; it lands when it is allowed again."""
    path = s3.bucket()
    lake = Lake(proxy.objects(path))
    writer = lake.writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    proxy.code, proxy.fault = code, lambda method, path: status
    with pytest.raises(Retry, match=rf"(?s)could not be .*{code}.*{advice}"):
        lake.commit([writer])
    with pytest.raises(Refused) as refused:
        proxy.objects(path).names("events")
    assert advice in refused.value.advice
    with pytest.raises(Refused):
        proxy.objects(path).read("head.json")
    proxy.fault = lambda method, path: None
    lake.commit([writer])
    assert [row["xid"] for row in landed(s3.objects(path))] == [1_001]


def test_hosts_without_credentials_and_buckets_elsewhere_are_sentences() -> None:
    """What the client library says of them names neither."""
    path = S3Path("s3://lake/x")
    asked = "Error performing PUT http://169.254.169.254/latest/api/token - Server returned status code: 403 Forbidden"
    assert "AWS_ACCESS_KEY_ID" in refusal(asked, path).advice
    assert "lake.s3.region" in refusal("Received redirect without LOCATION", path).advice
    kept = "Generic S3 error: DeleteObjects request failed for key x/y: Access Denied (code: AccessDenied)"
    assert ("AccessDenied" in str(refusal(kept, path)), "s3:DeleteObject" in refusal(kept, path).advice) == (True, True)
    assert not refusal("something that nobody has seen", path).unreachable


@pytest.mark.usefixtures("s3")
def test_a_storage_that_cannot_be_reached_is_a_sentence() -> None:
    """It says where to look."""
    lake = Lake(Objects(S3Path("s3://lake/x"), S3(endpoint="http://127.0.0.1:1"), retry_config={"max_retries": 0}))
    with pytest.raises(Retry, match=r"s3://lake/x could not be .*: look at the network and at lake\.s3\.endpoint"):
        lake.prepare()


def test_a_storage_that_does_not_answer_is_given_up_and_asked_again(s3: S3Server, proxy: Proxy) -> None:
    """A request has an end; whether it was carried out is found out by reading."""
    path = s3.bucket()
    lake = Lake(proxy.objects(path, client_options={"timeout": "500ms", "allow_http": True}))
    writer = lake.writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    go_on = threading.Event()

    def hang(method: str, path: str) -> Fault:
        if method == "PUT":
            go_on.wait(30)
        return None

    proxy.fault = hang
    with pytest.raises(Retry):
        lake.commit([writer])
    go_on.set()
    lake.commit([writer])
    assert [row["xid"] for row in landed(s3.objects(path))] == [1_001]


@pytest.mark.parametrize("fault", ["before", "after", "late"])
def test_an_entry_without_an_answer_is_found_to_be_ones_own(s3: S3Server, proxy: Proxy, fault: Fault) -> None:
    """Whether the request was lost, its answer, or whether it arrives when another has been made."""
    path = s3.bucket()
    lake = Lake(proxy.objects(path))
    writer = lake.writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    hit: list[str] = []

    def once(method: str, at: str) -> Fault:
        if method == "PUT" and "/_log/" in at and not hit:
            hit.append(at)
            return fault
        return None

    proxy.fault = once
    with suppress(Retry):
        lake.commit([writer])
    proxy.arrive()
    writer.append(1, [change(2, at=Position(0, 2, 0))], [ORDINARY])
    lake.commit([writer])
    proxy.arrive()
    assert hit
    assert sorted(row["xid"] for row in landed(s3.objects(path))) == [1_001, 1_002]
    assert len(entries(s3.objects(path))) == 3


def work(lake: Lake, commit_every: int) -> None:
    """Be a worker: resume where the lake says, go on to the topic's end."""
    writer = lake.writer("events", 0)
    start, _ = writer.resume()
    for offset in range(start, RECORDS):
        lane, events, verdicts = TOPIC[offset]
        writer.append(offset, events, verdicts, lane)
        if offset % commit_every == commit_every - 1:
            lake.commit([writer])
    lake.commit([writer])


def check(store: Objects) -> None:
    """Hold that everything landed once, that the chain is whole, and that each of its files is what it says."""
    assert sorted(row["xid"] - 1_000 for row in landed(store)) == EXPECTED
    listing = Listing(store)
    listing.refresh()
    assert listing.missing() == []
    for file in listing.live():
        assert chain.digest(store.read(file.path) or b"") == file.sha256
    entries(store)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    share=st.floats(0.02, 0.4),
    tries=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4),
)
def test_whatever_is_lost_refused_or_late_everything_lands_once(
    s3: S3Server, proxy: Proxy, seed: int, share: float, tries: list[tuple[int, bool]]
) -> None:
    """Two workers in turn, each giving up at its first or its later refusals; late requests come at any time."""
    chance = random.Random(seed)
    path = s3.bucket()

    def fault(method: str, at: str) -> Fault:
        del at
        if chance.random() >= share:
            return None
        kinds: list[Fault] = ["before", "after", 503]
        return chance.choice([*kinds, "late"] if method == "PUT" else kinds)

    for commit_every, persists in tries:
        proxy.fault = fault
        lake = Lake(proxy.objects(path))
        for _ in range(8 if persists else 1):
            with suppress(Retry, Superseded):
                work(lake, commit_every)
            if chance.random() < 0.3:
                proxy.arrive()
        proxy.fault = lambda method, at: None
        with suppress(Retry):
            seen = [row["event_id"] for row in landed(s3.objects(path))]
            assert len(seen) == len(set(seen))
    proxy.arrive()
    work(Lake(s3.objects(path)), 3)
    proxy.arrive()
    check(s3.objects(path))


def test_two_workers_that_race_for_every_entry_land_everything_once(s3: S3Server) -> None:
    """Each has a partition of its own, and both commit as fast as they can."""
    path = s3.bucket()
    Lake(s3.objects(path)).prepare()
    troubles: list[BaseException] = []

    def land(partition: int) -> None:
        try:
            lake = Lake(s3.objects(path))
            writer = lake.writer("events", partition)
            writer.resume()
            for offset in range(12):
                number = 1 + partition * 100 + offset
                writer.append(offset, [change(number, at=Position(partition, offset, 0))], [ORDINARY])
                lake.commit([writer])
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=land, args=(partition,)) for partition in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert sorted(row["xid"] for row in landed(s3.objects(path))) == sorted(
        1_001 + partition * 100 + offset for partition in range(3) for offset in range(12)
    )
    assert len(entries(s3.objects(path))) == 37


def test_a_lake_is_compacted_where_it_is(store: Objects) -> None:
    """With the same rows, and what was replaced goes after the grace."""
    lake = Lake(store)
    writer = lake.writer("events", 0)
    writer.resume()
    for offset in range(12):
        writer.append(offset, [change(offset + 1, at=Position(0, offset, 0))], [ORDINARY])
        lake.commit([writer])
    before = sorted(row["xid"] for row in landed(store))
    done = Compactor(store.path, store, grace_s=0.0).run()
    Compactor(store.path, store, grace_s=0.0).run()
    assert (done.replaced, done.refused) == (24, [])
    assert sorted(row["xid"] for row in landed(store)) == before == list(range(1_001, 1_013))
    listing = Listing(store)
    listing.refresh()
    assert (listing.missing(), listing.strange()) == ([], [])
    assert len([name for name, _ in store.walk("events")]) == 2


LANDER = """
import sys
from pgwitness.core.config import S3, S3Path
from sinks.lake.storage.objects import Objects
from sinks.lake.writer import Lake
from tests.sinks.material import ORDINARY, change
lake = Lake(Objects(S3Path(sys.argv[1]), S3(endpoint=sys.argv[2])))
writer = lake.writer("events", 0)
start, _ = writer.resume()
for offset in range(start, 90):
    writer.append(offset, [change(offset * 3 + n + 1) for n in range(3)], [ORDINARY] * 3, 0)
    if offset % 3 == 2:
        lake.commit([writer])
"""


def test_processes_killed_in_the_middle_of_their_work_land_everything_once(s3: S3Server) -> None:
    """`kill -9` of a real process that commits as fast as it can, six times; the last one comes to the end."""
    path = s3.bucket()
    store = s3.objects(path)
    command = [sys.executable, "-c", LANDER, str(path), s3.endpoint]

    def number() -> int:
        return len(store.names("_log/000000/000"))

    for _ in range(6):
        with subprocess.Popen(command) as process:
            wanted = number() + 3
            deadline = time.monotonic() + 60
            while process.poll() is None and number() < wanted:
                assert time.monotonic() < deadline
            assert process.poll() is None, "the process ended before it could be killed"
            process.kill()
    subprocess.run(command, check=True, timeout=60)
    assert sorted(row["xid"] for row in landed(store)) == [1_000 + number for number in range(1, 271)]


def test_a_lake_of_a_folder_goes_on_in_a_bucket_it_was_copied_to(s3: S3Server, tmp_path: Path) -> None:
    """Object by object, in any order; `views.sql` is written anew for where it is."""
    lake = Lake(tmp_path)
    writer = lake.writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    lake.commit([writer])
    store = s3.objects(s3.bucket())
    for name, _ in Folder(tmp_path, Files()).walk("."):
        store.put(name, (tmp_path / name).read_bytes())
    work_on = Lake(store)
    writer = work_on.writer("events", 0)
    assert writer.resume()[0] == 1
    writer.append(1, [change(2, at=Position(0, 2, 0))], [ORDINARY])
    work_on.commit([writer])
    assert sorted(row["xid"] for row in landed(store)) == [1_001, 1_002]
    assert f"'{store.path}/" in (store.read("views.sql") or b"").decode()


def test_a_bucket_that_is_not_there_is_told_from_a_lake_that_is_not(s3: S3Server) -> None:
    """Also where the storage's answer has no body."""
    with pytest.raises(Refused, match="NoSuchBucket"):
        s3.objects(S3Path("s3://nobody-made-this/lake")).has("views.sql")
    assert not s3.objects(s3.bucket()).has("views.sql")


def test_a_profile_that_is_not_there_is_an_error_of_the_configuration(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that is there is used."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text("[auditor]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "auditor")
    assert s3.objects(s3.bucket()).names("") == []
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match=r"AWS_PROFILE: .*nobody"):
        s3.objects(s3.bucket()).names("")


def test_a_certificate_of_an_authority_of_ones_own_is_trusted_when_it_is_named(s3: S3Server, tmp_path: Path) -> None:
    """And no other: the sentence says what to set."""
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    proxy, path = Proxy(s3, lambda method, path: None, tls), s3.bucket()
    try:
        trusting = Objects(path, S3(endpoint=proxy.endpoint, ca_file=authority.path), **QUICK)
        assert trusting.create("one", b"1")
        with pytest.raises(Refused) as refused:
            Objects(path, S3(endpoint=proxy.endpoint), **QUICK).read("one")
        assert "lake.s3.ca_file" in refused.value.advice
        with pytest.raises(ConfigurationError, match=r"lake\.s3\.ca_file"):
            Objects(path, S3(endpoint=proxy.endpoint, ca_file=tmp_path / "none")).read("one")
    finally:
        proxy.close()
