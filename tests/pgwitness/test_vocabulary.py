"""The small words: LSNs, identifiers, sessions, lanes, units, health."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core import events, topics
from pgwitness.core.runtime import health
from pgwitness.core.units import Duration, Size


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_survives_being_written(lsn: int) -> None:
    """Reading what was written gives the same number."""
    assert events.parse_lsn(events.format_lsn(lsn)) == lsn


def test_an_lsn_is_written_as_postgresql_does() -> None:
    """The example is from PostgreSQL's own documentation of pg_lsn."""
    assert events.format_lsn(0x16B374D848) == "16/B374D848"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("orders", "orders"),
        ("Orders", '"Orders"'),
        ("1st", '"1st"'),
        ('a"b', '"a""b"'),
        ("größe", '"größe"'),
        ("a b", '"a b"'),
    ],
)
def test_identifiers_are_quoted_as_sql_would(name: str, quoted: str) -> None:
    """Only a plain lower-case name stays bare."""
    assert events.quote_identifier(name) == quoted


def test_a_session_is_named_by_instance_start_and_pid() -> None:
    """A pid that comes again later is another session."""
    first = events.session_id("db:5432", 1_700_000_000_000_000, 42)
    assert first == "db:5432/6553f100.2a"
    assert events.session_id("db:5432", 1_700_000_001_000_000, 42) != first


def test_lanes_and_partitions_are_the_same_in_every_process() -> None:
    """They decide where state lives, so their values are promises; a change here would strand it."""
    assert topics.lane_of("ann@example.com", "shop", "app") == 30
    assert topics.partition_of("shop", 4) == 2


@given(st.text(), st.integers(1, 64))
def test_a_lane_stays_in_its_range(principal: str, lanes: int) -> None:
    """Whatever the name, there is a lane for it."""
    assert 0 <= topics.lane_of(principal, "c", None, lanes) < lanes


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("1.5h", 5400), ("7d", 604800)])
def test_durations_are_read(text: str, seconds: float) -> None:
    """The units people write."""
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("8KiB", 8192), ("10GB", 10**10), ("0B", 0)])
def test_sizes_are_read(text: str, size: int) -> None:
    """Powers of ten and of two, as their names say."""
    assert Size.parse(text) == size


@pytest.mark.parametrize("value", ["10", "ten s", "-1s", 10, None, "10 parsecs"])
def test_a_quantity_without_its_unit_is_refused(value: object) -> None:
    """A number alone would leave a doubt."""
    with pytest.raises(ValueError, match="units"):
        Duration.parse(value)


def get(port: int, path: str) -> tuple[int, str]:
    """Ask a daemon; gives status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_daemon_is_ready_when_every_part_said_so_and_live_while_its_loops_turn() -> None:
    """Readiness names the part and its reason; a loop that stands still fails liveness."""
    now = [0.0]
    state = health.Health(stall_s=10, clock=lambda: now[0])
    server, port = health.serve(state, "127.0.0.1", 0)
    try:
        state.expect("wal/shop")
        assert get(port, "/readyz") == (503, "wal/shop: starting\n")
        state.ready("wal/shop")
        assert get(port, "/readyz") == (200, "ok\n")
        assert get(port, "/livez")[0] == 200
        now[0] = 11
        assert get(port, "/livez") == (503, "wal/shop\n")
        assert "python_info" in get(port, "/metrics")[1]
        assert get(port, "/else")[0] == 404
    finally:
        server.shutdown()
        server.server_close()
