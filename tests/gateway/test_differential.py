"""What the evidence calls committed is what the tables hold, for sessions at random on each PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.gateway.conftest import Running, running
from tests.gateway.differential import DENIED, RULES, compare, told
from tests.gateway.test_refusals import rules


def test_the_evidence_is_what_is_there(gateway: Running, database: str) -> None:
    """Sessions in any order of messages: no row that no statement accounts for, and none claimed that is not there."""
    compare(database, gateway, 25, 3)
    sure, _ = told(gateway)
    assert sure.total() > 20


def test_what_is_denied_never_runs(tmp_path: Path, database18: str) -> None:
    """So it is where statements are refused, and others run under a limit; nothing comes where it is denied."""
    with running(tmp_path, database18, rules=rules(RULES)) as gateway:
        compare(database18, gateway, 60, 2)
        with psycopg.connect(database18) as admin:
            row = admin.execute(f"SELECT count(*) FROM ran_{DENIED}".encode()).fetchone()
        assert row == (0,)
        assert {begun.verdict.effect for begun, _ in gateway.statements(60) if begun.verdict} == {"deny", "limit"}
