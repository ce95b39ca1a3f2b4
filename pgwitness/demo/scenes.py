"""The misbehaviours that the demo stages: who does what, and which policy is to catch it.

Each scene logs in for itself, at the gateway or past it, and does one thing. A scene counts as caught when one of its
policies raised an alert about its principal, or, where no rule names one, about its role, or, where nobody can know who
it was, about the object. An alert that no scene explains is a false one. What the gateway is to refuse never happens: a
scene that is not refused cannot be played.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pgwitness.demo import control, rules
from pgwitness.demo.clients import Elsewhere, Psql, Psycopg
from pgwitness.demo.helpdesk import Helpdesk
from pgwitness.demo.servers import LOOPBACK
from pgwitness.demo.shop import (
    JONAS,
    LENA,
    MARIA,
    OWNER,
    PRICING_AGENT,
    SHIPPING,
    STUDY_AGENT,
    SUPPORT_AGENT,
    TRAP_TICKET,
    Principal,
)
from pgwitness.demo.stage import Stage
from pgwitness.demo.workload import at_psql

FAR_ADDRESS = "127.0.0.66"
"""An address that the shop's services never come from; Linux has all of 127.0.0.0/8."""


@dataclass(frozen=True)
class Scene:
    """One misbehaviour. `policies` are the ids that catch it, `objects` names that alert may be about instead.

    `refused` is the policy by which the gateway does not let it happen, empty for what happens. What is `early` is
    played while habits are still learned. A scene without policies is no misbehaviour, and raises nothing.
    """

    id: str
    title: str
    who: Principal
    play: Callable[[Stage], None]
    policies: tuple[str, ...]
    objects: tuple[str, ...] = field(default=())
    refused: str = ""
    early: bool = False

    def explains(self, alert: Mapping[str, Any]) -> bool:
        """Return whether an alert is about this scene."""
        facts = alert.get("unmapped", {})
        told = self.refused in alert.get("message", "")
        return facts.get("policy") in self.policies and told and self._about(facts, alert)

    def touches(self, alert: Mapping[str, Any]) -> bool:
        """Return whether an alert is about this scene's actor, whichever detector raised it, or about the scene."""
        facts = alert.get("unmapped", {})
        named = facts.get("principal") is not None or facts.get("role") is not None
        return self._about(facts, alert) if named else self.explains(alert)

    def _about(self, facts: Mapping[str, Any], alert: Mapping[str, Any]) -> bool:
        if facts.get("principal") is not None:
            return bool(facts["principal"] == self.who.name)
        if facts.get("role") is not None:
            return bool(facts["role"] == self.who.role)
        names = [resource.get("name", "") for resource in alert.get("resources", [])]
        return any(wanted in name for wanted in self.objects for name in names)


def drop_drafts(stage: Stage) -> None:
    """The pricing agent drops a table of its own, which the server would let it do."""
    client = Psycopg(stage.doors.through(PRICING_AGENT))
    stage.refuse(client, PRICING_AGENT, "DROP TABLE price_drafts")
    client.close()


def follow_a_ticket(stage: Stage) -> None:
    """The support agent reads a ticket that tells it to list all cards, and does as it is told."""
    client = Psycopg(stage.doors.through(SUPPORT_AGENT))
    client.one("SELECT body FROM tickets WHERE id = %(t)s", {"t": TRAP_TICKET})
    stage.refuse(client, SUPPORT_AGENT, "SELECT customer_id, number, expires FROM cards")
    client.close()


def delete_too_much(stage: Stage) -> None:
    """The pricing agent tidies up at the gateway: its WHERE is true for every row, and the limit undoes it."""
    client = Psycopg(stage.doors.through(PRICING_AGENT))
    stage.refuse(client, PRICING_AGENT, control.EVERYTHING)
    client.close()


def read_all_customers(stage: Stage) -> None:
    """Maria, who looks after one customer at a time, takes them all."""
    client = at_psql(stage.doors, stage.psql, MARIA)
    client.run("SELECT * FROM customers")
    client.close()


def come_from_elsewhere(stage: Stage) -> None:
    """Somebody uses the shipping service's role from an address it never comes from."""
    elsewhere = Elsewhere(LOOPBACK, stage.doors.port, FAR_ADDRESS)
    try:
        client = Psycopg(stage.doors.through(SHIPPING, elsewhere.port))
        for order in range(1, 4):
            change = ("UPDATE orders SET status = 'sent' WHERE id = %(o)s", {"o": order})
            stage.ledger.add(SHIPPING.name, client.run(change))
        client.close()
    finally:
        elsewhere.close()


def create_superuser(stage: Stage) -> None:
    """Lena makes a second superuser, with an innocent name, at the server itself."""
    client = Psql(stage.psql, stage.doors.around(LENA))
    client.run("CREATE ROLE metrics LOGIN SUPERUSER")
    client.close()


def drop_table(stage: Stage) -> None:
    """The owner's role drops a table of the shop."""
    client = Psql(stage.psql, stage.doors.around(OWNER))
    client.run("DROP TABLE coupons")
    client.close()


def forge_beacon(stage: Stage) -> None:
    """Jonas goes around the gateway with a beacon of his own making that names Lena, and refunds an order under it."""
    client = Psycopg(stage.doors.around(JONAS))
    session = json.dumps(["session/1", "1", "shop", 1, 1, LENA.role, None, None, None])
    claim = "\x1f".join(["1", LENA.role, "none", LENA.application, "", "0" * 64 + session])
    # Everything is right but the two codes, which only the database can make.
    values: dict[str, Any] = {"prefix": beacon_prefix(), "content": bytes(32) + claim.encode()}
    emit = "SELECT pg_logical_emit_message(true, %(prefix)s, %(content)s::bytea)"
    change = ("UPDATE orders SET status = 'refunded' WHERE id = %(o)s", {"o": 7})
    stage.ledger.add(JONAS.name, client.run((emit, values), change))
    client.close()


def forge_claim(stage: Stage) -> None:
    """The pricing agent brings a token that it signed itself, in which the support agent works for Lena."""
    client = Psycopg(stage.doors.through(PRICING_AGENT), lambda: Helpdesk().sign(LENA.name))
    change = ("UPDATE products SET price = price * 2 WHERE id = %(p)s", {"p": 13})
    stage.ledger.add(PRICING_AGENT.name, client.run(change))
    client.close()


def disable_beacon(stage: Stage) -> None:
    """The owner of the table switches its triggers off, writes, and switches them on again."""
    client = Psql(stage.psql, stage.doors.around(OWNER))
    client.run("ALTER TABLE payments DISABLE TRIGGER USER")
    stage.ledger.add(None, client.run("UPDATE payments SET amount = 0 WHERE id <= 5"))
    client.run("ALTER TABLE payments ENABLE ALWAYS TRIGGER pgwitness_beacon")
    client.close()


def beacon_prefix() -> str:
    """Return the prefix under which beacons travel."""
    from collectors.beacon.mac import PREFIX

    return PREFIX


def scenes() -> list[Scene]:
    """List the scenes that can be staged on this machine, in the order they are played."""
    played = [
        Scene(
            "agent_asks_first",
            "an AI agent asks before a bulk delete, and does what was approved",
            PRICING_AGENT,
            control.ask_first,
            (),
            early=True,
        ),
        Scene(
            "agent_does_more",
            "what another approval let it do took more along",
            PRICING_AGENT,
            control.do_more,
            ("approval_drift",),
            ("carts",),
            early=True,
        ),
        Scene(
            "agent_by_mcp",
            "an AI agent by MCP asks for all customers: refused",
            STUDY_AGENT,
            control.use_tools,
            ("refused_by_gateway",),
            refused=rules.WHOLE,
            early=True,
        ),
        Scene(
            "agent_drops_a_table",
            "an AI agent drops a table: refused",
            PRICING_AGENT,
            drop_drafts,
            ("refused_by_gateway",),
            refused=rules.DROP,
        ),
        Scene(
            "agent_follows_a_ticket",
            "an AI agent asks for cards, as a ticket told it to: refused",
            SUPPORT_AGENT,
            follow_a_ticket,
            ("refused_by_gateway",),
            refused=rules.SECRETS,
        ),
        Scene(
            "agent_deletes_too_much",
            "an AI agent deletes without a useful WHERE: undone",
            PRICING_AGENT,
            delete_too_much,
            ("refused_by_gateway",),
            refused=rules.FEW_ROWS,
        ),
        Scene(
            "agent_goes_around",
            "it goes around the gateway, and the guard in the database stops it",
            PRICING_AGENT,
            control.go_around,
            ("refused_by_guard",),
        ),
        Scene(
            "agent_deletes_in_slices",
            "it deletes all the same there, in slices below the limit",
            PRICING_AGENT,
            control.delete_in_slices,
            ("most_of_table",),
        ),
        Scene("reads_all_customers", "a person reads all customers at once", MARIA, read_all_customers, ("bulk_read",)),
        Scene(
            "service_from_new_address",
            "a service's role turns up from a new address",
            SHIPPING,
            come_from_elsewhere,
            ("new_address",),
        ),
        Scene(
            "superuser_created",
            "somebody creates a superuser",
            LENA,
            create_superuser,
            ("superuser", "privilege_escalation"),
            ("metrics",),
        ),
        Scene("table_dropped", "a table is dropped", OWNER, drop_table, ("drop_table",), ("coupons",)),
        Scene(
            "claim_forged", "an agent shows a token it signed itself", PRICING_AGENT, forge_claim, ("claim_refused",)
        ),
        Scene("beacon_forged", "somebody forges a beacon", JONAS, forge_beacon, ("beacon_forged",)),
        Scene(
            "beacon_disabled",
            "a table's owner disables the beacon and writes",
            OWNER,
            disable_beacon,
            ("shadow_write", "beacon_missing", "beacon_disabled"),
            ("payments",),
        ),
    ]
    return [scene for scene in played if scene.id != "service_from_new_address" or _can_come_from(FAR_ADDRESS)]


def _can_come_from(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def failed(error: Exception) -> str:
    """Say why a scene could not be played."""
    return f"{type(error).__name__}: {error}".strip() if isinstance(error, psycopg.Error) else str(error)
