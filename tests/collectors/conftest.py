"""Fixtures of the collectors' tests: a database whose changes are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest

from pgwitness.core.units import Size
from pgwitness.demo.servers import Broker
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import CLEAR, Factory, Source, name_of


@pytest.fixture
def extra() -> str:
    """Configuration that a test adds; masking is off unless it says so."""
    return CLEAR


@pytest.fixture
def cluster_extra() -> str:
    """Configuration that a test adds to its cluster."""
    return ""


@pytest.fixture
def memory_limit() -> int:
    """What may be kept in memory until a beacon comes."""
    return 16 * 1024**2


@pytest.fixture
def prepared(
    embedded_broker: Broker,
    config_factory: Factory,
    tmp_path: Path,
    extra: str,
    cluster_extra: str,
    memory_limit: int,
) -> Callable[[str], AbstractContextManager[Source]]:
    """Make a source of a database's DSN."""

    @contextmanager
    def prepare(dsn: str) -> Iterator[Source]:
        config = config_factory(
            tmp_path, embedded_broker.bootstrap, dsn, [name_of(dsn)], extra=extra, cluster_extra=cluster_extra
        )
        limited = msgspec.structs.replace(config.collectors, memory_limit=Size(memory_limit))
        with bench(msgspec.structs.replace(config, collectors=limited)) as made, Source(dsn, made) as source:
            yield source

    return prepare


@pytest.fixture
def source(database: str, prepared: Callable[[str], AbstractContextManager[Source]]) -> Iterator[Source]:
    """A fresh database on each PostgreSQL in turn."""
    with prepared(database) as made:
        yield made


@pytest.fixture
def source18(database18: str, prepared: Callable[[str], AbstractContextManager[Source]]) -> Iterator[Source]:
    """A fresh database on PostgreSQL 18."""
    with prepared(database18) as made:
        yield made
