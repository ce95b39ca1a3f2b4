"""Whoever takes or writes over most of a table is found by the WAL, whatever statement did it; honest work is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.posture import source as posture_source
from collectors.posture.sizes import Sizes
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Config
from pgwitness.demo.servers import Broker, wait_for
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import CLEAR, MARK, Source
from tests.judgement.running import execute
from tests.judgement.ways import QUIET, TAKEN
from tests.streams.records import batch, read

RULES = "rules: [{match: {role: '*'}, principal: '{role}', kind: human}]"
TABLE = """
CREATE TABLE {t} (id int PRIMARY KEY, name text, active bool DEFAULT true);
CREATE TABLE {t}_head (id int PRIMARY KEY);
ALTER TABLE {t} ADD COLUMN head int REFERENCES {t}_head ON DELETE CASCADE;
INSERT INTO {t}_head VALUES (1);
INSERT INTO {t} SELECT n, 'name', true, 1 FROM generate_series(1, 300) AS n
"""
WIPE = """CREATE FUNCTION wipe(name text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN EXECUTE format('DELETE FROM %I WHERE id > 0', name); END $$"""
TABLES = [f"t{number}" for number in range(len(TAKEN) + len(QUIET))]


@pytest.fixture
def source(
    tmp_path: Path, embedded_broker: Broker, database: str, config_factory: Callable[..., Config]
) -> Iterator[Source]:
    """A database with a table for each way."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, database, extra=CLEAR)
    with bench(config) as made, Source(database, made) as source:
        source.create(MARK, WIPE, *[TABLE.replace("{t}", name) for name in TABLES])
        yield source


def sizes(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, int]:
    """Count rows as the collector does, once the server's statistics have them all."""
    found: dict[str, int] = {}

    def counted() -> bool:
        found.update(posture_source.sizes(connection))
        return all(found.get(f"public.{name}") == 300 for name in TABLES)

    wait_for(counted, 30, "the statistics have all rows")
    return found


def test_most_of_a_table_is_found_whatever_took_it(source: Source) -> None:
    """Some forty ways to take or overwrite all rows are told, of honest work nothing of High."""
    before = sizes(source.sql)
    row = source.sql.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8").fetchone()
    assert row is not None
    at_us = int(row[0])
    with source.running():
        source.streaming()
        for name, way in zip(TABLES, [*TAKEN, *QUIET], strict=True):
            execute(source.sql.pgconn, way.replace("{t}", name))
        transactions = source.until_marked()
    fold = Fold(0, Identities.parse(RULES), 0)
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None)
    events = list(Sizes().changed(source.database, before, at_us, at_us))
    fold.apply(0, read(batch(*events, source="sessions")))
    raised: dict[str, set[str]] = {}
    for offset, transaction in enumerate(transactions, 1):
        for event in fold.apply(offset, read(batch(transaction))):
            for alert in judge.judge(event).alerts:
                if alert.severity in ("high", "critical"):
                    for relation in alert.action.relations:
                        raised.setdefault(relation, set()).add(str(alert.policy))
    taken, quiet = TABLES[: len(TAKEN)], TABLES[len(TAKEN) :]
    missed = {
        way[:200]
        for name, way in zip(taken, TAKEN, strict=True)
        if "most_of_table" not in raised.get(f"public.{name}", set())
    }
    assert missed == set()
    wrong = {
        way: raised[f"public.{name}"] for name, way in zip(quiet, QUIET, strict=True) if f"public.{name}" in raised
    }
    assert wrong == {}
    stray = {relation for relation in raised if relation.removeprefix("public.") not in TABLES}
    assert stray == {f"public.{name}_head" for name in taken} & stray
