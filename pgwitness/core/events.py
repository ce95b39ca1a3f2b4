"""The events of pgwitness as they travel through Kafka.

Two vocabularies. *Raw events* are what collectors saw, before anybody is named; they are a tagged union
(`RawEvent`, tag field `kind`). *Events* (`Event`) are attributed: the fold in `streams` has tied them to a session
and a principal. `pgwitness.core.codec` puts both into batches.

Times are integers, microseconds since the Unix epoch, UTC (`…_us`). LSNs are integers (`X/Y` is `X << 32 | Y`).
No struct refers back to itself, so the busy ones are kept out of the cyclic garbage collector (`gc=False`), which
would otherwise walk through every event in flight again and again.
The row changes of a transaction travel together: the facts they share stand once, the rows are an array of
compact arrays (`Row`) that stages pass on as bytes without reading them (docs/decisions/0001).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Raw, Struct

SCHEMA_VERSION = 1
"""Version of the batches this program writes; it reads this one and the one before."""

Kind = Literal["change", "ddl", "statement", "query_stats", "session", "posture", "decision", "control", "gap"]
Binding = Literal["gateway", "beacon", "log", "activity", "stats", "replication", "none"]
Certainty = Literal["exact", "strong", "weak", "none"]
Assurance = Literal["verified", "asserted", "role_only", "none"]
PrincipalKind = Literal["human", "agent", "service", "unknown"]
Outcome = Literal["success", "failure", "denied", "rolled_back", "pending", "unknown"]
"""What came of an action: committed, refused or failed, rolled back, its transaction still open, or nobody knows."""
Effect = Literal["rows", "emptied", "created", "altered", "renamed", "dropped", "granted", "revoked", "none"]
"""What is proven to have changed, by the WAL, a DDL message or the catalogue; `none`: it is known that nothing did."""

OPERATIONS = {"i": "insert", "u": "update", "d": "delete", "t": "truncate"}
"""Words for the letters that rows and counts use for their operation."""


class Row(Struct, array_like=True, frozen=True, gc=False):
    """One changed row: `[ordinal, operation, relation, key, changed, before, after]`.

    `ordinal` is the row's place in its transaction, from 0, over all operations of the transaction.
    `operation` is a letter of `OPERATIONS`; `relation` an index into the transaction's `relations`.
    `key`, `before` and `after` are JSON objects by column name, already masked, or null. A column that is absent
    from `after` was not in the WAL (an unchanged TOAST value); a null is a NULL.
    `changed` names the columns an update changed, null where the replica identity does not tell.
    """

    ordinal: int
    operation: str
    relation: int
    key: Raw
    changed: list[str] | None
    before: Raw
    after: Raw


class Relation(Struct, frozen=True, omit_defaults=True, gc=False):
    """A table as the rows of one transaction saw it.

    `name` is `schema.table`, quoted as SQL would; of a partition, its root. `columns` are the column names in
    order. `identity` is the replica identity: `d`efault, `f`ull, `i`ndex or `n`othing. `beacon` says whether a
    beacon is installed on it, so that rows without one are a finding. `generated` are columns that the server
    computes and does not publish.
    """

    name: str
    columns: list[str] = []
    identity: str = "d"
    beacon: bool = False
    generated: list[str] = []


class Count(Struct, array_like=True, frozen=True, gc=False):
    """How many rows of a part one operation touched in one relation: `[relation, operation, rows]`."""

    relation: int
    operation: str
    rows: int


class Token(Struct, frozen=True, omit_defaults=True, gc=False):
    """What was found of a token on a transaction, or of one that logged in; the token itself is not kept.

    `verdict` is `verified`, `no_keys` (nobody could judge it) or why it is not believed; `token_id` is its `jti`, else
    the beginning of its hash. `claims` are a bounded choice, to be believed only when it is verified; `actors` are the
    subjects of its nested `act`, the present one first.
    """

    verdict: str
    token_id: str
    claims: dict[str, object] = {}


class Wrote(Struct, array_like=True, frozen=True, gc=False):
    """What a beacon says of the statement with which it spoke: `[relation, statement, inserted, updated, deleted]`.

    `relation` is the table's OID, `statement` one of `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`. The numbers are rows of
    that table in the session's statistics at that moment, which may hold some of transactions just before.
    """

    relation: int
    statement: str
    inserted: int
    updated: int
    deleted: int


class Beacon(Struct, frozen=True, omit_defaults=True, gc=False):
    """Who made a transaction, as the database itself wrote it into the WAL; its MAC was verified by the collector.

    Not so where it is not `authenticated`: the database had no key when it was written, or the one it was written with
    is known to nobody any more. Then anybody may have written it, and it is a claim.

    `session_user` is the login role and `role` the role in force. `claim` is what the application said of itself
    (the setting `pgwitness.claim`), unverified. `token` is what came of the token it gave to the function
    `pgwitness.claim`. `ordinal` is the place in the transaction from which on it holds. `auth_method` is how the
    session authenticated, None where the server does not tell (before PostgreSQL 16). `wrote` is what it says of the
    statement, None in those of an older installation. `settings` are those of the session by which it keeps others
    from seeing it, where they are not the server's own.
    """

    session_user: str
    role: str
    pid: int
    backend_start_us: int
    xid: int
    application: str = ""
    client_addr: str | None = None
    client_port: int | None = None
    claim: str | None = None
    ordinal: int = 0
    token: Token | None = None
    auth_method: str | None = None
    wrote: Wrote | None = None
    settings: dict[str, str] = {}
    authenticated: bool = True


class Unpublished(Struct, frozen=True, omit_defaults=True, gc=False):
    """Rows of one relation that a transaction changed by its own beacon, and that the stream does not have.

    `relation` is its name by its `oid`, as the catalogue has it when the message is read, the OID as text when it is
    gone; of a `partition` its root. Rows by statistics, of a TRUNCATE none. `published` says whether the catalogue
    lists the relation for that operation when the message is read, None when that is not known; `expected`, that the
    relation is known not to be published whole: it lacks a replica identity, or its beacon speaks with each statement.
    """

    relation: str
    oid: int
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: bool = False
    published: bool | None = None
    partition: str | None = None
    expected: bool = False


class Silenced(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a beacon that failed says: the SQLSTATE of its failure, and who it was. Anybody can have written this."""

    sqlstate: str
    claims: dict[str, str | int | None] = {}


class Forgery(Struct, frozen=True, omit_defaults=True, gc=False):
    """A message under the beacon's prefix that did not verify. `claims` is what it said, masked; `reason` why not."""

    reason: str
    claims: dict[str, str | int | None] = {}


class DdlObject(Struct, array_like=True, frozen=True, gc=False):
    """An object that DDL made, changed or dropped: `[type, identity, relation, beacon]`.

    `type` and `identity` are PostgreSQL's own words (`table`, `public.orders`; `trigger`, `t on public.orders`).
    `relation` is the table or view it belongs to. `beacon`, only where that is covered: `tgenabled` of its beacon
    after the command (`A` is as it should be), `-` when it has none any more.
    """

    type: str
    identity: str
    relation: str | None = None
    beacon: str | None = None


class Ddl(Struct, frozen=True, omit_defaults=True, gc=False):
    """One command that changed the schema, as an event trigger wrote it into its own transaction; verified.

    `number` counts a transaction's commands from 0, `ordinal` is the row that would come next. `tag` is the command
    tag. `objects` are those it made or changed, `dropped` those that went, with what a cascade took along; of each the
    first hundred, `objects_total` and `dropped_total` say how many there were. `statement` is the client's, which may
    be a DO block or a call that ran the command, without its literals; None, and its `statement_sha256` instead, when
    those could not be taken out. What the parser said of the statement as it came stands beside it; `names` are what it
    names besides relations: roles, privileges, attributes (`pgwitness.core.sql.tree.objects`). `own`: it is of a
    `pgwitness db` command or of a collector's job, by its session's code. `path` are the schemas in which the names of
    an ALTER were looked for, the first one first, where it may have left them out. `masks`: views that mask ran it, to
    stand aside for the client's command or to come back behind it.
    """

    number: int
    ordinal: int
    tag: str
    beacon: Beacon
    objects: list[DdlObject] = []
    dropped: list[DdlObject] = []
    objects_total: int = 0
    dropped_total: int = 0
    statement: str | None = None
    statement_sha256: str | None = None
    fingerprint: str | None = None
    operations: list[str] = []
    relations: list[str] = []
    names: list[str] = []
    own: bool = False
    path: list[str] = []
    masks: bool = False


class _Raw(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", gc=False):
    """What every raw event has: `captured_at_us`, the collector's clock when it saw the event."""

    captured_at_us: int


class Transaction(_Raw, frozen=True, kw_only=True, tag="transaction", gc=False):
    """A committed transaction, or one part of a long one; every part repeats the header.

    Position: `system_id`, `timeline` (the one its commit LSN lies on, by the timeline history), `database`, `lsn`
    (of the commit record) and the ordinals `first_ordinal` … `first_ordinal + n_rows - 1`. Positions only grow
    within one (system_id, timeline, database); a collector that starts again may repeat them, identical. Where the
    server was put back to what it was, they begin anew under a greater `incarnation` (µs since the epoch: when).
    `xid` has 64 bits. `origin` is the replication origin's name. `rows` is a JSON array of `Row`. `ddl` stands in the
    part in which it happened, `unpublished` in the last one. `announced`: pgwitness itself did what its DDL says.
    """

    system_id: str
    timeline: int
    database: str
    lsn: int
    xid: int
    committed_at_us: int
    part: int = 0
    last: bool = True
    first_ordinal: int = 0
    n_rows: int = 0
    origin: str | None = None
    beacons: list[Beacon] = []
    forged: list[Forgery] = []
    ddl: list[Ddl] = []
    relations: list[Relation] = []
    counts: list[Count] = []
    rows: Raw = Raw(b"[]")
    unpublished: list[Unpublished] = []
    silenced: list[Silenced] = []
    incarnation: int = 0
    announced: bool = False


class QueryStats(_Raw, frozen=True, kw_only=True, tag="query_stats"):
    """What one statement did in one window, from pg_stat_statements: differences, never running totals.

    `statement` has its literals taken out. `approximate` is set where the window's start is not certain.
    """

    window_start_us: int
    window_end_us: int
    database: str
    role: str
    query_id: int
    statement: str | None
    calls: int
    rows: int
    total_ms: float
    toplevel: bool = True
    approximate: bool = False


LogFormat = Literal["jsonlog", "csvlog", "stderr", "gateway"]
"""How a line of the log was written; `gateway`: it is none, the gateway forwarded the statement itself."""
Trust = Literal["certain", "likely", "claimed"]
"""How sure it is that the server wrote a line of its log, and no session's code: by the place in its source that
`log_error_verbosity = verbose` adds; by what code cannot leave out; or not at all
(`collectors.log.interpretation.provenance`)."""


class LogPlace(Struct, array_like=True, frozen=True, order=True, gc=False):
    """Where in the server's log an event was let go: `[log, offset, index, line]`.

    `log` names one file for one collector, `offset` is the place of the line in bytes, `index` counts the events of
    one line. Within a log places only grow, so what is sent again after a restart can be dropped. `line` is the
    server's own name of the line, its session and the number in it, where the format has it.
    """

    log: str
    offset: int
    index: int = 0
    line: str | None = None


class Certificate(Struct, frozen=True, omit_defaults=True, gc=False):
    """A client certificate that the server verified: `dn` and `issuer` as PostgreSQL writes them (`/CN=ada`), `serial`.

    PostgreSQL cuts names at 63 bytes; of one that long, None says that it is not known.
    """

    dn: str | None = None
    issuer: str | None = None
    serial: str | None = None


class Session(_Raw, frozen=True, kw_only=True, tag="session"):
    """A session as pg_stat_activity shows it, or as the server's log tells it (then `place` is set).

    `operation`: `found` (already there when the collector started), `connect`, `disconnect`, or `sample`: a session
    with a transaction id (`xid`, 64 bits), or whose facts changed (it names its application anew), which only the
    fold reads. For `connect`, `occurred_at_us` is the backend's start, otherwise when it was seen.
    Only the log knows `login_failed`, with its `sqlstate`, and how long a session took (`duration_ms`); its
    `backend_start_us` has whole seconds, its `identity` is what the client authenticated as, and `format` and `trust`
    decide how far the line is believed (`Statement`). `certificate` is the one that pg_stat_ssl shows, None where the
    client showed none; the log does not tell it. Of the gateway's sessions the client is its own, `server_port` the
    port that the server sees, and `token` what the gateway found of the token that the client logged in with; `user`
    is the role that the client has proven to be, where the gateway has logged it in as another one.
    """

    operation: Literal["found", "connect", "disconnect", "sample", "login_failed"]
    occurred_at_us: int
    pid: int
    backend_start_us: int
    role: str | None = None
    database: str | None = None
    application: str = ""
    client_addr: str | None = None
    client_port: int | None = None
    auth_method: str | None = None
    backend_type: str = "client backend"
    xid: int | None = None
    place: LogPlace | None = None
    identity: str | None = None
    sqlstate: str | None = None
    duration_ms: float | None = None
    certificate: Certificate | None = None
    format: LogFormat | None = None
    trust: Trust = "likely"
    server_port: int | None = None
    token: Token | None = None
    user: str | None = None


class MadeFunction(Struct, frozen=True, omit_defaults=True, gc=False):
    """A function that a statement makes: its name as it stands there, and what its body does, as a parser says."""

    name: str
    operations: list[str] = []
    relations: list[str] = []
    columns: list[str] = []
    functions: list[str] = []
    whole: list[str] = []


class Parsed(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the parser said of a statement as it came, where that is more than its text without literals tells.

    The body of a DO block, a setting's value, a text that a function runs: all of them are literals, and gone.
    """

    operations: list[str] = []
    relations: list[str] = []
    columns: list[str] = []
    functions: list[str] = []
    settings: list[str] = []
    objects: list[str] = []
    defines: list[str] = []
    where: str = "n/a"
    utility: bool = False
    assigned: list[str] = []
    whole: list[str] = []
    returning: bool = False
    written: list[str] = []
    made: list[MadeFunction] = []


class Statement(_Raw, frozen=True, kw_only=True, tag="statement", gc=False):
    """A statement as the server's log tells it: no literals, no parameters, of an error what may be told.

    `occurred_at_us` is the time of the line that ended it. `session_start_us` has whole seconds. `client_addr` is
    `local` for the Unix socket and None when the log does not say; so is `application`, empty when there is none.
    `xid` is the top-level transaction id, modulo 2^32, None where the log has none; `vxid` the virtual one, `3/0` where
    the session is in no transaction. `outcome` is what the line itself says: whether a statement that succeeded was
    committed decides the fold (`streams.fold.outcome.outcomes`). `source` is the line it comes
    from: `duration` (log_min_duration_statement), `statement` (log_statement, with its duration where a line had
    it), `auto_explain`, `pgaudit`, `error`; `imitated` is a line that a session's code wrote in the server's form:
    `imitates` says which, `lines` how many of that session have not been told yet. `statement` is None when its
    literals could not be told for certain; then `statement_hash`, a keyed hash, is all there is. `row_count` is known
    to pgAudit with log_rows, and to auto_explain with log_analyze. `format` and `trust` decide how far the line itself
    is believed: a role's name can write into a text log; of an imitated line `trust` is that in its session's facts.
    `decided` is what the gateway decided on it. `alone`: between the line that announced it and the one that ended it
    no other session had a statement in progress, if every session announces its statements (log_statement = all). A
    `gateway` forwarded the statement itself: its place is one on its spool. `tags` are what the client says of itself
    in a comment behind the statement (`pgwitness.core.sql.tags`). `own`: a `pgwitness db` command ran it, by its
    session's code.
    """

    place: LogPlace
    format: LogFormat
    source: Literal["duration", "statement", "auto_explain", "pgaudit", "error", "imitated", "gateway"]
    occurred_at_us: int
    pid: int
    session_start_us: int | None = None
    role: str | None = None
    database: str | None = None
    application: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    auth_method: str | None = None
    xid: int | None = None
    statement: str | None = None
    statement_hash: str | None = None
    parsed: Parsed | None = None
    query_id: int | None = None
    duration_ms: float | None = None
    row_count: int | None = None
    outcome: Outcome = "success"
    sqlstate: str | None = None
    error: str | None = None
    error_detail: str | None = None
    audit: dict[str, str] = {}
    alone: bool = False
    tags: dict[str, str] = {}
    trust: Trust = "likely"
    imitates: str | None = None
    lines: int = 0
    own: bool = False
    vxid: str | None = None
    decided: Decided | None = None
    intent: str | None = None
    ran: Ran | None = None


class Ran(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the server counted of a statement that ran approved: rows updated and deleted; `xid` (64 bits), if any."""

    rows: int
    xid: int | None = None


class Decided(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the gateway decided on a statement before it went: `deny`, `limit` or `warn`, by which policies.

    `message` is what its client was told. `bundle` names the policies that were in force. `approval` is the request for
    which it waits, or by which it runs, and then `rows` is the most that was approved. `staged` are policies that would
    have refused it, have had it wait, or have undone what it did, if they were not staged; with the effect `staged`
    nothing else was decided.
    With `by` the guard in the database decided, when the statement had run and nothing of it was committed.
    """

    effect: Literal["deny", "approve", "limit", "warn", "staged"]
    policies: list[str]
    message: str = ""
    bundle: str = ""
    approval: str = ""
    rows: int | None = None
    by: Literal["gateway", "guard"] = "gateway"
    staged: list[str] = []


class Decision(_Raw, frozen=True, kw_only=True, tag="decision", gc=False):
    """A decision of the gateway, which is on its spool before anything is forwarded.

    `statement` tells of what it is about as it does where one was forwarded; its outcome is not known yet.
    """

    decided: Decided
    statement: Statement


class Posture(_Raw, frozen=True, kw_only=True, tag="posture"):
    """A setting, role, grant or other object that decides what can happen or be seen, as found, or how it changed.

    `object_type`: `role`, `membership`, `role_setting`, `database`, `grant`, `setting`, `trigger`, `event_trigger`,
    `publication`, `extension`, `table`, `beacon`; of `catalogue`, which lists the relations of a database, comes no
    event. `change` is `found` in the first snapshot ever, of which only what
    gives power or sight is listed; how many objects of each type there were says one event of the type `summary`.
    `dropped_with` names the table whose drop took this object along. `window_start_us` is when the look began that
    still saw it as it was, `window_end_us` when this look ended, by the server's clock: it happened in between.
    """

    object_type: str
    name: str
    change: Literal["found", "added", "removed", "changed"]
    database: str | None = None
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None
    dropped_with: str | None = None
    window_start_us: int | None = None
    window_end_us: int | None = None


class Gap(_Raw, frozen=True, kw_only=True, tag="gap"):
    """Evidence that is missing, and why. `reason` is one of the words in `docs/reference/events.md`."""

    reason: str
    database: str | None = None
    occurred_at_us: int | None = None
    detail: dict[str, object] = {}


class Control(_Raw, frozen=True, kw_only=True, tag="control"):
    """Something pgwitness itself did: start, stop, install, pause, reload."""

    operation: str
    database: str | None = None
    detail: dict[str, object] = {}


class Tick(_Raw, frozen=True, kw_only=True, tag="tick"):
    """The time goes on although nothing happens; the fold's only clock besides the events."""


class Identities(_Raw, frozen=True, kw_only=True, tag="identities"):
    """The identities file as it is from here on, so that a replay names events as the first run did."""

    sha256: str
    content: str


RawEvent = Transaction | QueryStats | Session | Statement | Decision | Posture | Gap | Control | Tick | Identities


class RawHeader(Struct, frozen=True, omit_defaults=True):
    """Where a raw batch comes from: the configured cluster, the instance (`host:port`) and the collector."""

    cluster: str
    source: str
    instance: str | None = None


class RawBatch(Struct, frozen=True):
    """The value of one record of the topic `raw`."""

    schema: int
    producer: str
    header: RawHeader
    events: list[RawEvent]


class Position(Struct, array_like=True, frozen=True, order=True, gc=False):
    """Where in `raw` an event was emitted: `[partition, offset, index]`.

    It is the record that made the fold let the event go, not always the one that held it. A replay gives the same
    one. Among the events of one lane that come from one raw partition it only grows, so that what was landed can be
    dropped; *between* lanes of one events partition there is no order, because lanes are batched apart. A high-water
    mark is therefore kept per lane and raw partition.
    """

    partition: int
    offset: int
    index: int


class Event(Struct, kw_only=True, omit_defaults=True, gc=False):
    """One attributed event; for `kind` `change`, one part of a transaction with all its rows.

    The names are those of the lake's columns (`docs/reference/columns.md`). `event_id` of a part is the prefix of
    its rows' ids. `rows`, `relation_table` and `counts` are only there for changes.
    """

    kind: Kind
    event_id: str
    at: Position
    occurred_at_us: int
    captured_at_us: int
    cluster: str
    instance: str | None = None
    database: str | None = None
    principal: str | None = None
    principal_kind: PrincipalKind = "unknown"
    on_behalf_of: str | None = None
    peer_group: str | None = None
    binding: Binding = "none"
    certainty: Certainty = "none"
    assurance: Assurance = "none"
    identity_rule: str | None = None
    role: str | None = None
    effective_role: str | None = None
    application: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    pid: int | None = None
    auth_method: str | None = None
    session_id: str | None = None
    trace_id: str | None = None
    xid: int | None = None
    lsn: int | None = None
    operation: str | None = None
    relations: list[str] = []
    columns: list[str] = []
    statement: str | None = None
    fingerprint: str | None = None
    query_id: int | None = None
    calls: int | None = None
    row_count: int | None = None
    duration_ms: float | None = None
    outcome: Outcome = "unknown"
    effect: Effect | None = None
    sqlstate: str | None = None
    detail: dict[str, object] = {}
    part: int = 0
    last: bool = True
    first_ordinal: int = 0
    n_rows: int = 0
    relation_table: list[Relation] = []
    counts: list[Count] = []
    rows: Raw = Raw(b"[]")


class EventHeader(Struct, frozen=True):
    """Which lane a batch of events belongs to."""

    lane: int


class EventBatch(Struct, frozen=True):
    """The value of one record of the topic `events`."""

    schema: int
    producer: str
    header: EventHeader
    events: list[Event]


def format_lsn(lsn: int) -> str:
    """Write an LSN as PostgreSQL does (`16/B374D848`)."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read an LSN as PostgreSQL writes it. Raises `ValueError` on anything else."""
    high, separator, low = text.partition("/")
    if not separator:
        raise ValueError(f"not an LSN: {text!r}")
    return int(high, 16) << 32 | int(low, 16)


def session_id(instance: str | None, backend_start_us: int, pid: int) -> str:
    """Name a session uniquely over time: the instance, then PostgreSQL's own `%c` (start second and pid, in hex)."""
    return f"{instance or '?'}/{backend_start_us // 1_000_000:x}.{pid:x}"


@lru_cache(maxsize=4096)
def quote_identifier(name: str) -> str:
    """Quote an identifier as PostgreSQL's `quote_ident` does for names that are not plain lower case."""
    plain = name.isascii() and name.replace("_", "a").replace("$", "a").isalnum() and name == name.lower()
    if plain and not name[0].isdigit() and name[0] != "$":
        return name
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, table: str) -> str:
    """Name a relation as the lake does: `schema.table`, quoted where SQL would."""
    return f"{quote_identifier(schema)}.{quote_identifier(table)}"


encode_event = msgspec.json.Encoder().encode
"""JSON of one event, raw or attributed, as bytes."""
