"""Scenes of control: what waits for a person's word, tools for an agent, and the guard in the database.

Two of them are no misbehaviour: an agent asks first and does what was approved, another works by MCP within its limits.
They are played while everybody else still behaves.
"""

from __future__ import annotations

import re
import threading
import time

import psycopg

from pgwitness.core.errors import NotInOrder
from pgwitness.demo import office, tools
from pgwitness.demo.clients import Psycopg
from pgwitness.demo.shop import CITIES, ITEMS_PER_CART, PRICING_AGENT, STUDY_AGENT
from pgwitness.demo.stage import Refusal, Stage

OLD_PRICES = "DELETE FROM public.old_prices WHERE ended < '2024-02-15' AND product_id <= 40"
OLD_CARTS = "DELETE FROM public.carts WHERE left_on < '2025-05-01'"
WAITING = "DELETE FROM public.old_prices WHERE ended < '2024-02-15' AND product_id BETWEEN 41 AND 80"
"""What waits for approval when the demo is kept."""
SLICE = "DELETE FROM public.promotions WHERE id IN (SELECT id FROM public.promotions ORDER BY id LIMIT 45)"
EVERYTHING = "DELETE FROM public.promotions WHERE 1 = 1"
WHOM = f"SELECT id, name, email, city FROM public.customers WHERE city = '{CITIES[0]}' ORDER BY id LIMIT 3"
ALL = "SELECT id, name, email, city FROM public.customers"
TOWNS = "SELECT city, count(*) FROM public.customers WHERE city <> '' GROUP BY city ORDER BY city"
APPROVED_S = 20.0
_REQUEST = re.compile(r"`pgwitness approvals approve (\w+)`")


def ask_first(stage: Stage) -> None:
    """The pricing agent tidies up old prices: that waits for Maria, who approves it in a terminal of hers."""
    stage.ledger.add(PRICING_AGENT.name, _approved(stage, OLD_PRICES, "agreed with finance"))


def do_more(stage: Stage) -> None:
    """Old carts go with Maria's word; a foreign key takes their items along, of which the request said nothing."""
    rows = _approved(stage, OLD_CARTS, "nobody comes back for these")
    stage.ledger.add(PRICING_AGENT.name, rows * (1 + ITEMS_PER_CART))


def ask(stage: Stage, statement: str) -> None:
    """Have the pricing agent ask for what has to be approved; it is told so, and nothing runs."""
    client = Psycopg(stage.doors.through(PRICING_AGENT))
    stage.refuse(client, PRICING_AGENT, statement)
    client.close()


def _approved(stage: Stage, statement: str, reason: str) -> int:
    """Ask, hand on to the approver what one was told, and come again with the same; gives the deleted rows."""
    client = Psycopg(stage.doors.through(PRICING_AGENT))
    stage.refuse(client, PRICING_AGENT, statement)
    told = _REQUEST.search(stage.refusals[-1].hint)
    if told is None:
        raise NotInOrder(f"{PRICING_AGENT.name} was not told how this is approved: {stage.refusals[-1].hint}")
    office.approve(stage.config, told[1], reason)
    deadline, pause = time.monotonic() + APPROVED_S, threading.Event()
    while True:
        try:
            rows = client.alone(statement)
            break
        except psycopg.errors.InsufficientPrivilege as error:
            if time.monotonic() > deadline:
                raise NotInOrder(f"what was approved is refused: {error}") from error
            pause.wait(0.2)
    client.close()
    return rows


def use_tools(stage: Stage) -> None:
    """The study agent works for Nora by MCP: it sees tokens, asks what it may, and is told what to do instead."""
    tools.log_in(stage.tools, stage.doors)
    told = tools.converse(stage.tools, WHOM, ALL, TOWNS)
    stage.told.append(told)
    stage.ledger.saw(cell for row in told.rows for cell in row[1:3])
    said = dict(line.split(": ", 1) for line in told.refusal.splitlines() if ": " in line)
    message = told.refusal.splitlines()[0].rpartition("ERROR: ")[2]
    stage.refusals.append(Refusal(STUDY_AGENT, ALL, message, said.get("DETAIL", ""), said.get("HINT", ""), "by MCP"))


def go_around(stage: Stage) -> None:
    """The pricing agent goes around the gateway with the same DELETE, and meets the guard in the database."""
    client = Psycopg(stage.doors.around(PRICING_AGENT))
    stage.refuse(client, PRICING_AGENT, EVERYTHING, "past the gateway")
    client.close()


def delete_in_slices(stage: Stage) -> None:
    """Then it deletes all the same, in slices below the limit: no single statement is too much."""
    client = Psycopg(stage.doors.around(PRICING_AGENT))
    while rows := client.run(SLICE):
        stage.ledger.add(PRICING_AGENT.name, rows)
    client.close()
