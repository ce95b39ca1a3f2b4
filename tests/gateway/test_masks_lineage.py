"""A sample of `tests.gateway.lineage`: no mark comes back through the gateway, what is clear is answered as ever."""

from __future__ import annotations

from pathlib import Path

from tests.collectors.masking import lineage
from tests.gateway.lineage import Named, gateway


def test_no_mark_comes_back_through_the_gateway(tmp_path: Path, database18: str) -> None:
    """With names rewritten, and without: then names with a schema are errors of the server."""
    lineage.prepare(database18)
    for rewrite, count in ((True, 240), (False, 80)):
        folder = tmp_path / str(rewrite)
        folder.mkdir()
        with gateway(folder, database18, rewrite=rewrite) as through:
            found = lineage.run(database18, count, 5, through=through, queries=Named(5))
        assert found.leaked == []
        if rewrite:
            assert found.differing == []
            assert len(found.explained) <= 0.1 * found.clear, "of a sample; the long run holds it to a twentieth"
            assert found.outcomes["ok"] > 100
        else:
            assert found.outcomes["42501"] > 30
