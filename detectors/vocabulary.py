"""The language of policies: every name that an expression may use of an action, its type and its meaning.

`docs/reference/policies.md` shows it to those who write policies, `detectors.policy.typecheck` holds expressions
against it; `detectors.actions.Action` has an attribute for each name.
"""

from __future__ import annotations

from msgspec import Struct

from pgwitness.core.events import Kind

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
    "statement.written": Field(
        "written", "list of string", "relations whose rows it changes, or which it empties or drops"
    ),
    "statement.returning": Field(
        "returning", "bool", "whether a statement that writes gives the rows back (RETURNING)"
    ),
    "statement.labels": Field(
        "reads", "list of string", "labels (`[labels]`) of columns that it reads; at the gateway"
    ),
    "read_before": Field("read_before", "list of string", "labels of what its session has read before; at the gateway"),
    "intent": Field("intent", "string", "what its session says that it is for (`pgwitness.intent`), at the gateway"),
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
    "asked": Field("asked", "bool", "whether it has not run yet: the gateway asks before it forwards a statement"),
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
