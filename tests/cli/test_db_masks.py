"""`pgwitness db` on masks, as an administrator runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgwitness.cli.program import main
from pgwitness.core.config import Config
from pgwitness.core.privacy import load_key, tokenizer
from pgwitness.demo.servers import Postgres
from tests.collectors.wal_source import name_of

MASKS = """
[masks.support]
columns = [{ column = "*.id", as = "clear" }, { column = "*.email", as = "token" }]
"""


@pytest.fixture
def config(database18: str, tmp_path: Path, config_factory: Callable[..., Config]) -> Path:
    """A database with a customer, and a configuration with an audience."""
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("CREATE TABLE customers (id int, email text); INSERT INTO customers VALUES (1, 'ann@x.example')")
    config_factory(tmp_path, "127.0.0.1:1", database18, [name_of(database18)], extra=MASKS)
    return tmp_path / "pgwitness.toml"


def run(config: Path, *arguments: str) -> Result:
    """Run a command of `pgwitness db`."""
    return CliRunner().invoke(main, ["db", *arguments, "--config", str(config)])


def states(config: Path) -> dict[str, str]:
    """Say how the audiences stand, by `db status`."""
    rows = json.loads(run(config, "status", "--json").stdout)
    return {row["table"]: row["state"] for row in rows if "masks" in row["table"]}


def test_a_printed_migration_lacks_only_the_key(postgres18: Postgres, database18: str, config: Path) -> None:
    """The file makes everything and holds no key; `install` puts it in place, and then tokens are the lake's."""
    key = load_key(config.with_name("privacy.key"))
    printed = run(config, "install", "--masks", "--print")
    assert printed.exit_code == 0, printed.output
    assert key.hex() not in printed.output
    assert states(config) == {"(masks support)": "missing"}
    file = config.with_name("masks.sql")
    file.write_text(printed.output, encoding="utf-8")
    psql = [str(postgres18.psql_bin / "psql"), database18, "-qX", "--set", "ON_ERROR_STOP=1", "--file", str(file)]
    subprocess.run(psql, check=True, timeout=60)
    with psycopg.connect(database18, user="support", autocommit=True) as reader:
        assert reader.execute("SELECT * FROM customers").fetchall() == [(1, None)]
        assert states(config) == {"(masks support)": "differs"}
        installed = run(config, "install", "--masks")
        assert installed.exit_code == 0, installed.output
        token = tokenizer(key)(b"ann@x.example").decode()
        assert reader.execute("SELECT * FROM customers").fetchall() == [(1, token)]
    assert states(config) == {"(masks support)": "ok"}
    assert run(config, "masks", "suspend").exit_code == 0
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("CREATE TABLE behind (id int)")  # nothing comes back by itself
    assert states(config) == {"(masks support)": "differs"}
    assert run(config, "uninstall", "--masks").exit_code == 0
    assert states(config) == {"(masks support)": "missing"}


def test_the_beacon_leaves_the_key_alone(database18: str, config: Path) -> None:
    """The table of the key is neither covered nor published, whichever was installed first."""
    for arguments in (("install", "--masks"), ("install",), ("uninstall", "--masks"), ("install", "--masks")):
        assert run(config, *arguments).exit_code == 0
        with psycopg.connect(database18) as admin:
            found = admin.execute(
                "SELECT t.tgname::text FROM pg_trigger AS t WHERE t.tgrelid = to_regclass('pgwitness_masks.pads')"
                " UNION ALL SELECT pubname::text FROM pg_publication_tables WHERE schemaname = 'pgwitness_masks'"
                " AND pubname = 'pgwitness'"
            ).fetchall()
        assert found == [], arguments


def test_without_an_audience_there_is_nothing_to_install(config: Path) -> None:
    """A configuration without `[masks]` is told so."""
    config.write_text(config.read_text(encoding="utf-8").replace(MASKS, ""), encoding="utf-8")
    done = run(config, "install", "--masks")
    assert done.exit_code == 2
    assert "[masks.NAME]" in done.output


def test_the_doctor_tells_of_a_way_round_the_views(database18: str, config: Path) -> None:
    """What an audience reads beside its views is an error with the statement that closes it."""
    from pgwitness.cli.doctor.databases import masks
    from pgwitness.core.config import load

    assert run(config, "install", "--masks").exit_code == 0
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("GRANT SELECT ON customers TO PUBLIC")
    found: list[dict[str, object]] = []
    masks(load(config), found)
    states = {line["what"]: (line["state"], line["fix"]) for line in found}
    assert states["masks support"] == ("ok", "")
    assert states["public.customers for support"] == ("error", "REVOKE SELECT ON public.customers FROM PUBLIC")
