"""What the gateway decides by is read again when it changes, with what stands behind names in the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.judging import judge
from collectors.gateway.judging.judge import Judging
from collectors.gateway.judging.rules import WatchedRules
from collectors.gateway.session.actions import Reading
from collectors.gateway.wire.lexing import Settings
from pgwitness.cli.naming import namer_of
from pgwitness.core.config import Config
from pgwitness.core.privacy import tokenizer
from tests.gateway.test_evasions import OPENED
from tests.gateway.test_refusals import policy


def test_files_and_the_catalogue_are_followed(
    tmp_path: Path, database18: str, config_factory: Callable[..., Config]
) -> None:
    """A policy, a name and a view that are new hold from the next look on; what is not in order changes nothing."""
    name = str(conninfo_to_dict(database18)["dbname"])
    extra = '[gateway.databases."*"]\ncluster = "shop"\nupstream = "host=none"\n[labels]\nsecret = ["public.t.*"]\n'
    config = config_factory(tmp_path, "localhost:1", database18, [name], extra=extra)
    watched = WatchedRules(config, namer_of)
    rules = watched.load()
    before = len(rules.gatekeeper)
    assert before > 0
    assert rules.name(OPENED, "psql").kind == "unknown"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("CREATE TABLE t (id int)")
        admin.execute("CREATE VIEW v AS SELECT id FROM t")
    found = watched.poll()
    assert found is not None
    assert found.catalogues["shop", name].views["public.v"].columns == ("public.t.id",)
    (config.policies.path / "more.yaml").write_text("id: nonsense")
    config.identities.file.write_text("rules:\n- match: {role: ada}\n  principal: ada\n  kind: human\n")
    found = watched.poll() or watched.poll()
    assert found is not None
    assert (len(found.gatekeeper), found.name(OPENED, "psql").kind) == (before, "human")
    (config.policies.path / "more.yaml").write_text(policy())
    found = watched.poll() or watched.poll()
    assert found is not None
    assert len(found.gatekeeper) == before + 1
    assert watched.poll() is None


def test_what_is_asked_for_again_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other texts come, a statement that is asked for again and again is read once."""
    monkeypatch.setattr(judge, "KNOWN_MAX", 100)
    judging = Judging(tokenizer(b"k" * 32))
    texts: list[bytes] = []
    reading = judging.read

    def read(text: bytes, settings: Settings) -> Reading:
        texts.append(text)
        return reading(text, settings)

    monkeypatch.setattr(judging, "read", read)
    session = judging.session(OPENED)
    for number in range(500):
        session.decide(b"SELECT a%d FROM kept" % number, 1)
        session.decide(b"SELECT id FROM kept", 1)
    assert texts.count(b"SELECT id FROM kept") == 1
    session.decide(b"SELECT a1 FROM kept", 1)
    assert texts.count(b"SELECT a1 FROM kept") == 2
