"""Requests and decisions become evidence, each once, and `pgwitness approvals` makes them; on a real broker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from msgspec.structs import replace

from detectors.alerts.verdicts import private_key
from pgwitness.approvals import records
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.cli import main
from pgwitness.core import config as configuration
from tests.approvals.signing import MINUTE_US, STRANGER, decision, request
from tests.streams.conftest import Installation


def run(installation: Installation, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Run a command and give its rows."""
    path = installation.config.lake.path.parent / "pgwitness.toml"
    result = CliRunner().invoke(main, [*words, "--json", "--config", str(path)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else []  # type: ignore[no-any-return]


def believed(installation: Installation) -> dict[str, Path]:
    """Make keys of a gateway and two approvers, and list them."""
    folder = installation.config.lake.path.parent
    path = folder / "pgwitness.toml"
    files = {name: folder / f"{name}.key" for name in ("gateway", "ada", "bot")}
    keys = {name: run(installation, "alerts", "key", str(file))[0]["key"] for name, file in files.items()}
    path.write_text(
        path.read_text() + f'\n[approvals]\ngateways = ["{keys["gateway"]}"]\n'
        f'[approvers.ada]\nkey = "{keys["ada"]}"\ngroups = ["dba"]\n'
        f'[approvers.bot]\nkey = "{keys["bot"]}"\ngroups = ["dba"]\n'
    )
    found = configuration.load(path)
    installation.config = replace(installation.config, approvals=found.approvals, approvers=found.approvers)
    return files


def test_requests_and_decisions_are_evidence_once(installation: Installation) -> None:
    """Asked, forged, refused for oneself, approved from the shell: each in the lake once, with names, after a restart
    too."""
    files = believed(installation)
    now_us = time.time_ns() // 1000
    asked = request("abcd1234", at_us=now_us, expires_us=now_us + 15 * MINUTE_US)
    gateway = private_key(files["gateway"].read_bytes())
    topic = ApprovalsTopic(installation.config)
    topic.append("abcd1234", records.sign(asked, gateway))
    topic.append("abcd1234", records.sign(decision("ada", of=asked, at_us=now_us), STRANGER))
    with installation.worker():
        installation.landed(2, "kind = 'decision'")
        (row,) = run(installation, "approvals", "list")
        assert (row["id"], row["state"], row["who"], row["for"], row["rows"]) == (
            "abcd1234", "open", "bot", "maria", 10,
        )  # fmt: skip
        words = ("--reason", "seen", "--key")
        run(installation, "approvals", "approve", "abcd", *words, str(files["bot"]), code=1)
        (row,) = run(installation, "approvals", "approve", "abcd", *words, str(files["ada"]))
        assert (row["state"], row["by"]) == ("approved", "ada")
        run(installation, "approvals", "approve", "abcd", *words, str(files["ada"]), code=1)
        assert run(installation, "approvals", "list") == []
        installation.landed(3, "kind = 'decision'")
    topic.append("abcd1234", records.sign(records.Claim(request="abcd1234", at_us=now_us, nonce="n"), gateway))
    with installation.worker():
        installation.landed(4, "kind = 'decision'")
    (row,) = run(installation, "approvals", "show", "abcd1234")
    assert (row["state"], row["decisions"][0]["by"], row["record"]["statements"]) == ("used", "ada", 0)
    topic.close()
    query = "SELECT approval, principal, on_behalf_of, rows_approved, state, approved_by, reasons, drift FROM approvals"
    assert installation.ask(query) == [("abcd1234", "bot", "maria", 10, "used", ["ada"], ["seen"], None)]
    query = "SELECT operation, outcome, principal, assurance, detail ->> 'reason' FROM decisions ORDER BY occurred_at"
    assert installation.ask(query) == [
        ("approval_request", "success", "bot", "verified", None),
        ("approval_approve", "denied", None, "none", "wrong_signature"),
        ("approval_approve", "success", "ada", "verified", None),
        ("approval_claim", "success", "bot", "verified", None),
    ]
