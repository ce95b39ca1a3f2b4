"""Sessions and posture compared, with values."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.posture.comparison import Object, catalogues, lost_beacons, masked_setting, within
from collectors.posture.comparison import compare as compare_posture
from collectors.sessions.activity import Backend, Look, Ourselves, authenticates, certificate, compare
from collectors.xids import widen
from pgwitness.core.events import Certificate
from pgwitness.core.privacy import tokenizer

ANNA = Backend(pid=7, backend_start_us=50, role="anna", application="psql", client_addr="10.0.0.1", client_port=4000)
TOKEN = tokenizer(b"k" * 32)


def operations(before: Look | None, after: Look, *, resumed: bool = False) -> list[tuple[str, int, int]]:
    """What was told: operation, pid and time."""
    return [(e.operation, e.pid, e.occurred_at_us) for e in compare(before, after, 999, resumed=resumed)]


def test_the_first_look_finds_and_later_ones_tell_who_came_and_went() -> None:
    """A session is told once when it comes, with its own start, and once when it goes."""
    assert operations(None, Look(100, [ANNA])) == [("found", 7, 100)]
    assert operations(Look(100, [ANNA]), Look(200, [ANNA])) == []
    assert operations(Look(40, []), Look(100, [ANNA])) == [("connect", 7, 50)]
    assert operations(Look(100, [ANNA]), Look(200, [])) == [("disconnect", 7, 200)]


def test_a_pid_that_comes_again_is_another_session() -> None:
    """The old one has gone before the new one came, although no look missed the pid."""
    again = msgspec.structs.replace(ANNA, backend_start_us=150)
    assert operations(Look(100, [ANNA]), Look(200, [again])) == [("disconnect", 7, 200), ("connect", 7, 150)]


def test_after_a_restart_of_the_collector_nobody_is_forgotten() -> None:
    """Who stayed is found again, who left meanwhile is told to have gone, who came is told to have come."""
    new = Backend(pid=8, backend_start_us=150)
    assert operations(Look(100, [ANNA]), Look(200, [ANNA, new]), resumed=True) == [
        ("found", 7, 200),
        ("connect", 8, 150),
    ]
    assert operations(Look(100, [ANNA]), Look(200, []), resumed=True) == [("disconnect", 7, 200)]


def test_a_transaction_id_is_sampled_once() -> None:
    """Each transaction id of a session is told once, however many looks see it."""
    first, second = (msgspec.structs.replace(ANNA, xid=xid) for xid in (700, 701))
    assert operations(Look(100, [ANNA]), Look(200, [first])) == [("sample", 7, 200)]
    assert operations(Look(200, [first]), Look(300, [first])) == []
    assert operations(Look(300, [first]), Look(400, [second])) == [("sample", 7, 400)]


def test_another_application_name_is_a_sample() -> None:
    """A session that names itself anew is told with its new name."""
    renamed = msgspec.structs.replace(ANNA, application="billing")
    (event,) = compare(Look(100, [ANNA]), Look(200, [renamed]), 999)
    assert (event.operation, event.application) == ("sample", "billing")


@given(st.integers(2**32, 2**60), st.integers(-(2**31) + 1, 2**31 - 1))
def test_a_transaction_id_gets_its_epoch(next_xid: int, distance: int) -> None:
    """Within half the circle before or after the server's next id the 64-bit id is found again."""
    xid = next_xid + distance
    assert widen(xid & 0xFFFFFFFF, next_xid) == xid


def test_who_names_itself_pgwitness_is_not_hidden() -> None:
    """Our sessions are known by pid, or by role, address and name together."""
    own = Ourselves(frozenset({1}), "pgwitness", "10.0.0.9")
    ours = Backend(pid=2, backend_start_us=1, role="pgwitness", application="pgwitness wal", client_addr="10.0.0.9")
    assert own.is_own(ours)
    assert own.is_own(msgspec.structs.replace(ANNA, pid=1))
    for changed in ({"role": "anna"}, {"client_addr": "10.0.0.8"}, {"application": "psql"}):
        assert not own.is_own(msgspec.structs.replace(ours, **changed))


BOB = Object("role", None, "bob", {"superuser": False, "login": True})
ROOT = Object("role", None, "root", {"superuser": True, "login": True})
TABLE = Object("table", "shop", "public.orders", {"owner": "bob"})


def posture(before: list[Object] | None, after: list[Object]) -> list[tuple[str, str, str]]:
    """What was told: object type, name and change."""
    return [(e.object_type, e.name, e.change) for e in compare_posture(before, after, 999)]


def test_the_first_snapshot_lists_what_matters_and_counts_the_rest() -> None:
    """A role with power is listed, an ordinary role and a table are counted."""
    events = compare_posture(None, [BOB, ROOT, TABLE], 999)
    assert [(e.object_type, e.name, e.change) for e in events] == [
        ("role", "root", "found"),
        ("summary", "objects", "found"),
    ]
    assert events[-1].after == {"role": 2, "table": 1}


def test_changes_are_told_with_before_and_after() -> None:
    """Added, removed and changed objects, and nothing else."""
    promoted = Object("role", None, "bob", {"superuser": True, "login": True})
    assert posture([BOB, TABLE], [BOB, TABLE]) == []
    assert posture([BOB, TABLE], [BOB, TABLE, ROOT]) == [("role", "root", "added")]
    other = Object("table", "shop", "public.items", {})
    assert posture([BOB, TABLE, other], [BOB, other]) == [("table", "public.orders", "removed")]
    (event,) = compare_posture([BOB], [promoted], 999)
    assert (event.change, event.before, event.after) == ("changed", BOB.attributes, promoted.attributes)


def test_a_change_says_between_which_looks_it_happened() -> None:
    """From the look that last read its database to the end of this one; what is as found does not say it."""
    other = Object("table", "billing", "public.items", {})
    events = compare_posture([TABLE, other, BOB], [ROOT, BOB], 999)
    told = within(events, {"": 100, "shop": 50}, 200)
    assert {e.name: (e.window_start_us, e.window_end_us) for e in told} == {
        "root": (100, 200), "public.orders": (50, 200), "public.items": (None, None),
    }  # fmt: skip
    assert all(e.window_end_us is None for e in within(compare_posture(None, [ROOT], 999), {"": 100}, 200))


def test_databases_come_and_go() -> None:
    """A new database is told; those that were there before anybody looked at databases are not."""
    old, new = (Object("database", None, name, {"owner": "root"}) for name in ("shop", "side"))
    assert posture([BOB, old], [BOB, old, new]) == [("database", "side", "added")]
    assert posture([BOB, old, new], [BOB, old]) == [("database", "side", "removed")]
    assert posture([BOB], [BOB, old, new]) == []


def test_a_database_that_was_not_watched_before_is_found() -> None:
    """Adding a database to the configuration is not the creation of everything in it."""
    assert posture([BOB], [BOB, TABLE]) == [("summary", "objects", "found")]


def test_settings_that_may_hold_secrets_are_tokens() -> None:
    """A change of such a setting is still seen, its value is not."""
    for name in ("primary_conninfo", "ssl_passphrase_command", "myapp.key", "pgaudit.password"):
        first = masked_setting(name, "hunter2", TOKEN)
        assert "hunter2" not in first
        assert first == masked_setting(name, "hunter2", TOKEN) != masked_setting(name, "hunter3", TOKEN)
    assert masked_setting("work_mem", "4096", TOKEN) == "4096"
    assert masked_setting("pgaudit.log", "all", TOKEN) == "all"
    assert masked_setting("password_encryption", "md5", TOKEN) == "md5"
    assert masked_setting("archive_command", "", TOKEN) == ""


def test_what_a_dropped_table_takes_along_says_so() -> None:
    """Its triggers and its beacon are no acts of their own; a trigger dropped from a table that stays is one."""
    trigger = Object("trigger", "shop", "public.orders.audit", {"relation": "public.orders", "active": True})
    beacon = Object("beacon", "shop", "public.orders", {})
    gone = compare_posture([BOB, TABLE, trigger, beacon], [BOB, Object("table", "shop", "public.items", {})], 999)
    assert {e.object_type: e.dropped_with for e in gone if e.change == "removed" and e.object_type != "role"} == {
        "trigger": "public.orders",
        "beacon": "public.orders",
        "table": None,
    }
    (event,) = compare_posture([TABLE, trigger], [TABLE], 999)
    assert event.dropped_with is None


def test_a_table_that_is_made_anew_takes_its_triggers_along() -> None:
    """`DROP TABLE t; CREATE UNLOGGED TABLE t` switches no beacon off: its triggers went with the table they were on."""
    old, new = (Object("table", "shop", "public.orders", {"oid": oid, "owner": "bob"}) for oid in (7, 8))
    beacon = Object("beacon", "shop", "public.orders", {})
    for table, along in ((new, "public.orders"), (old, None)):
        (gone,) = [event for event in compare_posture([old, beacon], [table], 999) if event.object_type == "beacon"]
        assert (gone.change, gone.dropped_with) == ("removed", along)


def test_a_lost_registry_switches_no_beacon_off() -> None:
    """Emptied under triggers that stand, as after a crash, it has lost its beacons; otherwise they have gone."""
    beacons = [Object("beacon", "shop", f"public.{name}", {"installed_by": "postgres"}) for name in ("a", "b", "c")]
    a, b, off = (
        Object("trigger", "shop", f"public.{name}.pgwitness_beacon", {"active": active})
        for name, active in (("a", True), ("b", True), ("c", False))
    )
    others = [Object("beacon", "billing", "public.a", {}), Object("trigger", "billing", "public.b.other", {})]
    assert lost_beacons(beacons, [a, b, off, *others]) == beacons[:2]
    assert lost_beacons(beacons, [a, b, off, beacons[2]]) == []
    assert lost_beacons(beacons, others) == []
    assert lost_beacons([], [a, b]) == []
    assert lost_beacons(others, [b]) == []


@pytest.mark.parametrize(
    ("dn", "role", "proven"),
    [
        (b"/CN=ada", "ada", True),
        (b"/O=shop/CN=ada/OU=x", "ada", True),
        (b"/CN=ada", "app", False),
        (b"/CN=adam", "ada", False),
        (b"/CN=ada/CN=app", "ada", False),
        (b"/O=ada", "ada", False),
        (b"/CN=", "", False),
        (b"/CN=" + b"a" * 58, "a" * 58, True),
        (b"/CN=" + b"a" * 59, "a" * 59, False),
        (b"/CN=\xff", "\xff", False),
    ],
)
def test_only_a_certificate_of_ones_own_name_proves_the_role(dn: bytes, role: str, proven: bool) -> None:
    """A certificate proves the role it names, whole: a client may show any and log in by password."""
    shown = certificate(dn, b"/CN=ca", "7")
    assert shown is not None
    assert authenticates(shown, role) is proven


def test_a_name_that_postgresql_may_have_cut_is_not_known() -> None:
    """Of a long certificate the serial is left, and a session without one has none."""
    assert certificate(b"/CN=" + b"a" * 59, b"/CN=ca", "7") == Certificate(None, "/CN=ca", "7")
    assert certificate(None, None, None) is None


def test_relations_are_listed_by_database_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server's own search path; of a database that could not be read, nothing is listed."""
    monkeypatch.setattr("collectors.posture.comparison.LISTED_MAX", 2)
    tables = [Object("table", database, f"public.t{number}", {}) for database in ("a", "b") for number in range(3)]
    path = Object("setting", None, "search_path", {"value": "app, public"})
    found = catalogues([*tables, path, Object("role", None, "ann", {})], ["b"], 5)
    assert [(event.object_type, event.database, event.after) for event in found] == [
        (
            "catalogue",
            "a",
            {"relations": ["public.t0", "public.t1"], "part": 1, "parts": 2, "search_path": "app, public"},
        ),
        ("catalogue", "a", {"relations": ["public.t2"], "part": 2, "parts": 2, "search_path": "app, public"}),
    ]


def test_a_table_is_known_by_its_oid() -> None:
    """Renamed it is no table that went and another that came; made anew under its name it is another one."""
    a, b = (Object("table", "shop", name, {"oid": 7, "owner": "bob"}) for name in ("public.a", "public.b"))
    (event,) = compare_posture([a], [b], 999)
    assert (event.object_type, event.name, event.change) == ("table", "public.b", "changed")
    assert event.after == {"oid": 7, "owner": "bob", "renamed_from": "public.a"}
    anew = Object("table", "shop", "public.a", {"oid": 8, "owner": "bob"})
    assert [event.change for event in compare_posture([a], [anew], 999)] == ["changed"]
    assert [event.change for event in compare_posture([a], [anew, b], 999)] == ["added", "changed"]
    aged = Object("table", "shop", "public.a", {"owner": "bob"})
    assert compare_posture([aged], [a], 999) == []


def test_a_snapshot_that_saw_less_of_the_beacon_is_no_change() -> None:
    """What the beacon's triggers run was hashed otherwise before: that alone says nothing, being off does."""

    def trigger(**attributes: object) -> Object:
        same = {"active": True, "enabled": "always", "function": "pgwitness.beacon"}
        return Object("trigger", "shop", "public.t.pgwitness_beacon", {**same, **attributes})

    now = trigger(function_md5="2", bodies=5)
    assert posture([trigger(function_md5="1")], [now]) == []
    assert posture([trigger(function_md5="1", function="pgwitness.beacon_each")], [now]) == []
    changed = [("trigger", "public.t.pgwitness_beacon", "changed")]
    assert posture([trigger(function_md5="1", active=False)], [now]) == changed
    assert posture([trigger(function_md5="1", bodies=5)], [now]) == changed
