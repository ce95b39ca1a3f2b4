"""The worker, with its lake in a bucket, to the answer of `pgwitness sql`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from pgwitness.cli import main
from pgwitness.core.config import S3, load
from sinks.lake.opening import lake_store, open_lake
from tests.servers.s3 import S3Server
from tests.sinks.material import landed
from tests.streams.conftest import Installation, eventually
from tests.streams.test_worker import changes


def test_a_worker_lands_in_a_bucket_and_sql_answers(
    installation: Installation, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers one after the other; the second goes on behind the first."""
    config = installation.config
    config = replace(config, lake=replace(config.lake, path=s3.bucket(), s3=S3(endpoint=s3.endpoint)))
    installation.config = config

    def rows() -> int:
        return sum(row["kind"] == "change" for row in landed(lake_store(config)))

    installation.send(*changes(10, 5))
    with installation.worker(open_lake(config)):
        eventually(lambda: rows() >= 10, "the first rows are in the bucket")
    installation.send(*changes(12, 6))
    with installation.worker(open_lake(config)):
        eventually(lambda: rows() >= 16, "the others are in the bucket")

    monkeypatch.setenv("PGWITNESS_LAKE__PATH", str(config.lake.path))
    monkeypatch.setenv("PGWITNESS_LAKE__S3__ENDPOINT", s3.endpoint)
    file = tmp_path / "pgwitness.toml"
    assert load(file).lake.path == config.lake.path
    question = "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM changes"
    answer = CliRunner().invoke(main, ["sql", question, "--json", "--config", str(file)])
    assert json.loads(answer.stdout) == [{"n": 16, "ids": 16}]
    assert not (tmp_path / "lake").exists()
