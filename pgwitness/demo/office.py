"""Who decides in the demo's shop, and with what: keys of their own, and `pgwitness approvals` on their own machine.

The gateway signs requests with a key of its own. Maria approves what agents ask for and reviews alerts; her key is in a
folder of hers, where in earnest it would be on her machine.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detectors.alerts.verdicts import private_pem, public_text
from pgwitness.core.errors import NotInOrder
from pgwitness.demo.daemons import run
from pgwitness.demo.shop import MARIA

GATEWAY_KEY = "gateway-approvals.key"
APPROVER = MARIA
APPROVER_KEY = f"people/{MARIA.name}/{MARIA.name}.key"
GROUP = "sales"
WAIT_S = 20.0
SETTINGS = """\
[approvals]
key_file = "{gateway_key}"              # the gateway's own: it signs what it asks
gateways = ["{gateway}"]

[approvers.{name}]
key = "{key}"
groups = ["{group}"]

[reviewers.{name}]
key = "{key}"

"""


def furnish(place: Path, name: str = APPROVER.name, key: str = APPROVER_KEY, group: str = GROUP) -> str:
    """Make the gateway's key and the approver's; gives their part of the configuration."""
    gateway, approver = (_make(place / file) for file in (GATEWAY_KEY, key))
    return SETTINGS.format(gateway_key=GATEWAY_KEY, gateway=gateway, name=name, key=approver, group=group)


def _make(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(private_pem(key))
    return public_text(key.public_key())


def waiting(config: Path) -> list[dict[str, Any]]:
    """List what waits for a person's word, by `pgwitness approvals list`."""
    found: list[dict[str, Any]] = json.loads(run(config, "approvals", "list", "--json"))
    return found


def approve(config: Path, relation: str, reason: str) -> str:
    """Approve the request that is about a relation, by `pgwitness approvals approve`; gives its id.

    Raise `NotInOrder` where there is none.
    """
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not (found := [one for one in waiting(config) if relation in one["relations"]]):
        if time.monotonic() > deadline:
            raise NotInOrder(f"nobody has asked for approval of anything about {relation}")
        pause.wait(0.2)
    request = str(found[0]["id"])
    run(config, "approvals", "approve", request, "--reason", reason, "--key", str(config.parent / APPROVER_KEY))
    return request
