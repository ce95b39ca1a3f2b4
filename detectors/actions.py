"""The unit of judgement: an action is what one person would call one thing done.

A transaction becomes one action per relation and operation, with its rows counted over all parts of a long one;
every other event is one action. Policies see an action through
`detectors.vocabulary.SCHEMA`; a value that is not known is an empty string, never null, so that an expression need not
ask first. Everything here is a pure function except `Parts`, which counts what has come of long transactions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from pgwitness.core.events import OPERATIONS, Event
from pgwitness.core.sql.statements import StatementFacts

PARTS_MAX = 256
"""Long transactions whose parts are counted at a time; they come one after the other per database."""
COUNTS_MAX = 10_000
"""Pairs of relation and operation that are counted of one transaction; what is beyond is counted as the last."""
OPEN_COUNTS_MAX = 40_000
"""Such pairs of all transactions whose last part has not come; the oldest transactions are forgotten first."""
NAME_MAX = 300
"""Characters of a relation's name: more than two names that PostgreSQL gives, quoted."""
HOUR_US = 3_600_000_000
BEYOND = "(further relations)"


FactsOf = Callable[[str], StatementFacts]


class Action(Struct, kw_only=True, omit_defaults=True):
    """One action, as policies and models see it. `SCHEMA` gives each field its name in expressions and its meaning."""

    kind: str
    operation: str = ""
    relations: list[str] = []
    columns: list[str] = []
    read_columns: list[str] = []
    """Those of `columns` that are more than filled; no name of the language."""
    rows: int = 0
    rows_known: bool = True
    calls: int = 0
    rows_per_call: int = 0
    principal: str = ""
    principal_kind: str = "unknown"
    on_behalf_of: str = ""
    peer_group: str = ""
    binding: str = "none"
    certainty: str = "none"
    assurance: str = "none"
    role: str = ""
    effective_role: str = ""
    application: str = ""
    client_addr: str = ""
    auth_method: str = ""
    cluster: str = ""
    instance: str = ""
    database: str = ""
    labels: Mapping[str, str] = {}
    statement: str = ""
    where: str = ""
    operations: list[str] = []
    functions: list[str] = []
    settings: list[str] = []
    objects: list[str] = []
    defines: list[str] = []
    whole: list[str] = []
    written: list[str] = []
    returning: bool = False
    sensitive: list[str] = []
    reads: list[str] = []
    read_before: list[str] = []
    intent: str = ""
    fingerprint: str = ""
    utility: bool = False
    outcome: str = "unknown"
    asked: bool = False
    effect: str = ""
    sqlstate: str = ""
    share: float = 0.0
    share_known: bool = False
    share_rows: int = 0
    share_of: int = 0
    share_window: str = ""
    share_replaced: bool = False
    share_usual: bool = False
    share_counted_at_us: int = 0
    detail: Mapping[str, object] = {}
    finding: str = ""
    seen_as: str = ""
    object_type: str = ""
    object_name: str = ""
    change: str = ""
    before: Mapping[str, object] = {}
    after: Mapping[str, object] = {}
    gained: list[str] = []
    lost: list[str] = []
    hour: int = 0
    weekday: int = 0
    clock: Mapping[str, object] = {}
    during: Mapping[str, object] = {}
    """Of these two only what a test gives; the rest is computed when it is asked for (`detectors.policy.calendars`)."""
    claim_verified: bool = False
    claim_age: int = -1
    claim_left: int = -1
    claim_fields: Mapping[str, object] = {}
    new_client_addr: bool = False
    new_application: bool = False
    new_relation: bool = False
    anomaly: float = 0.0
    quiet_days: int = 0
    refused_before: int = 0
    event_id: str = ""
    occurred_at_us: int = 0
    captured_at_us: int = 0
    session_id: str = ""
    pid: int = 0
    client_port: int = 0


UNDONE = frozenset({"failure", "denied", "rolled_back"})
"""Outcomes of which it is known that the action was not done."""


class Parts:
    """Counts the rows of long transactions over their parts; at most `PARTS_MAX` transactions at a time."""

    def __init__(self) -> None:
        self._open: dict[str, dict[tuple[str, str], int]] = {}
        self._pairs = 0

    def __len__(self) -> int:
        """Return the number of pairs in memory."""
        return self._pairs

    def counts(self, event: Event) -> dict[tuple[str, str], int] | None:
        """Return `{(relation, operation): rows}` of the whole transaction with its last part, None before that.

        Of a transaction whose earlier parts were forgotten the parts that are left are counted.
        """
        earlier = self._open.pop(event.event_id, None) if self._open else None
        self._pairs -= len(earlier or ())
        counts = count(event, earlier)
        if event.last:
            return counts
        self._open[event.event_id] = counts
        self._pairs += len(counts)
        while len(self._open) > PARTS_MAX or self._pairs > OPEN_COUNTS_MAX:
            self._pairs -= len(self._open.pop(next(iter(self._open))))
        return None

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        return [[key, [[*pair, rows] for pair, rows in counts.items()]] for key, counts in self._open.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._open = {key: {(r, o): int(n) for r, o, n in counts} for key, counts in state}
        self._pairs = sum(map(len, self._open.values()))


def count(event: Event, earlier: dict[tuple[str, str], int] | None = None) -> dict[tuple[str, str], int]:
    """Count the rows of one part of a transaction by relation and operation, on top of its earlier parts."""
    totals = earlier if earlier is not None else {}
    table = event.relation_table
    for item in event.counts:
        name = table[item.relation].name if 0 <= item.relation < len(table) else "?"
        pair = (name if len(name) <= NAME_MAX else name[:NAME_MAX], OPERATIONS.get(item.operation, item.operation))
        if len(totals) >= COUNTS_MAX and pair not in totals:
            pair = (BEYOND, pair[1])
        totals[pair] = totals.get(pair, 0) + item.rows
    return totals


def of_change(event: Event, relation: str, operation: str, rows: int, labels: Mapping[str, str]) -> Action:
    """Make the action of one operation of a transaction on one relation."""
    action = _common(event, labels)
    action.relations = [relation]
    action.operation = operation
    action.rows = action.rows_per_call = rows
    action.calls = 1
    if event.detail:
        _share(action, event.detail.get("shares"))
    return action


def _share(action: Action, shares: object) -> None:
    """Take what the fold says of how much of the action's relation it took."""
    for item in shares if isinstance(shares, list) else ():
        if isinstance(item, dict) and (item.get("relation"), item.get("operation")) == (
            action.relations[0],
            action.operation,
        ):
            rows, of, part = item.get("rows"), item.get("of"), item.get("part")
            counted = item.get("counted_at_us")
            if isinstance(rows, int) and isinstance(of, int) and isinstance(part, int | float):
                action.share_known = True
                action.share, action.share_rows, action.share_of = float(part), rows, of
                action.share_window = _text(item.get("window"))
                action.share_replaced = item.get("replaced") is True
                action.share_usual = item.get("usual") is True
                action.share_counted_at_us = counted if isinstance(counted, int) else 0


def of_event(event: Event, labels: Mapping[str, str], facts_of: FactsOf | None = None) -> Action:
    """Make the action of an event that is no change.

    `facts_of` reads a statement where the event does not say what a parser found.
    """
    action = _common(event, labels)
    action.relations = event.relations
    action.columns = event.columns
    action.operation = event.operation or ""
    action.rows = event.row_count or 0
    action.rows_known = _counted(event)
    action.calls = event.calls or 0
    action.rows_per_call = action.rows // action.calls if action.calls > 0 else action.rows
    if event.statement:
        _statement(action, event, facts_of)
    if event.kind == "posture":
        _posture(action, event)
    elif event.kind == "session":
        refused = event.detail.get("refused_before")
        action.refused_before = refused if isinstance(refused, int) else 0
    return action


def _counted(event: Event) -> bool:
    """Return whether the rows of a statement were counted.

    The statistics of PostgreSQL 15 count 0 for what a portal gave out piece by piece; their 0 says nothing.
    """
    if event.kind not in ("statement", "query_stats"):
        return True
    return event.row_count is not None and (event.kind == "statement" or event.row_count > 0)


def _common(event: Event, labels: Mapping[str, str]) -> Action:
    detail = event.detail
    hours = event.occurred_at_us // HOUR_US
    action = Action(
        kind=event.kind,
        principal=event.principal or "",
        principal_kind=event.principal_kind,
        on_behalf_of=event.on_behalf_of or "",
        peer_group=event.peer_group or "",
        binding=event.binding,
        certainty=event.certainty,
        assurance=event.assurance,
        role=event.role or "",
        effective_role=event.effective_role or "",
        application=event.application or "",
        client_addr=event.client_addr or "",
        auth_method=event.auth_method or "",
        cluster=event.cluster,
        instance=event.instance or "",
        database=event.database or "",
        labels=labels,
        statement=event.statement or "",
        fingerprint=event.fingerprint or "",
        outcome=event.outcome,
        effect=event.effect or "",
        sqlstate=event.sqlstate or "",
        detail=detail,
        finding=_text(detail.get("finding")),
        seen_as=_text(detail.get("seen_as")),
        hour=hours % 24,
        weekday=(hours // 24 + 3) % 7,
        event_id=event.event_id,
        occurred_at_us=event.occurred_at_us,
        captured_at_us=event.captured_at_us,
        session_id=event.session_id or "",
        pid=event.pid or 0,
        client_port=event.client_port or 0,
    )
    if "intent" in detail:
        action.intent = _text(detail["intent"])
    if "agent" in detail:
        put_claim(action, detail["agent"])
    return action


def put_claim(action: Action, agent: object) -> None:
    """Take what a verified token says; what a comment says of an agent is none."""
    if not isinstance(agent, dict) or agent.get("said_by") != "claim":
        return
    fields = agent.get("fields")
    action.claim_verified = True
    action.claim_age = _seconds(action.occurred_at_us, agent.get("iat"), 1)
    action.claim_left = _seconds(action.occurred_at_us, agent.get("exp"), -1)
    action.claim_fields = fields if isinstance(fields, dict) else {}


def _seconds(at_us: int, said: object, sign: int) -> int:
    """Return the whole seconds since or until a time of a token, which may be a little ahead of the database's
    clock."""
    if not isinstance(said, int | float) or isinstance(said, bool) or not math.isfinite(said):
        return -1
    return max(0, sign * (at_us // 1_000_000 - int(said)))


def _statement(action: Action, event: Event, facts_of: FactsOf | None) -> None:
    detail = event.detail
    action.where = _text(detail.get("where"))
    action.utility = detail.get("utility") is True
    action.operations = _texts(detail.get("operations"))
    action.functions = _texts(detail.get("functions"))
    action.settings = _texts(detail.get("settings"))
    action.objects = _texts(detail.get("names"))
    action.defines = _texts(detail.get("defines"))
    action.whole = _texts(detail.get("whole"))
    action.written = _texts(detail.get("written"))
    action.returning = detail.get("returning") is True
    assigned = _texts(detail.get("assigned"))
    if facts_of is not None and (not action.where or not action.operations or "functions" not in detail):
        facts = facts_of(action.statement)
        action.where = action.where or facts.where
        action.operations = action.operations or list(facts.operations)
        action.relations = action.relations or list(facts.relations)
        action.columns = action.columns or list(facts.columns)
        action.fingerprint = action.fingerprint or facts.fingerprint or ""
        action.functions = action.functions or list(facts.functions)
        action.settings = action.settings or list(facts.settings)
        action.objects = action.objects or list(facts.objects)
        action.defines = action.defines or list(facts.defines)
        action.utility = action.utility or facts.utility
        action.whole = action.whole or list(facts.whole)
        action.written = action.written or list(facts.written)
        action.returning = action.returning or facts.returning
        assigned = assigned or list(facts.assigned)
    action.read_columns = [name for name in action.columns if name not in assigned] if assigned else action.columns
    if not action.operation and action.operations:
        action.operation = action.operations[0]


def put_facts(action: Action, known: StatementFacts) -> None:
    """Put what the parser says of a statement into its action, as its event would."""
    action.operation = known.operations[0] if known.operations else ""
    action.operations = list(known.operations)
    action.relations = list(known.relations)
    action.columns = list(known.columns)
    action.statement = known.statement or ""
    action.fingerprint = known.fingerprint or ""
    action.where = known.where
    action.utility = known.utility
    action.functions = list(known.functions)
    action.settings = list(known.settings)
    action.objects = list(known.objects)
    action.defines = list(known.defines)
    action.whole = list(known.whole)
    action.returning = known.returning
    action.read_columns = [name for name in known.columns if name not in known.assigned]


def _posture(action: Action, event: Event) -> None:
    detail = event.detail
    action.object_type = _text(detail.get("object_type"))
    action.object_name = _text(detail.get("name"))
    action.change = _text(detail.get("change")) or action.operation
    before, after = detail.get("before"), detail.get("after")
    action.before = before if isinstance(before, dict) else {}
    action.after = after if isinstance(after, dict) else {}
    action.gained = sorted(_plain(k) for k, v in action.after.items() if v is True and action.before.get(k) is not True)
    action.lost = sorted(_plain(k) for k, v in action.before.items() if v is True and action.after.get(k) is not True)


def _plain(attribute: str) -> str:
    """`rolsuper` of pg_roles is `super` in the catalogue's words; the prefix says nothing."""
    return attribute.removeprefix("rol")


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
