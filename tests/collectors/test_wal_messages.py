"""Logical messages: what is ours, what is forged, what is genuine and not understood, and floods of all of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.beacon import mac
from collectors.beacon.keyring import Key, Keyring
from collectors.wal.beacons import ddl_objects
from collectors.wal.beacons.keyreads import KEYS_A_SECOND, PATIENCE_S, KeyReads, Stand, stand_of
from collectors.wal.beacons.limit import REST_EVERY_S, Limit
from collectors.wal.beacons.messages import (
    BYTES_MAX,
    FORGERIES_A_SECOND,
    HEARTBEAT_PREFIX,
    HEARTBEATS_MAX,
    Messages,
    Unread,
)
from collectors.wal.decoding.pgoutput import LogicalMessage
from pgwitness.core.events import Ddl, Forgery

KEY = b"k" * 32
GRANT = [
    "ddl/1", "77", "shop", 7, 12, 1, "ann", "ann", "psql", None, None, None, None, "ddl_command_end", "GRANT", 1,
    [["TABLE", None, None, None]], "GRANT SELECT ON t TO app", "0" * 64, None, ["public"],
]  # fmt: skip


class Server:
    """Judges messages for a test, and counts what it would have cost."""

    def __init__(self) -> None:
        self.keys_read = 0
        self.heartbeats = 0
        self.announced: list[str] = []
        self.now = 0.0
        self.judge = Messages(
            "77",
            "shop",
            KeyReads(self._key, Keyring(), lambda: self.now),
            lambda said, _: self.announced.append(said.operation),
            self._beat,
            lambda: self.now,
        )

    def _key(self) -> list[Key]:
        self.keys_read += 1
        return [Key(key=KEY, number=1)]

    def _beat(self) -> None:
        self.heartbeats += 1

    def say(self, prefix: str, content: bytes, xid: int | None = 7) -> object:
        return self.judge.message(LogicalMessage(xid is not None, 9, prefix, content), xid)


def signed(payload: Any, key: bytes = KEY) -> bytes:
    """Sign a payload as the database does."""
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return mac.mac(key, data) + data


def test_a_grant_without_its_object_is_told_and_nobody_is_accused() -> None:
    """PostgreSQL tells only that a table was granted on; the statement says which."""
    said = Server().say(mac.DDL_PREFIX, signed(GRANT))
    assert isinstance(said, Ddl)
    assert [(o.type, o.identity, o.relation) for o in said.objects] == [("table", "public.t", "public.t")]
    assert said.names == ["privilege select", "grantee app"]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (["ddl/2", 1, 2], "version '2'"),
        ([*GRANT[:3], "seven", *GRANT[4:]], "not of the form ddl/1"),
        (GRANT[:9], "ddl"),
        ([*GRANT[:16], [[1, 2]], *GRANT[17:]], "not of the form ddl/1"),
        ({"a": 1}, "begins with its kind"),
        (b"\xff", "begins with its kind"),
    ],
)
def test_a_genuine_message_that_is_not_understood_is_no_forgery(payload: Any, why: str) -> None:
    """Its code verifies, so nobody but our own function made it: evidence is missing, and that is said."""
    said = Server().say(mac.DDL_PREFIX, signed(payload))
    if isinstance(said, Unread):
        assert why in said.why
    else:  # what a shorter form leaves out has its defaults
        assert isinstance(said, Ddl)


def test_a_genuine_message_of_another_kind_is_a_forgery() -> None:
    """A client can read its own introduction: put under another prefix it says nothing about us."""
    server = Server()
    for content in (signed(["session/1", "77", "shop"]), signed(["control/1", "77", "shop", 7, "pause", "ann"])):
        said = server.say(mac.DDL_PREFIX, content)
        assert isinstance(said, Forgery)
        assert said.reason == "kind"


@given(st.sampled_from([mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX, HEARTBEAT_PREFIX]), st.binary(), st.booleans())
def test_hostile_messages_are_forged_or_unread(prefix: str, content: bytes, sign: bool) -> None:
    """Whatever stands in a message, signed or not, it gives a verdict and no error."""
    said = Server().say(prefix, signed(content) if sign else content)
    assert said is None or isinstance(said, Forgery | Unread)


def test_a_heartbeat_counts_once_and_only_as_it_was_written() -> None:
    """A stranger's does nothing, a repeated one neither; several of ours may be under way."""
    server = Server()
    for content in (b"", b"x", bytes(16)):
        assert server.say(HEARTBEAT_PREFIX, content, None) is None
    first, second, third = (server.judge.beat.next().encode() for _ in range(3))
    for content in (second, second, first, third):
        server.say(HEARTBEAT_PREFIX, content, None)
    assert server.heartbeats == 2
    old = server.judge.beat.next()
    for _ in range(HEARTBEATS_MAX):
        server.judge.beat.next()
    server.say(HEARTBEAT_PREFIX, old.encode(), None)
    assert server.heartbeats == 2


@pytest.mark.parametrize("prefix", [mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX])
@pytest.mark.parametrize("xid", [None, 7])
def test_a_flood_of_forgeries_is_bounded(prefix: str, xid: int | None) -> None:
    """Of ten thousand a second the first few are told one by one, the others by their number; the key is read once."""
    server = Server()
    told = []
    for second in range(3):
        for n in range(10_000):
            server.now = 100.0 + second + n / 10_000
            told.append(server.say(prefix, b"I am the CFO" * 3, xid))
    assert sum(said is not None for said in told) == 3 * FORGERIES_A_SECOND
    assert server.keys_read <= 1 + 4 * KEYS_A_SECOND
    rest = server.judge.forgeries.rest(server.now)
    assert rest is not None
    assert sum(rest[0].values()) == 30_000 - 3 * FORGERIES_A_SECOND
    assert server.judge.forgeries.rest(server.now) is None


def test_genuine_messages_count_in_a_flood() -> None:
    """However many forgeries there are, what is genuine is taken."""
    server = Server()
    for _ in range(100):
        server.say(mac.DDL_PREFIX, b"forged")
    assert isinstance(server.say(mac.DDL_PREFIX, signed(GRANT)), Ddl)
    server.say(mac.CONTROL_PREFIX, signed(["control/1", "77", "shop", 7, "pause", "ann"]))
    assert server.announced == ["pause"]


@pytest.mark.parametrize("prefix", [mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX])
def test_a_flood_keeps_no_genuine_message_from_its_key(prefix: str) -> None:
    """The key is lost again and again, and forgeries take the turns to read it: a new one's messages wait for the next.

    Nothing waits longer than one turn, and no turn comes early.
    """
    reads: list[float] = []
    waited: list[float] = []
    now, end = [100.0], [10]

    def made(xid: int) -> Key:
        """Give the key that a transaction signs with: every 500 of them it is lost."""
        return Key(key=b"%032d" % (xid // 500), number=1, made_lsn=xid // 500 * 500)

    def load() -> list[Key]:
        reads.append(now[0])
        return [made(end[0] - 1)]

    def wait(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds
        end[0] += 400

    keys = KeyReads(load, Keyring(), lambda: now[0], stand=lambda: Stand(end[0]), wait=wait)
    judge = Messages("77", "shop", keys, lambda *_: None, lambda: None, lambda: now[0])
    genuine = 0
    for xid in range(10, 8_000):
        end[0] = max(end[0], xid + 1)
        if xid % 500 == 1:
            grant = signed([*GRANT[:3], xid, *GRANT[4:]], made(xid).key)
            said = judge.message(LogicalMessage(True, xid, mac.DDL_PREFIX, grant), xid)
            assert isinstance(said, Ddl)
            assert said.beacon.authenticated
            genuine += 1
        else:
            judge.message(LogicalMessage(True, xid, prefix, b"7\x1f" * 9), xid)
    assert genuine == 15
    assert max(waited) <= 1 / KEYS_A_SECOND + 1e-9
    assert all(later - earlier >= 1 / KEYS_A_SECOND - 1e-9 for earlier, later in pairwise(reads[1:]))
    assert len(reads) < 100


@pytest.mark.parametrize("seen_after_s", [0.0, 0.4, 60.0])
@pytest.mark.parametrize("locked", [False, True])
def test_no_message_is_forged_before_its_key_can_be_read(seen_after_s: float, locked: bool) -> None:
    """Its transaction is in the WAL before others see it, or somebody holds a lock: it waits, and never for long."""
    fresh, now = b"f" * 32, [100.0]

    def over() -> bool:
        return now[0] >= 100.0 + seen_after_s

    def load() -> list[Key] | None:
        if locked and not over():
            return None
        return [Key(key=KEY, number=1), *([Key(key=fresh, number=2)] if over() else [])]

    def stand() -> Stand:
        return stand_of("700:710:" + ("" if locked or over() else "705"))

    def wait(seconds: float) -> None:
        now[0] += seconds

    keys = KeyReads(load, Keyring([Key(key=KEY, number=1)]), lambda: now[0], stand=stand, wait=wait)
    judge = Messages("77", "shop", keys, lambda *_: None, lambda: None, lambda: now[0])
    grant = LogicalMessage(True, 9, mac.DDL_PREFIX, signed([*GRANT[:3], 705, *GRANT[4:]], fresh))
    said = judge.message(grant, 705)
    assert isinstance(said, Ddl if seen_after_s < PATIENCE_S else Unread)
    assert now[0] < 100.0 + PATIENCE_S + 1.0
    # Nobody waits a second time for the same, and a forger is one as soon as that can be said.
    before = now[0]
    for xid in (703, 705) * 20:
        judge.message(LogicalMessage(True, 9, mac.DDL_PREFIX, signed(GRANT, b"x" * 32)), xid)
    assert now[0] <= before + PATIENCE_S
    now[0] += 60.0
    assert isinstance(judge.message(LogicalMessage(True, 9, mac.DDL_PREFIX, b"x" * 99), 703), Forgery)


@pytest.mark.parametrize("prefix", [mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX])
def test_what_is_longer_than_anything_of_ours_is_not_looked_at(prefix: str) -> None:
    """A megabyte is refused by its size."""
    said = Server().say(prefix, b"x" * (BYTES_MAX[prefix] + 1))
    assert isinstance(said, Forgery)
    assert (said.reason, said.claims) == ("malformed", {})


def test_the_rest_is_told_when_it_is_due() -> None:
    """With the first and the last place of what was not told one by one."""
    limit = Limit(1)
    assert [limit.allows(5.0, "mac", lsn) for lsn in (3, 4, 5)] == [True, False, False]
    assert limit.rest(5.0) == ({"mac": 2}, 4, 5)
    assert not limit.allows(5.5, "mac", 6)
    assert limit.rest(6.0) is None
    assert limit.rest(5.0 + REST_EVERY_S) == ({"mac": 1}, 6, 6)
    assert limit.allows(7.0, "mac", 7)


PUBLIC = ["public"]


@pytest.mark.parametrize(
    ("tag", "statement", "expected"),
    [
        ("GRANT", "GRANT SELECT ON a, s.b TO x", [["public.a", "s.b"]] * 2),
        ("GRANT", "GRANT SELECT ON a TO x; GRANT SELECT ON b TO x", [["public.a"], ["public.b"]]),
        ("GRANT", "GRANT SELECT ON a TO x; GRANT CONNECT ON DATABASE d TO x", [["public.a"]] * 2),
        ("REVOKE", "GRANT SELECT ON a TO x; REVOKE SELECT ON b FROM x", [["public.b"]] * 2),
        ("GRANT", "SELECT f(); GRANT SELECT ON a TO x", [[]]),
        ("GRANT", "BEGIN; GRANT SELECT ON a TO x; ROLLBACK; GRANT SELECT ON b TO x", [[]]),
        ("GRANT", "DO $$ BEGIN GRANT SELECT ON a TO x; END $$", [[]]),
        ("GRANT", "CREATE TABLE p PARTITION OF q FOR VALUES IN (f()); GRANT SELECT ON a TO x", [[]]),
        ("GRANT", "GRANT SELECT ON pg_class TO x", [["pg_class"]]),
        ("GRANT", 'GRANT EXECUTE ON FUNCTION "F"(int, text[]), g TO x', [['public."F"(int4,text[])', "public.g"]]),
        ("GRANT", "GRANT SELECT ON a TO", [[]]),
        ("DROP OWNED", "DROP OWNED BY a, CURRENT_USER", [["a", "current_user"]]),
    ],
)
def test_objects_are_read_from_a_text_that_runs_nothing_else(
    tag: str, statement: str, expected: list[list[str]]
) -> None:
    """Commands of one text are told in their order; where another one may have been run, nothing is said."""
    for turn, names in enumerate(expected):
        assert [item.identity for item in ddl_objects.unnamed(tag, statement, turn, PUBLIC)] == names


def test_a_name_is_completed_only_where_one_schema_is_possible() -> None:
    """With two schemas in the path, or a temporary one, the name stays as it was written."""
    for path in ([], ["a", "b"], ["pg_temp_3", "public"]):
        (item,) = ddl_objects.unnamed("GRANT", "GRANT SELECT ON t TO x", 0, path)
        assert item.identity == "t"
    comment = "COMMENT ON COLUMN t.i IS 'x'"
    assert ddl_objects.completed(comment, ["t", "s.t", '"a.b"'], PUBLIC) == ["public.t", "s.t", 'public."a.b"']
    assert ddl_objects.completed("SELECT f()", ["t"], PUBLIC) == ["t"]


@pytest.mark.parametrize(
    ("tag", "statement", "path"),
    [
        ("ALTER TABLE", "ALTER TABLE t SET SCHEMA x", ['"A b"', "public"]),
        ("ALTER TABLE", "ALTER TABLE t RENAME TO x", ['"A b"', "public"]),
        ("ALTER TABLE", "ALTER TABLE r ATTACH PARTITION t DEFAULT", ['"A b"', "public"]),
        ("ALTER TABLE", "DO $$ BEGIN ALTER TABLE t RENAME TO x; END $$", []),
        ("ALTER TABLE", "SELECT f()", []),
        ("ALTER TABLE", "SET search_path = x; ALTER TABLE t RENAME TO x", []),
        ("CREATE TABLE", "CREATE TABLE t (a int)", []),
    ],
)
def test_where_an_alter_looked_for_its_names_is_told(tag: str, statement: str, path: list[str]) -> None:
    """Where the text is that command alone: a block or a function may have looked elsewhere."""
    assert ddl_objects.looked_for(tag, statement, ["A b", "public"]) == path


@given(st.text(), st.sampled_from(["GRANT", "ALTER TABLE", "DROP OWNED", "ALTER EXTENSION"]))
def test_any_text_is_read_without_an_error(statement: str, tag: str) -> None:
    """What does not parse says nothing."""
    ddl_objects.unnamed(tag, statement, 0, PUBLIC)
    ddl_objects.besides(tag, [], statement, PUBLIC)
