"""A sample of `tests.collectors.masking.lineage`: no mark comes back, and what is clear is answered as ever."""

from __future__ import annotations

import psycopg

from tests.collectors.masking import lineage


def test_no_mark_comes_back_from_random_statements(database: str) -> None:
    """Results, errors, notices, notifications and plans hold none; clear columns are answered as the tables would."""
    lineage.prepare(database)
    found = lineage.run(database, 400, seed=7)
    assert found.leaked == []
    assert found.differing == []
    assert found.outcomes["ok"] > 150, "most statements must run, or nothing is tested"
    assert found.outcomes["42501"] > 10, "some must try the tables themselves"


def test_an_open_table_is_noticed(database18: str) -> None:
    """The same statements leak where the audience may read a table: the marks are where they would be seen."""
    lineage.prepare(database18)
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("GRANT SELECT ON customers TO support")
    leaked = {statement for statement, _ in lineage.run(database18, 400, seed=7).leaked}
    assert any("public.customers" in statement for statement in leaked)
