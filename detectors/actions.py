"""The unit of judgement: an action is what one person would call one deed.

A transaction becomes one action per relation and operation, with its rows counted over all parts of a long one;
every other event is one action. Policies see an action through `SCHEMA`, which is documented in
`docs/reference/policies.md`; a value that is not known is an empty string, never null, so that an expression need not
ask first. Everything here is a pure function except `Parts`, which counts what has come of long transactions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from pgwitness.core.events import OPERATIONS, Event, Kind
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
    """One deed, as policies and models see it. `SCHEMA` gives each field its name in expressions and its meaning."""

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
    returning: bool = False
    sensitive: list[str] = []
    fingerprint: str = ""
    utility: bool = False
    outcome: str = "unknown"
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


class Field(Struct, frozen=True):
    """One name that an expression may use: where it stands in `Action`, its type and what it means."""

    attribute: str
    type: str
    meaning: str


SCHEMA: dict[str, Field] = {
    "kind": Field("kind", "string", "`change` `query_stats` `session` `posture` `control` `gap` `ddl` `statement`"),
    "operation": Field(
        "operation",
        "string",
        "`insert` `update` `delete` `truncate`; of statements the first of `statement.operations`; of sessions "
        "`connect`, `found`, `disconnect`; of posture the change; of control and gap what happened",
    ),
    "relations": Field("relations", "list of string", "`schema.table` as SQL quotes it; of a partition its root"),
    "columns": Field("columns", "list of string", "columns a statement names, where known"),
    "sensitive": Field(
        "sensitive",
        "list of string",
        "those of `columns` that `privacy.sensitive` lists or a rule of `privacy.mask` masks",
    ),
    "rows": Field(
        "rows", "int", "rows this operation changed in this relation and transaction; of statements their rows"
    ),
    "rows_known": Field(
        "rows_known", "bool", "whether anything counted the rows of a statement; if not, `rows` is 0 and says nothing"
    ),
    "calls": Field("calls", "int", "how often a statement ran in the window of statistics"),
    "rows_per_call": Field("rows_per_call", "int", "rows divided by calls, rounded down; of changes the rows"),
    "principal.name": Field("principal", "string", "who, empty when nobody can be named"),
    "principal.kind": Field("principal_kind", "string", "`human` `agent` `service` `unknown`"),
    "principal.on_behalf_of": Field("on_behalf_of", "string", "the person for whom an agent or service acted"),
    "principal.peer_group": Field("peer_group", "string", "who does the same job"),
    "binding": Field("binding", "string", "how the event was tied to a session"),
    "certainty": Field("certainty", "string", "is this event that session's? `exact` `strong` `weak` `none`"),
    "assurance": Field(
        "assurance", "string", "`verified` `asserted` `role_only` `none`: is that session that principal's?"
    ),
    "role": Field("role", "string", "the role that logged in"),
    "effective_role": Field("effective_role", "string", "the role in force"),
    "application": Field("application", "string", "application_name, which is what the client says"),
    "client_addr": Field("client_addr", "string", "address of the client; empty for a local socket or when not known"),
    "auth_method": Field("auth_method", "string", "how the session authenticated"),
    "cluster": Field("cluster", "string", "the configured name of the cluster"),
    "instance": Field("instance", "string", "`host:port` of the server that saw it"),
    "database": Field("database", "string", "the database"),
    "labels": Field("labels", "map", "the cluster's labels; ask `has(labels.scope)` before `labels.scope`"),
    "statement.text": Field("statement", "string", "the statement without its literals"),
    "statement.where": Field("where", "string", "`none` `useless` `present` `n/a`; empty when there is no statement"),
    "statement.operations": Field("operations", "list of string", "every operation in it, in CTEs and DO blocks too"),
    "statement.functions": Field("functions", "list of string", "functions it calls by name"),
    "statement.settings": Field(
        "settings", "list of string", "settings it changes, `name=value`; `name=?` where the value is not told"
    ),
    "statement.objects": Field(
        "objects", "list of string", "what else it names: `extension dblink`, `language c`, `role ada`, `trigger t` …"
    ),
    "statement.defines": Field(
        "defines", "list of string", "operations in the body of a function that it makes; they have not run yet"
    ),
    "statement.whole": Field(
        "whole", "list of string", "relations of which it reads every row, as far as its text tells: no WHERE, no LIMIT"
    ),
    "statement.returning": Field(
        "returning", "bool", "whether a statement that writes gives the rows back (RETURNING)"
    ),
    "statement.fingerprint": Field("fingerprint", "string", "pglast's fingerprint"),
    "statement.utility": Field("utility", "bool", "whether it is a utility statement (DDL, COPY, SET and so on)"),
    "share.part": Field("share", "double", "of changes: how much of the relation went or was written over, 0 to 1"),
    "share.known": Field(
        "share_known", "bool", "whether the rows before are known, of a TRUNCATE or a share of a third on"
    ),
    "share.rows": Field("share_rows", "int", "rows that went or were written over in `share.window`"),
    "share.of": Field("share_of", "int", "rows that there were before, as the server had counted and the WAL since"),
    "share.window": Field("share_window", "string", "`transaction` `24h` `30d`, `24h by all`: what was added up"),
    "share.replaced": Field(
        "share_replaced", "bool", "whether about as many rows were inserted in the same transaction"
    ),
    "share.usual": Field("share_usual", "bool", "whether as much went at this hour on three days before"),
    "outcome": Field(
        "outcome",
        "string",
        "what came of it: `success` (committed) `failure` `denied` `rolled_back` `pending` `unknown`",
    ),
    "effect": Field(
        "effect",
        "string",
        "what is proven to have changed: `rows` `emptied` `created` `altered` `renamed` `dropped` `granted` `revoked`; "
        "`none`: it is known that nothing did; empty when nobody knows",
    ),
    "sqlstate": Field("sqlstate", "string", "the SQLSTATE of a failure"),
    "detail": Field("detail", "map", "what only this kind has; ask `has(detail.x)` before `detail.x`"),
    "finding": Field(
        "finding",
        "string",
        "what attribution found: `shadow_write`, `beacon_missing`, `unpublished`, `identity_conflict` …",
    ),
    "seen_as": Field(
        "seen_as",
        "string",
        "another event that told the same deed already: `ddl`, or `statement` of the server's log; else empty",
    ),
    "object.type": Field("object_type", "string", "posture: `role` `membership` `setting` `trigger` `beacon` …"),
    "object.name": Field("object_name", "string", "posture: the object's name"),
    "object.change": Field("change", "string", "posture: `found` `added` `removed` `changed`"),
    "object.before": Field("before", "map", "posture: the object as it was, empty when there was none"),
    "object.after": Field("after", "map", "posture: the object as it is, empty when there is none"),
    "object.gained": Field("gained", "list of string", "posture: attributes that are true now and were not before"),
    "object.lost": Field("lost", "list of string", "posture: attributes that were true and are not now"),
    "hour": Field("hour", "int", "hour of the day, UTC, 0 to 23"),
    "weekday": Field("weekday", "int", "day of the week, UTC, Monday is 0"),
    "clock": Field(
        "clock",
        "map",
        "what a clock in a time zone showed, by the zone's name: `hour` `minute` `weekday` `date` `day` `month` `year` "
        "`days_left`; `local` is that of the policy's `zone`",
    ),
    "during": Field("during", "map", "by the name of a calendar, whether it was in it: `during.freeze`"),
    "claim.verified": Field("claim_verified", "bool", "whether a verified token (`pgwitness.claim`) came with it"),
    "claim.age": Field(
        "claim_age", "int", "seconds since that token was signed (its `iat`); -1 when that is not known"
    ),
    "claim.left": Field("claim_left", "int", "seconds until it expires; -1 when there is none"),
    "claim.fields": Field(
        "claim_fields",
        "map",
        "its further claims, as `identities.claims_fields` names them; ask `has(claim.fields.ticket)` before "
        "`claim.fields.ticket`",
    ),
    "session": Field("session_id", "string", "names its session, over all time; empty when that is not known"),
    "new.client_addr": Field("new_client_addr", "bool", "a known principal comes from an address it never came from"),
    "new.application": Field("new_application", "bool", "likewise with an application name"),
    "new.relation": Field("new_relation", "bool", "likewise with this operation on this relation"),
    "anomaly": Field("anomaly", "double", "how unusual the behaviour model finds it, 0 to 1"),
    "quiet_days": Field(
        "quiet_days", "int", "whole days in which a known principal did nothing before; 0 when not known"
    ),
    "refused_before": Field(
        "refused_before", "int", "of a login: how many of its role were refused in the ten minutes before, by the log"
    ),
}
"""Every name of the language of policies. Names only ever get added."""


class Parts:
    """Counts the rows of long transactions over their parts; at most `PARTS_MAX` transactions at a time."""

    def __init__(self) -> None:
        self._open: dict[str, dict[tuple[str, str], int]] = {}
        self._pairs = 0

    def __len__(self) -> int:
        """Give the number of pairs in memory."""
        return self._pairs

    def counts(self, event: Event) -> dict[tuple[str, str], int] | None:
        """Give `{(relation, operation): rows}` of the whole transaction with its last part, None before that.

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
        """Give the state as JSON values."""
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
    """Say whether the rows of a statement were counted.

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
    if "agent" in detail:
        _claim(action, detail["agent"])
    return action


def _claim(action: Action, agent: object) -> None:
    """Take what a verified token says; what a comment says of an agent is none."""
    if not isinstance(agent, dict) or agent.get("said_by") != "claim":
        return
    fields = agent.get("fields")
    action.claim_verified = True
    action.claim_age = _seconds(action.occurred_at_us, agent.get("iat"), 1)
    action.claim_left = _seconds(action.occurred_at_us, agent.get("exp"), -1)
    action.claim_fields = fields if isinstance(fields, dict) else {}


def _seconds(at_us: int, said: object, sign: int) -> int:
    """Give the whole seconds since or until a time of a token, which may be a little ahead of the database's clock."""
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
        action.returning = action.returning or facts.returning
        assigned = assigned or list(facts.assigned)
    action.read_columns = [name for name in action.columns if name not in assigned] if assigned else action.columns
    if not action.operation and action.operations:
        action.operation = action.operations[0]


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


KINDS: tuple[Kind, ...] = (
    "change",
    "ddl",
    "statement",
    "query_stats",
    "session",
    "posture",
    "decision",
    "control",
    "gap",
)
