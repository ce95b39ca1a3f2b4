"""What the evidence calls committed is what the tables hold, for sessions at random on each PostgreSQL."""

from __future__ import annotations

from tests.gateway.conftest import Running
from tests.gateway.differential import compare, told


def test_the_evidence_is_what_is_there(gateway: Running, database: str) -> None:
    """Sessions in any order of messages: no row that no statement accounts for, and none claimed that is not there."""
    compare(database, gateway, 25, 3)
    sure, _ = told(gateway)
    assert sure.total() > 20
