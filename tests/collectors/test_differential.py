"""Row for row what test_decoding says of the same WAL."""

from __future__ import annotations

import psycopg
import pytest

from tests.collectors.differential import KEYS, open_slots, run


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_those_of_test_decoding(database: str, seed: int) -> None:
    """All built-in types, identities and ways to write, through both, in the same order with the same values."""
    with psycopg.connect(database, autocommit=True) as connection:
        open_slots(connection)
        count, wrong = run(connection, seed, 2 * len(KEYS), 60)
    assert wrong == []
    assert count > 100
