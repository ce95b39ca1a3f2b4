"""What the doctor makes of the server's log, by the server's settings."""

from __future__ import annotations

import pytest

from collectors.installation.capabilities import Capability
from pgwitness.cli.doctor.serverlog import added
from pgwitness.core.config import Log

VERBOSE = {"log_error_verbosity": "verbose"}
BARE = (
    Capability("reads", False, "none", "not captured"),
    Capability("writes", True, "exact", "WAL"),
    Capability("role changes", True, "none", "snapshots"),
    Capability("logins", True, "exact", "pg_stat_activity"),
)


@pytest.mark.parametrize(
    ("settings", "format_", "reads", "roles"),
    [
        ({"log_min_duration_statement": "0", **VERBOSE}, "jsonlog", "exact", "strong"),
        ({"log_min_duration_statement": "0"}, "jsonlog", "strong", "strong"),
        ({"log_statement": "all", **VERBOSE}, "csvlog", "exact", "strong"),
        ({"log_statement": "all", **VERBOSE}, "stderr", "weak", "weak"),
        ({"log_statement": "ddl"}, "jsonlog", "none", "weak"),
        ({"pgaudit.log": "read, role", **VERBOSE}, "jsonlog", "exact", "weak"),
        ({"log_min_duration_statement": "100ms"}, "jsonlog", "none", "none"),
        ({}, "jsonlog", "none", "none"),
    ],
)
def test_a_log_is_worth_what_the_server_writes_into_it(
    settings: dict[str, str], format_: str, reads: str, roles: str
) -> None:
    """A log that does not tell every statement adds nothing to reads; the WAL stays what it is."""
    log = Log(path="x", format=format_, line_prefix="%m [%p] %u@%d ")  # type: ignore[arg-type]
    found = {item.subject: item for item in added(BARE, log, settings)}
    assert (found["reads"].certainty, found["reads"].captured) == (reads, reads != "none")
    assert found["role changes"].certainty == roles
    assert found["writes"] == BARE[1]


def test_logins_of_a_log_take_its_setting() -> None:
    """Without log_connections only sampling sees who came; refused logins are in every log."""
    (on, off) = (
        {item.subject: item for item in added(BARE, Log(path="x"), {"log_connections": value})}["logins"].how
        for value in ("receipt,authentication", "off")
    )
    assert on == "the server's log: refused ones, too"
    assert "may be missed" in off
    assert "refused ones by the log" in off
    text_log = {item.subject: item for item in added(BARE, Log(path="x", format="stderr"), {"log_connections": "on"})}
    assert text_log["logins"].certainty == "strong"
