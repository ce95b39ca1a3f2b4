"""The tools by the SDK for TypeScript, on stdio and over HTTP: `make mcp-clients`, which installs it (npm)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp.conftest import BOTH, World, serving

SDK = Path(os.environ.get("MCP_CLIENTS", ".mcp-clients")).absolute()


@pytest.mark.parametrize("way", ["stdio", "http"])
def test_another_sdk(world: World, way: str) -> None:
    """It lists, asks, is refused, and reads a resource."""
    if way == "stdio":
        given = [sys.executable, str(world.folder / "pgwitness.toml")]
        done = _run([way, *given])
    else:
        with serving(world):
            done = _run([way, world.url, world.issuer.token(aud=BOTH)])
    assert {"query", "explain", "describe", "my_limits"} <= set(done["tools"])  # type: ignore[arg-type]
    assert done["rows"] == [[9, "ticket 9"]]
    assert done["refused"]
    assert "refused by policy no_delete" in str(done["why"])
    assert str(done["policies"]).startswith("no_delete (deny)")


def _run(arguments: list[str]) -> dict[str, object]:
    script = Path(__file__).parent / "client.mjs"
    done = subprocess.run(
        ["node", str(script), str(SDK), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found
