"""The twenty questions of docs/how-to/answer-an-auditor.md, word by word, answered as the office's ledger has it."""

from __future__ import annotations

import getpass
import re
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.contract.system import System

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "answer-an-auditor.md"
QUESTIONS = {
    int(number): text
    for number, text in re.findall(
        r"^### (\d+)\. .*?```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
}
LOCAL = "127.0.0.1"
ORDERS, CUSTOMERS, CARDS = "public.orders", "public.customers", "public.cards"
MISBEHAVIOURS = {
    ("sensitive_read", "jonas"), ("privilege_escalation", "lena"), ("evidence_reset", "lena"),
    ("delete_without_where", "maria"), ("shadow_write", "nobody named"), ("beacon_disabled", "nobody named"),
    ("drop_table", "nobody named"), ("evidence_gap", "nobody named"), ("superuser", "nobody named"),
    ("capture_paused", "nobody named"),
}  # fmt: skip
"""What the office did that it should not, and by whom as far as a rule of the identities names them."""

LEDGER: dict[int, list[tuple[Any, ...]]] = {
    1: [
        ("delete", "success", "shop-api", None, 1, LOCAL),
        ("read", "success", "maria", None, None, LOCAL),
        ("read", "denied", "jonas", None, None, LOCAL),
        ("update", "success", None, None, 2, None),
    ],
    2: [
        ("lena", "create_role", [], "success", "CREATE ROLE metrics LOGIN"),
        ("lena", "alter_role", [], "success", "ALTER ROLE metrics SUPERUSER"),
        ("lena", "grant", [CARDS], "success", "GRANT SELECT ON cards TO backoffice"),
        ("lena", "set", [], "success", "SET log_statement = $1"),
        ("lena", "set", [], "success", "SET pgaudit.log = $1"),
        ("lena", "set", [], "success", "SET row_security = $1"),
        ("lena", "select", [], "success", "SELECT pg_stat_statements_reset()"),
    ],
    3: [
        ("query", getpass.getuser(), socket.gethostname(), "query: SELECT $1"),
        ("alerts", getpass.getuser(), socket.gethostname(), "alerts"),
        ("replay", getpass.getuser(), socket.gethostname(), "replay"),
    ],
    4: [("login", "intruder", 3), (f"read {CARDS}", "jonas", 1)],
    5: [
        ("log", "lena", "CREATE ROLE metrics LOGIN"),
        ("log", "lena", "ALTER ROLE metrics SUPERUSER"),
        ("catalogue", None, "added metrics"),
    ],
    7: [
        ("lena", "GRANT", [CARDS], "GRANT SELECT ON cards TO backoffice"),
        ("shop_owner", "ALTER TABLE", [ORDERS], "ALTER TABLE orders ADD COLUMN note text"),
        ("shop_owner", "DROP TABLE", ["public.coupons"], "DROP TABLE coupons"),
        ("shop_owner", "ALTER TABLE", [CARDS], "ALTER TABLE cards DISABLE TRIGGER USER"),
        ("shop_owner", "ALTER TABLE", [CARDS], "ALTER TABLE cards ENABLE ALWAYS TRIGGER pgwitness_beacon"),
    ],
    8: [(26, 2, 1, 0, 0, 0, 1)],
    9: [
        ("jonas", "human", "asserted", 1, 1),
        ("lena", "human", "role_only", 1, 1),
        ("maria", "human", "role_only", 2, 1),
        ("shop-api", "service", "asserted", 1, 1),
        ("support-agent", "agent", "asserted", 1, 1),
        ("unknown: postgres", "unknown", "none", 2, 1),
        ("unknown: shop_owner", "unknown", "none", 1, 1),
        ("unknown: temp", "unknown", "none", 1, 1),
    ],
    10: [("lena", CARDS, ["backoffice=r/shop_owner"])],
    12: [("shadow_write", [CARDS], 2, None)],
    13: [("shop_app", ["shop-api", "support-agent"])],
    14: [
        ("support-agent", "maria", "read", CUSTOMERS, 1, None),
        ("support-agent", "maria", "update", CUSTOMERS, 1, 1),
        ("support-agent", "maria", "update", ORDERS, 1, 1),
    ],
    15: [("shop", 21, 19, 2)],
    16: [("shop", "stats_begun"), ("shop", "stats_reset")],
    17: [
        ("may_have_read", "select", "maria", None),
        ("may_have_read", "select", "support-agent", "maria"),
        ("changed", "update", "support-agent", "maria"),
        ("may_have_read", "select", "jonas", None),
    ],
    18: [("jonas", None, 1), ("maria", None, 1), ("support-agent", "maria", 1)],
    19: [(CARDS, "read", "denied", 1, None), (CUSTOMERS, "read", "success", 1, None)],
}
"""By question: the answer without times, in its order."""


def ask(audited: System, number: int) -> list[tuple[Any, ...]]:
    """Ask as the page does; what is a time is left out, and must be there unless it is open."""
    with connect(audited.config.lake.path) as connection:
        rows = list(query.ask(connection, QUESTIONS[number]).rows)
    return [tuple(value for value in row if not isinstance(value, datetime)) for row in rows]


def test_there_are_twenty_questions() -> None:
    """Each has its number and one query."""
    assert sorted(QUESTIONS) == list(range(1, 21))


@pytest.mark.parametrize("number", sorted(LEDGER))
def test_an_auditor_gets_what_the_ledger_says(audited: System, number: int) -> None:
    """No row more, none less."""
    answer = ask(audited, number)
    if number == 2:  # `pgwitness db` asks one thing before it shows its code
        answer = [row for row in answer if row[0] != "postgres"]
        # The log knows thousandths of a second: what stands within one has no order.
        assert sorted(answer, key=str) == sorted(LEDGER[number], key=str)
        return
    if number == 3:  # of what was no query the subject stands behind
        answer = [(*row[:3], row[3].partition(": {")[0]) for row in answer]
    if number == 9:  # how often the collectors come is their own business; from one address, though
        assert [row[:3] + row[4:5] for row in answer if row[0] == "unknown: pgwitness"] == [
            ("unknown: pgwitness", "unknown", "none", 1)
        ]
        answer = [row for row in answer if row[0] != "unknown: pgwitness"]
    if number == 16:  # the time from which statistics begin is open
        answer = [row[:2] for row in answer]
    assert answer == LEDGER[number]


def test_what_became_of_auditing_is_told_in_order(audited: System) -> None:
    """Question 6: begun, switched off on one table, paused, resumed, ended; and statistics were wiped meanwhile."""
    told = [row[1] for row in ask(audited, 6)]
    wanted = [
        "collectors_started", "ALTER TABLE", "beacon_pause", "beacon_resume", "collectors_stopped",
    ]  # fmt: skip
    assert [word for word in told if word in wanted] == wanted
    assert set(told) - set(wanted) == {"slot_made", "stats_begun", "stats_reset"}


def test_every_misbehaviour_is_found_once(audited: System) -> None:
    """Question 11: what the office did that it should not, each as one finding."""
    found = [(row[1], row[3]) for row in ask(audited, 11)]
    assert sorted(found) == sorted(MISBEHAVIOURS)


def test_a_users_deeds_include_those_of_agents_for_them(audited: System) -> None:
    """Question 20: Maria's own, what was rolled back as such, and the agent's."""
    found = ask(audited, 20)
    assert ("maria", "statement", "update", [ORDERS], "rolled_back") in found
    changes = [row for row in found if row[1] == "change"]
    assert changes == [
        ("maria", "change", "update", [ORDERS], "success"),
        ("support-agent", "change", "update", [ORDERS], "success"),
        ("support-agent", "change", "update", [CUSTOMERS], "success"),
    ]
    reads = [(row[0], *row[3]) for row in found if row[2] == "select"]
    assert reads == [("maria", CUSTOMERS), ("maria", CARDS), ("support-agent", CUSTOMERS)]
