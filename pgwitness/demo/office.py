"""Who decides in the demo's shop, and with what: keys of their own, and `pgwitness approvals` on their own machine.

The gateway signs requests with a key of its own. Maria approves what agents ask for and reviews alerts; her key is in a
folder of hers, where in earnest it would be on her machine.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from detectors.alerts.verdicts import private_pem, public_text
from pgwitness.demo.daemons import run
from pgwitness.demo.shop import MARIA

GATEWAY_KEY = "gateway-approvals.key"
APPROVER = MARIA
APPROVER_KEY = f"people/{MARIA.name}/{MARIA.name}.key"
GROUP = "sales"
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


def approve(config: Path, request: str, reason: str) -> None:
    """Approve a request by `pgwitness approvals approve`, with the approver's key. Raise `NotInOrder` on failure."""
    run(config, "approvals", "approve", request, "--reason", reason, "--key", str(config.parent / APPROVER_KEY))
