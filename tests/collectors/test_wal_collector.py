"""The WAL collector on real servers: what was written is read back from the raw topic."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from collectors.installation.install import pause
from collectors.wal.database import slot
from collectors.wal.stream import Stream
from pgwitness.core import subjects
from pgwitness.core.errors import Retry
from pgwitness.core.events import Control, Gap, Row, Transaction
from pgwitness.demo.servers import Broker, Postgres, wait_for
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import CLEAR, MARK, Factory, Source, name_of, rows

pytestmark = pytest.mark.every_postgres


def test_every_operation_arrives_as_it_was_written(source: Source) -> None:
    """Inserts, updates, deletes and truncates carry key, images and counts, and are bound to their session."""
    source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY, name text, price numeric, ok bool, at timestamptz)")
    with source.running() as raised:
        source.streaming()
        with psycopg.connect(source.dsn, application_name="till 4") as shop:
            shop.execute(
                "INSERT INTO item VALUES (1, 'a \"b\"', 1.50, true, '2026-01-02 03:04:05Z'),"
                " (2, NULL, 'NaN', false, NULL)"
            )
            shop.execute("UPDATE item SET price = 2 WHERE id = 1")
            shop.execute("UPDATE item SET id = 3 WHERE id = 2")
            shop.execute("DELETE FROM item WHERE id = 1")
            shop.execute("TRUNCATE item")
            pid = shop.info.backend_pid
        found = source.until_marked()
    assert raised == []
    one = {"id": 1, "name": 'a "b"', "price": 1.5, "ok": True, "at": "2026-01-02 03:04:05+00"}
    two = {"id": 2, "name": None, "price": "NaN", "ok": False, "at": None}
    assert rows(found) == [
        ("i", "public.item", {"id": 1}, None, None, one),
        ("i", "public.item", {"id": 2}, None, None, two),
        ("u", "public.item", {"id": 1}, None, None, {**one, "price": 2}),
        ("u", "public.item", {"id": 3}, None, {"id": 2}, {**two, "id": 3}),
        ("d", "public.item", {"id": 1}, None, {"id": 1}, None),
        ("t", "public.item", None, None, None, None),
    ]
    (transaction,) = found
    assert b"1.50" in bytes(transaction.rows), "a number keeps the digits the server wrote"
    assert [(c.operation, c.rows) for c in transaction.counts] == [("i", 2), ("u", 2), ("d", 1), ("t", 1)]
    assert [row.ordinal for row in msgspec.json.decode(transaction.rows, type=list[Row])] == list(range(6))
    (beacon,) = transaction.beacons
    assert (beacon.application, beacon.pid, beacon.xid, beacon.ordinal) == ("till 4", pid, transaction.xid, 0)
    assert transaction.relations[0].beacon
    assert (transaction.timeline, transaction.database) == (1, source.database)


def test_replica_identities_decide_what_is_known_of_the_old_row(source: Source) -> None:
    """Full gives the whole old row and what changed, an index its columns, nothing only inserts and truncates."""
    source.create(
        MARK,
        "CREATE TABLE f (id int PRIMARY KEY, a text, b int)",
        "ALTER TABLE f REPLICA IDENTITY FULL",
        "CREATE TABLE x (id int PRIMARY KEY, code text NOT NULL, b int)",
        "CREATE UNIQUE INDEX x_code ON x (code)",
        "ALTER TABLE x REPLICA IDENTITY USING INDEX x_code",
        "CREATE TABLE n (id int PRIMARY KEY, a text)",
        "ALTER TABLE n REPLICA IDENTITY NOTHING",
    )
    with source.running():
        source.streaming()
        source.sql.execute("INSERT INTO f VALUES (1, 'a', 1)")
        source.sql.execute("UPDATE f SET b = 2, a = 'a'")
        source.sql.execute("DELETE FROM f")
        source.sql.execute("INSERT INTO x VALUES (1, 'k', 1)")
        source.sql.execute("UPDATE x SET code = 'l'")
        source.sql.execute("DELETE FROM x")
        source.sql.execute("INSERT INTO n VALUES (1, 'a')")
        source.sql.execute("UPDATE n SET a = 'b'")
        source.sql.execute("TRUNCATE n")
        found = source.until_marked()
    assert rows(found) == [
        ("i", "public.f", {"id": 1}, None, None, {"id": 1, "a": "a", "b": 1}),
        ("u", "public.f", {"id": 1}, ["b"], {"id": 1, "a": "a", "b": 1}, {"id": 1, "a": "a", "b": 2}),
        ("d", "public.f", {"id": 1}, None, {"id": 1, "a": "a", "b": 2}, None),
        ("i", "public.x", {"code": "k"}, None, None, {"id": 1, "code": "k", "b": 1}),
        ("u", "public.x", {"code": "l"}, None, {"code": "k"}, {"id": 1, "code": "l", "b": 1}),
        ("d", "public.x", {"code": "l"}, None, {"code": "l"}, None),
        ("i", "public.n", {"id": 1}, None, None, {"id": 1, "a": "a"}),
        ("t", "public.n", None, None, None, None),
    ]
    assert [t.relations[0].identity for t in found if t.relations] == ["f"] * 3 + ["i"] * 3 + ["n"] * 2


def test_an_unchanged_toast_value_is_absent_and_never_null(source: Source) -> None:
    """A long value that an update did not touch is not in its image, while a NULL is null."""
    source.create(MARK, "CREATE TABLE doc (id int PRIMARY KEY, body text, note text)")
    source.sql.execute("ALTER TABLE doc ALTER body SET STORAGE EXTERNAL")
    with source.running():
        source.streaming()
        source.sql.execute("INSERT INTO doc VALUES (1, repeat('x', 4000), 'n')")
        source.sql.execute("UPDATE doc SET note = NULL")
        found = source.until_marked()
    assert rows(found)[1] == ("u", "public.doc", {"id": 1}, None, None, {"id": 1, "note": None})


def test_the_schema_may_change_in_mid_stream(source: Source) -> None:
    """Rows before and after a change of their table are read by the columns they had."""
    source.create(MARK, "CREATE TABLE s (id int PRIMARY KEY, a text)")
    with source.running():
        source.streaming()
        with source.sql.transaction():
            source.sql.execute("INSERT INTO s VALUES (1, 'a')")
            source.sql.execute("ALTER TABLE s ADD b int DEFAULT 7")
            source.sql.execute("INSERT INTO s VALUES (2, 'b', 8)")
            source.sql.execute("ALTER TABLE s DROP a")
            source.sql.execute("INSERT INTO s VALUES (3, 9)")
        source.sql.execute("ALTER TABLE s RENAME b TO c")
        source.sql.execute("INSERT INTO s VALUES (4, 1)")
        found = source.until_marked()
    assert [row[5] for row in rows(found)] == [
        {"id": 1, "a": "a"},
        {"id": 2, "a": "b", "b": 8},
        {"id": 3, "b": 9},
        {"id": 4, "c": 1},
    ]
    assert [relation.columns for relation in found[0].relations] == [["id", "a"], ["id", "a", "b"], ["id", "b"]]


def test_partitions_are_named_by_their_root_and_generated_columns_are_listed(source: Source) -> None:
    """Rows of a partition come under the partitioned table; what the server computes is sent by 18, else named."""
    source.create(
        MARK,
        "CREATE TABLE log (id int, day int, twice int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, day))"
        " PARTITION BY RANGE (day)",
        "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)",
    )
    with source.running():
        source.streaming()
        source.sql.execute("INSERT INTO log VALUES (1, 5), (2, 15)")
        source.sql.execute("UPDATE log SET day = 16 WHERE id = 1")
        found = source.until_marked()
    assert [row[:3] for row in rows(found)] == [
        ("i", "public.log", {"id": 1, "day": 5}),
        ("i", "public.log", {"id": 2, "day": 15}),
        ("d", "public.log", {"id": 1, "day": 5}),
        ("i", "public.log", {"id": 1, "day": 16}),
    ]
    sent = source.sql.info.server_version >= 180_000
    assert found[0].relations[0].generated == ([] if sent else ["twice"])
    assert rows(found)[0][5] == {"id": 1, "day": 5} | ({"twice": 2} if sent else {})


def test_forged_beacons_are_written_down_wherever_they_are(source: Source) -> None:
    """A message under the beacon's prefix that does not verify is a forgery: beside rows, alone, or transactionless."""
    source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)")
    with source.running():
        source.streaming()
        with source.sql.transaction():
            source.sql.execute("INSERT INTO item VALUES (1)")
            source.sql.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'I am the CFO')")
        source.sql.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'nobody')")
        source.sql.execute("SELECT pg_logical_emit_message(false, 'pgwitness.beacon', 'nowhere')")
        source.sql.execute("SELECT pg_logical_emit_message(true, 'another', 'not ours')")
        found = source.until_marked()
    assert [(t.n_rows, len(t.beacons), [f.reason for f in t.forged]) for t in found] == [
        (1, 1, ["malformed"]),
        (0, 0, ["malformed"]),
        (0, 0, ["not_transactional"]),
    ]
    assert [t.lsn for t in found] == sorted(t.lsn for t in found)


def test_ddl_arrives_in_its_transaction_without_literals(source: Source) -> None:
    """A table is made, filled and dropped: each command is there in its place, named, without its literals."""
    source.create(MARK)
    with source.running() as raised:
        source.streaming()
        with psycopg.connect(source.dsn, application_name="migration 7") as shop:
            shop.execute("CREATE TABLE card (id int PRIMARY KEY, pin text DEFAULT 'geheim')")
            shop.execute("INSERT INTO card VALUES (1)")
        source.sql.execute("CREATE VIEW cards AS SELECT * FROM card WHERE pin <> 'verborgen'")
        source.sql.execute("DROP TABLE card CASCADE")
        found = source.until_marked()
    assert raised == []
    made, _, dropped = found
    assert made.ddl[0].tag == "CREATE TABLE"
    assert made.ddl[0].beacon.application == "migration 7"
    assert (made.n_rows, len(made.beacons)) == (1, 1)
    assert [(c.number, c.ordinal) for c in made.ddl] == [(n, 0) for n in range(len(made.ddl))]
    (drop,) = dropped.ddl
    assert (dropped.n_rows, drop.tag, drop.statement) == (0, "DROP TABLE", "DROP TABLE card CASCADE")
    assert {"public.card", "public.cards"} <= {item.identity for item in drop.dropped}
    assert not any(secret in str(t.ddl) for t in found for secret in ("geheim", "verborgen"))


@pytest.fixture
def signer(tmp_path: Path) -> ed25519.Ed25519PrivateKey:
    """A key whose public half the collector is configured with."""
    made = ed25519.Ed25519PrivateKey.generate()
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "claims.pem").write_bytes(public)
    return made


@pytest.mark.parametrize("extra", [CLEAR + '[identities]\nclaims_keys = "claims.pem"\n'])
def test_tokens_are_judged_before_the_topic(signer: ed25519.Ed25519PrivateKey, source: Source) -> None:
    """A good token, one for another database and one that has expired each have their verdict; none goes on itself."""
    source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)")
    now = int(time.time())
    good = {"sub": "maria", "jti": "t-1", "aud": f"shop/{source.database}", "exp": now + 600}
    tokens = [
        jwt.encode(claims, signer, algorithm="EdDSA")
        for claims in (good, good | {"aud": "shop/billing"}, good | {"exp": now - 600})
    ]
    with source.running() as raised:
        source.streaming()
        for number, token in enumerate(tokens):
            with source.sql.transaction():
                source.sql.execute("SELECT pgwitness.claim(%s)", [token])
                source.sql.execute("INSERT INTO item VALUES (%s)", [number])
        source.sql.execute("INSERT INTO item VALUES (9)")
        found = source.until_marked()
    assert raised == []
    judged = [transaction.beacons[0].token for transaction in found]
    assert [token.verdict if token else None for token in judged] == ["verified", "audience", "expired", None]
    assert judged[0] is not None
    assert (judged[0].token_id, judged[0].claims["sub"]) == ("t-1", "maria")
    assert not any(token.split(".")[2] in str(found) for token in tokens)


@pytest.mark.parametrize(
    "extra",
    [
        '[privacy]\nclear = ["*.free"]\n'
        'mask = [{ column = "*.number", with = "last4" }, { column = "*.pin", with = "drop" }]\n'
    ],
)
def test_masking_happens_before_the_topic(source18: Source) -> None:
    """Only numbers, times and the listed columns are readable; equal values have equal tokens; a long one is short."""
    source18.create(
        MARK,
        "CREATE TABLE card (id int PRIMARY KEY, number text, holder text, pin text, doc jsonb, note text, free text)",
    )
    with source18.running():
        source18.streaming()
        source18.sql.execute(
            "INSERT INTO card VALUES (1, '4111111111111234', 'Ann', '99', '{\"a\": 1}', repeat('z', 9000), 'é\"')"
        )
        source18.sql.execute("INSERT INTO card (id, holder) VALUES (2, 'Ann')")
        found = source18.until_marked()
    first, second = (row[5] for row in rows(found))
    assert first["number"] == "****1234"
    assert first["holder"].startswith("tok_")
    assert first["holder"] == second["holder"]
    assert "pin" not in first
    assert first["free"] == 'é"'
    assert first["doc"].startswith("tok_")
    assert (first["note"]["bytes"], first["note"]["token"][:4]) == (9000, "tok_")
    assert b"Ann" not in b"".join(bytes(t.rows) for t in found)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The keys of data subjects, where the collector looks for them."""
    subjects.create(tmp_path / "subjects.key")
    return tmp_path / "subjects.key"


@pytest.mark.parametrize("extra", ['[privacy]\nsubject = ["*.person.id", "*.person_id"]\n'])
def test_a_person_is_forgotten_while_the_collector_runs(keys: Path, source18: Source) -> None:
    """What is written of them from then on tells nothing; their rows of before and other people's are as they were."""
    source18.create(
        MARK,
        "CREATE TABLE person (id int PRIMARY KEY, name text)",
        "CREATE TABLE visit (id int PRIMARY KEY, person_id int, note text)",
    )
    with source18.running() as raised:
        source18.streaming()
        source18.sql.execute("INSERT INTO person VALUES (1, 'Ann'), (2, 'Ann')")
        source18.sql.execute("INSERT INTO visit VALUES (1, 1, 'Ann'), (2, 2, 'Ann')")
        before = rows(source18.until_marked())
        known = subjects.load(keys)
        subjects.forget(keys, b"1")
        source18.sql.execute("UPDATE person SET name = 'Anna'")
        after = rows(source18.until_marked())[len(before) :]
    assert raised == []
    ann, other, visit, its = (row[5] for row in before)
    assert ann["name"] == visit["note"] == known.tokens(b"1")(b"Ann").decode()
    assert ann["id"] == visit["person_id"] == known.tokens(b"1")(b"1").decode()
    assert other["name"] == its["note"] != ann["name"]
    assert (visit["id"], its["id"]) == (1, 2)
    assert {tuple(row[5].values()) for row in after} == {
        (subjects.FORGOTTEN.decode(), subjects.FORGOTTEN.decode()),
        (other["id"], known.tokens(b"2")(b"Anna").decode()),
    }


@pytest.mark.parametrize("memory_limit", [200 * 1024])
def test_a_long_transaction_waits_for_its_beacon_on_disk_and_comes_in_named_parts(source18: Source) -> None:
    """Every part of one statement's 30,000 rows carries the beacon that was written after them."""
    source18.create(MARK, "CREATE TABLE big (id int PRIMARY KEY, a text)")
    with source18.running():
        source18.streaming()
        source18.sql.execute("INSERT INTO big SELECT n, repeat('x', 50) FROM generate_series(1, 30000) AS n")
        found = source18.until_marked()
    assert [t.part for t in found] == list(range(30))
    assert [t.last for t in found] == [False] * 29 + [True]
    assert [t.first_ordinal for t in found] == [n * 1000 for n in range(30)]
    assert {t.xid for t in found} == {found[0].xid}
    assert all(len(t.beacons) == 1 for t in found)
    assert [row[2]["id"] for row in rows(found)] == list(range(1, 30001))


def test_what_was_delivered_but_not_confirmed_is_sent_again_the_same(
    source18: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that dies between delivery and confirmation sends the same parts again when it is back."""
    source18.create(MARK, "CREATE TABLE item (id int PRIMARY KEY, a text)")
    with source18.running():
        source18.streaming()
        source18.until_marked()
    # Only a walsender that has ended has read the collector's last word.
    wait_for(lambda: not source18.active(), 10, "the slot is free")
    before = source18.confirmed()
    monkeypatch.setattr(Stream, "confirm", lambda *_: None)  # as if it died before every confirmation
    with source18.running():
        source18.streaming()
        source18.sql.execute("INSERT INTO item SELECT n, repeat('y', 300) FROM generate_series(1, 2500) AS n")
        source18.sql.execute("UPDATE item SET a = 'z' WHERE id < 5")
        first = source18.until_marked()
    monkeypatch.undo()
    assert source18.confirmed() == before
    wait_for(lambda: not source18.active(), 10, "the slot is free")
    del source18.bench.raw.seen[:]
    with source18.running():
        again = source18.until_marked()
        end = source18.position()
        wait_for(lambda: source18.confirmed() >= end, 20, "everything is confirmed")
    assert len(first) > 3

    def of(parts: list[Transaction]) -> list[tuple[Any, ...]]:
        return [(t.lsn, t.part, t.last, t.first_ordinal, t.n_rows, t.beacons, bytes(t.rows)) for t in parts]

    assert of(again) == of(first)


def test_a_slot_dropped_under_it_is_a_gap_and_on_it_goes(source: Source) -> None:
    """A lost slot is written down as a gap and made anew; later writes arrive."""
    source.create(MARK)
    with source.running() as raised:
        source.streaming()
        source.until_marked()
        end = source.position()
        wait_for(lambda: source.confirmed() >= end, 20, "the mark is confirmed")
        source.sql.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", (source.slot,)
        )
        wait_for(lambda: not source.active(), 10, "the walsender is gone")
        source.sql.execute("SELECT pg_drop_replication_slot(%s)", (source.slot,))
        wait_for(lambda: bool(raised), 20, "the collector notices")
    assert isinstance(raised[0], Retry)
    with source.running():
        source.streaming()
        source.until_marked()
        raw = source.bench.raw
        raw.wait(lambda: bool(raw.of(Gap)), "the gap")
    (gap,) = raw.of(Gap)
    assert (gap.reason, gap.database) == ("slot_lost", source.database)
    assert {"slot", "confirmed", "resumes"} <= set(gap.detail)
    assert [c.operation for c in raw.of(Control)].count("slot_made") == 2


def test_the_slot_outlives_the_primary_where_the_server_can(source: Source) -> None:
    """From PostgreSQL 17 on the slot is a failover slot, which standbys keep a copy of; before, there are none."""
    source.create(MARK)
    with source.running():
        source.streaming()
    query = "SELECT (to_jsonb(s) ->> 'failover')::boolean FROM pg_replication_slots AS s WHERE slot_name = %s"
    row = source.sql.execute(query, [source.slot]).fetchone()
    assert row == (True if source.sql.info.server_version >= 170_000 else None,)


@pytest.mark.parametrize("cluster_extra", ['slot = { max_lag = "1B", on_max_lag = "drop" }'])
def test_too_much_lag_drops_the_slot_when_configured(source18: Source) -> None:
    """With on_max_lag = drop the source's disk is spared, and what is lost stands in a gap."""
    source18.create(MARK, "CREATE TABLE item (id int, a text)")
    with source18.running() as raised:
        wait_for(lambda: bool(raised), 30, "the slot is dropped")
    assert "was dropped" in str(raised[0])
    assert source18.confirmed() == 0


@pytest.mark.parametrize("cluster_extra", ['slot = { max_lag = "1MB", on_max_lag = "drop" }'])
@pytest.mark.parametrize("two_phase", [False, True])
def test_whose_transaction_holds_the_wal_is_said(source: Source, *, two_phase: bool) -> None:
    """Anybody may leave one open, and the slot then keeps what all others write: the gap says who, and since when."""
    source.create(MARK, "CREATE TABLE item (id int)", "CREATE ROLE idler LOGIN", "GRANT INSERT ON item TO idler")
    dsn = source.dsn.replace("postgres@", "idler@")
    with psycopg.connect(dsn, application_name="away") as idler, ExitStack() as at_the_end:
        with source.running() as raised:
            source.streaming()
            idler.execute("INSERT INTO item VALUES (1)")
            pid = idler.info.backend_pid
            if two_phase:
                idler.execute("PREPARE TRANSACTION 'ann@x.example'")
                # Left behind, it would keep every later slot of this server from being made.
                at_the_end.callback(source.sql.execute, "ROLLBACK PREPARED 'ann@x.example'")
            source.write_wal(2 << 20)
            wait_for(lambda: bool(raised), 30, "the slot is dropped")
        (gap,) = slot.recall(source.bench.config.collectors.state_path / "wal" / f"shop.{source.slot}.json").gaps
        assert gap.reason == "slot_dropped"
        found = gap.detail["oldest_transaction"]
        assert isinstance(found, dict)
        assert found.pop("since")
        session = {"prepared": True} if two_phase else {"pid": pid, "application": "away", "client_addr": "127.0.0.1"}
        assert found == {"session_user": "idler", "database": source.database, **session}


def test_the_lost_slot_is_told_once(source18: Source) -> None:
    """After a dropped slot the next run tells the gap, once, and makes another."""
    source18.create(MARK)
    memory_path = source18.bench.config.collectors.state_path / "wal" / f"shop.{source18.slot}.json"
    slot.remember(memory_path, slot.Memory(system_id="0", timeline=1, slot=source18.slot, confirmed=1))
    for _ in range(2):
        with source18.running():
            source18.streaming()
            source18.until_marked()
            wait_for(lambda: not slot.recall(memory_path).gaps, 10, "the gap is delivered")
    assert [gap.reason for gap in source18.bench.raw.of(Gap)] == ["new_system"]


def test_a_quiet_database_moves_its_slot_on(source18: Source, postgres18: Postgres) -> None:
    """Writes elsewhere in the cluster do not pin WAL for a database in which nothing happens."""
    source18.create(MARK)
    with source18.running():
        source18.streaming()
        with psycopg.connect(postgres18.dsn(), autocommit=True) as busy:
            busy.execute("CREATE TABLE IF NOT EXISTS busy (a text)")
            busy.execute("INSERT INTO busy SELECT repeat('x', 100) FROM generate_series(1, 10000)")
            busy.execute("DROP TABLE busy")
        end = source18.position()
        wait_for(lambda: source18.confirmed() >= end, 20, "the slot moves on")


def test_a_pause_of_the_beacon_is_written_down(source18: Source) -> None:
    """Whoever pauses the beacon leaves a control event, and its tables no longer count as covered."""
    source18.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)")
    with source18.running():
        source18.streaming()
        source18.sql.execute("INSERT INTO item VALUES (1)")
        source18.until_marked()
        pause(source18.sql)
        source18.sql.execute("INSERT INTO item VALUES (2)")
        found = source18.until_marked()
        raw = source18.bench.raw
    assert "beacon_pause" in [c.operation for c in raw.of(Control)]
    assert [(len(t.beacons), t.relations[0].beacon) for t in found] == [(1, True), (0, False)]


def test_without_publications_it_says_what_to_run(source18: Source) -> None:
    """A database that was never prepared gives the command that prepares it."""
    with source18.running() as raised:
        wait_for(lambda: bool(raised), 20, "the collector refuses")
    assert "pgwitness db install" in str(raised[0])


def test_an_absent_broker_keeps_everything_at_the_source(
    database18: str, config_factory: Factory, tmp_path: Path, servers_path: Path
) -> None:
    """While the broker is away nothing is confirmed and nothing lost; when it is back all rows arrive."""
    with Broker(tmp_path / "own") as broker, ExitStack() as opened:
        config = config_factory(tmp_path, broker.bootstrap, database18, [name_of(database18)])
        with bench(config) as made:
            source = opened.enter_context(Source(database18, made))
            source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY, a text)")
            with source.running():
                source.streaming()
                source.until_marked()
                end = source.position()
                wait_for(lambda: source.confirmed() >= end, 20, "the mark is confirmed")
                broker.stop()
                source.sql.execute("INSERT INTO item SELECT n, repeat('x', 100) FROM generate_series(1, 2000) AS n")
            assert source.confirmed() < source.position()
            broker.start()
        with bench(config) as made:
            source = opened.enter_context(Source(database18, made))
            with source.running():
                found = source.until_marked()
    assert sum(t.n_rows for t in found) == 2000
