"""What `pgwitness doctor` says of a source database: each thing in the way is named with a fix that works."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from collectors.installation import capabilities, install
from collectors.installation.capabilities import Facts, Matrix
from tests.collectors.beacon_wal import Source, opened


def now_us() -> int:
    """Read this host's clock."""
    return time.time_ns() // 1000


@pytest.fixture
def shop(database: str) -> Iterator[Source]:
    """A small shop with the beacon and pg_stat_statements, on each PostgreSQL in turn."""
    with opened(database) as source:
        yield source


@pytest.fixture
def facts(database18: str) -> Iterator[Facts]:
    """The facts of a database in which everything is in order but for one table without a key."""
    with opened(database18) as source:
        yield capabilities.inspect(source.client("pgwitness"), now_us)


def certainties(matrix: Matrix) -> dict[str, str]:
    """Give certainty by subject, of what is captured."""
    return {c.subject: c.certainty for c in matrix.capabilities if c.captured}


def fixes(matrix: Matrix) -> dict[str, str]:
    """Give the fix by subject."""
    return {finding.subject: finding.fix for finding in matrix.findings}


def test_installed_database_is_in_order(shop: Source) -> None:
    """After an installation the collectors' role finds nothing that costs evidence, and writes are exact."""
    matrix = capabilities.doctor(shop.client("pgwitness"), now_us)
    assert matrix.in_order, matrix.findings
    assert certainties(matrix) == {
        "reads": "weak",
        "writes": "exact",
        "ddl": "exact",
        "role changes": "none",
        "logins": "exact",
    }
    assert set(fixes(matrix)) == {"public.notes"}
    assert abs(matrix.facts.skew_ms) < 1000


def test_bare_database_names_the_installation(database: str) -> None:
    """Before an installation writes are not captured, and the fix is the command that installs."""
    with opened(database, beacon=False) as source:
        matrix = capabilities.doctor(source.admin, now_us)
        assert not matrix.in_order
        assert "writes" not in certainties(matrix)
        assert fixes(matrix)["beacon"] == "pgwitness db install"


def test_role_without_rights(shop: Source) -> None:
    """A role that may not read the WAL, other sessions or the key is told so, and the fixes named make it whole."""
    shop.admin.execute("CREATE ROLE weak LOGIN")
    matrix = capabilities.doctor(shop.client("weak"), now_us)
    assert "logins" not in certainties(matrix)
    for finding in matrix.findings:
        if finding.subject == "role weak":
            shop.admin.execute(finding.fix.encode())
    again = capabilities.doctor(shop.client("weak"), now_us)
    assert "role weak" not in fixes(again)
    assert "logins" in certainties(again)


def test_missing_extension_is_fixed_as_said(shop: Source) -> None:
    """Without the extension reads are not captured; the fix, run as it is, brings them back."""
    shop.admin.execute("DROP EXTENSION pg_stat_statements")
    matrix = capabilities.doctor(shop.client("pgwitness"), now_us)
    assert "reads" not in certainties(matrix)
    shop.admin.execute(fixes(matrix)["pg_stat_statements"].encode())
    assert "reads" in certainties(capabilities.doctor(shop.client("pgwitness"), now_us))


def test_disabled_table_is_an_error(shop: Source) -> None:
    """A table whose beacon was disabled is not in order; the fix, run as it is, puts it back."""
    shop.admin.execute("ALTER TABLE orders DISABLE TRIGGER pgwitness_beacon")
    matrix = capabilities.doctor(shop.client("pgwitness"), now_us)
    assert not matrix.in_order
    shop.admin.execute(fixes(matrix)["public.orders"].encode())
    assert capabilities.doctor(shop.client("pgwitness"), now_us).in_order


def test_paused_beacon_is_an_error(shop: Source) -> None:
    """While the beacon is paused the matrix does not promise exact writes."""
    install.pause(shop.admin)
    matrix = capabilities.doctor(shop.client("pgwitness"), now_us)
    assert certainties(matrix)["writes"] == "none"
    assert "paused" in {f.subject: f.problem for f in matrix.findings}["beacon"]


def test_who_can_read_the_key_all_the_same_is_named(shop: Source) -> None:
    """A role that row security does not stop, and that may read every table, can forge beacons: the doctor says so."""
    shop.admin.execute("CREATE ROLE backup LOGIN BYPASSRLS; CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
    assert "role backup" not in fixes(capabilities.doctor(shop.admin, now_us))
    shop.admin.execute("GRANT pg_read_all_data TO backup")
    found = fixes(capabilities.doctor(shop.admin, now_us))
    assert found["role backup"].startswith("ALTER ROLE backup NOBYPASSRLS")
    assert "role reader" not in found


def test_idle_slot_is_reported(shop: Source) -> None:
    """A slot of ours that nobody reads is reported with how much WAL it holds back."""
    shop.admin.execute("SELECT pg_create_logical_replication_slot('pgwitness_idle', 'pgoutput')")
    matrix = capabilities.doctor(shop.client("pgwitness"), now_us)
    assert "nobody reads it" in {f.subject: f.problem for f in matrix.findings}["slot pgwitness_idle"]


def test_settings_in_the_way(facts: Facts) -> None:
    """Each setting that is in the way has its finding, and what is already preloaded is kept in the fix."""
    settings = {
        **facts.settings,
        "wal_level": "replica",
        "max_replication_slots": "1",
        "shared_preload_libraries": "auto_explain",
        "track_activities": "off",
    }
    matrix = capabilities.assess(replace(facts, settings=settings, slots_used=1))
    found = fixes(matrix)
    assert {"wal_level", "max_replication_slots", "track_activities"} <= set(found)
    assert "'auto_explain', 'pg_stat_statements'" in found["pg_stat_statements"]
    assert set(certainties(matrix)) == {"role changes", "logins"}


@pytest.mark.parametrize(
    ("skew_ms", "round_trip_ms", "told"),
    [(5000.0, 1.0, True), (-5000.0, 1.0, True), (900.0, 1.0, False), (3000.0, 2500.0, False)],
)
def test_clock_skew(facts: Facts, skew_ms: float, round_trip_ms: float, told: bool) -> None:
    """Clocks more than a second apart are told, unless a slow round trip explains the difference."""
    matrix = capabilities.assess(replace(facts, skew_ms=skew_ms, round_trip_ms=round_trip_ms))
    assert ("clocks" in fixes(matrix)) is told


def test_lost_slot_is_an_error(facts: Facts) -> None:
    """A slot whose WAL the server has removed is an error that names how to go on."""
    lost = capabilities.SlotFacts(name="pgwitness", active=False, wal_status="lost", lag_bytes=None, safe_bytes=None)
    matrix = capabilities.assess(replace(facts, slots=(lost,)))
    assert not matrix.in_order
    assert "pg_drop_replication_slot('pgwitness')" in fixes(matrix)["slot pgwitness"]
