"""From a text of SQL and a name to the actions that a worker would judge, without a server.

The text goes the way of a real one: the log's reader takes its literals out, the fold's own functions make the events,
`detectors.actions` the actions. What only a server knows is assumed, each as a sentence, and can be given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from collectors.log.interpretation.texts import Texts
from detectors.actions import Action, count, of_change, of_event
from detectors.sensitive import Sensitive
from detectors.vocabulary import SCHEMA
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import (
    Beacon,
    Count,
    Ddl,
    DdlObject,
    Event,
    LogPlace,
    Outcome,
    RawHeader,
    Relation,
    Statement,
    Transaction,
)
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.statements import StatementFacts, about_objects, facts
from streams.fold.events.change import change_event
from streams.fold.events.ddl import ddl_event
from streams.fold.events.statement import statement_event
from streams.fold.memory.attribution import Attribution
from streams.fold.schema.relations import Relations
from streams.identity.called import called
from streams.identity.identities import Identities

_SEMICOLON = "ASCII_59"
KINDS = ("statement", "change", "ddl", "query_stats")
_DML = {"InsertStmt": "i", "UpdateStmt": "u", "DeleteStmt": "d"}
_MERGE = {"CMD_INSERT": "i", "CMD_UPDATE": "u", "CMD_DELETE": "d"}
_NOT_RUN = frozenset({"ExplainStmt", "PrepareStmt", "RuleStmt", "CreateFunctionStmt", "DeclareCursorStmt"})
"""Statements that hold others and do not run them; what EXPLAIN ANALYZE runs is asked as its statement."""


class Given(Struct, frozen=True, kw_only=True):
    """What is said of the action besides its text; None is not said, and assumed."""

    principal: str | None
    on_behalf_of: str | None
    role: str | None
    cluster: str
    database: str
    rows: int | None
    outcome: Outcome | None
    at_us: int
    kinds: tuple[str, ...]
    fields: Mapping[str, object]


class Tried(Struct, frozen=True):
    """One action that a text would be, where it stands in it, and what was assumed of it."""

    number: int
    text: str
    action: Action
    assumed: list[str]


class Trying:
    """Makes the actions of texts; `labels` are those of the cluster."""

    def __init__(self, given: Given, identities: Identities, labels: Mapping[str, str], sensitive: Sensitive) -> None:
        self._given = given
        self._labels = labels
        self._sensitive = sensitive
        self._texts = Texts(tokenizer(bytes(32)))
        self._whose, self._assumed = _attribution(given, identities)
        self._number = 0

    def actions(self, text: str) -> Iterator[Tried]:
        """Give the actions of each statement of a text, as if they ran one after the other."""
        for place, statement in enumerate(statements_of(text), 1):
            known = facts(statement)
            done = self._given.outcome in (None, "success")  # what was not done leaves no change behind
            changes, tag = (_targets(statement), _tag(known)) if done else ([], "")
            wanted = self._given.kinds or ("statement", *(["change"] if changes else []), *(["ddl"] if tag else []))
            for kind in wanted:
                if kind == "change":
                    yield from self._changes(place, statement, changes)
                elif kind == "ddl" and tag:
                    yield self._tried(place, statement, self._ddl(statement, known, tag), [_OF_DDL])
                elif kind in ("statement", "query_stats"):
                    yield self._statement(place, statement, kind)

    def _statement(self, place: int, text: str, kind: str) -> Tried:
        given, read = self._given, self._texts.read(text)
        raw = Statement(
            captured_at_us=given.at_us,
            place=LogPlace("try", 0, self._next()),
            format="jsonlog",
            source="statement",
            occurred_at_us=given.at_us + self._number * 1000,
            pid=1,
            database=given.database or None,
            statement=read.statement,
            statement_hash=read.hash,
            parsed=read.parsed,
            row_count=None if about_objects(facts(text)) else given.rows,
            outcome=given.outcome or "success",
            tags=dict(read.tags),
        )
        known = facts(read.statement, freed=True) if read.statement is not None else None
        event = statement_event(self._header(), raw, f"{self._number:032x}", known, self._whose)
        assumed = [] if given.outcome else [_OUTCOME]
        if given.rows is None:
            assumed.append("nobody counted its rows (--rows N)")
        if (error := facts(text).parse_error) is not None:
            assumed.append(f"the parser cannot read it, and little is known of it: {error}")
        if kind == "query_stats":
            event.kind, event.outcome = "query_stats", "unknown"
            assumed = ["it ran once in its window of statistics, which do not know outcomes"]
        self._resolve(event, assumed)
        return self._tried(place, text, event, assumed)

    def _changes(self, place: int, text: str, changes: list[tuple[str, str]]) -> Iterator[Tried]:
        assumed = []
        if self._given.rows is None:
            assumed.append("one row changed in each relation (--rows N)")
        for letter, name in changes:
            relation = name if "." in name else f"public.{name}"
            if relation != name:
                assumed.append(f"{name} is {relation}")
            rows = 0 if letter == "t" else 1 if self._given.rows is None else self._given.rows
            counts = [Count(0, letter, rows)] if rows or letter == "t" else []
            part = self._transaction([Relation(relation, beacon=True)], counts, rows)
            event = change_event(self._given.cluster, self._header().instance, part, self._whose)
            for (named, operation), number in count(event).items():
                action = of_change(event, named, operation, number, self._labels)
                yield Tried(place, text, self._filled(action), [*self._assumed, "it was committed", *assumed])

    def _ddl(self, text: str, known: StatementFacts, tag: str) -> Event:
        objects = [DdlObject("table", name, name) for name in known.relations]
        drops = tag.startswith("DROP")
        raw = Ddl(
            number=0,
            ordinal=0,
            tag=tag,
            beacon=Beacon("", "", 1, 0, 1),
            objects=[] if drops else objects,
            dropped=objects if drops else [],
            objects_total=0 if drops else max(1, len(objects)),
            dropped_total=max(1, len(objects)) if drops else 0,
            statement=known.statement,
            fingerprint=known.fingerprint,
            operations=list(known.operations),
            relations=list(known.relations),
            names=list(known.objects),
        )
        event = ddl_event(self._given.cluster, self._header().instance, self._transaction([], [], 0), raw, self._whose)
        self._resolve(event, [])
        return event

    def _transaction(self, relations: list[Relation], counts: list[Count], rows: int) -> Transaction:
        number, given = self._next(), self._given
        at_us = given.at_us + number * 1000
        return Transaction(
            captured_at_us=at_us,
            system_id="try",
            timeline=1,
            database=given.database,
            lsn=number,
            xid=number,
            committed_at_us=at_us,
            n_rows=rows,
            relations=relations,
            counts=counts,
        )

    def _tried(self, place: int, text: str, event: Event, assumed: list[str]) -> Tried:
        action = of_event(event, self._labels, facts)
        if action.read_columns:
            action.sensitive = self._sensitive.among(action.read_columns, action.relations)
        return Tried(place, text, self._filled(action), [*self._assumed, *assumed])

    def _resolve(self, event: Event, assumed: list[str]) -> None:
        """Name relations in full as the fold does where every one of them is in `public`."""
        relations = Relations()
        plain = [name for name in event.relations if "." not in name and not name.startswith("pg_")]
        relations.change(self._transaction([Relation(f"public.{name}") for name in plain], [], 0))
        relations.resolve(event)
        event.detail.pop("unresolved", None)
        assumed += [f"{name} is public.{name}" for name in plain]

    def _filled(self, action: Action) -> Action:
        """Put in what was given by its name in the language."""
        values = {SCHEMA[name].attribute: value for name, value in self._given.fields.items()}
        try:
            return msgspec.convert({**msgspec.to_builtins(action), **values}, Action)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"--with: {error}") from None

    def _header(self) -> RawHeader:
        return RawHeader(self._given.cluster, "log", None)

    def _next(self) -> int:
        self._number += 1
        return self._number


_OUTCOME = "it succeeded and was committed (--outcome)"
_OF_DDL = "its objects are the relations it names, and all of them were there"


def _attribution(given: Given, identities: Identities) -> tuple[Attribution, list[str]]:
    """Give whose the actions are, by the rules where they know the name."""
    assumed = ["the session is known for certain (binding log, certainty exact)"]
    whose = Attribution(binding="log", certainty="exact", role=given.role)
    if given.principal is None:
        assumed.append("nobody can be named (--as PRINCIPAL)")
        return replace(whose, on_behalf_of=given.on_behalf_of), assumed
    found = called(identities, given.principal)
    if found is None:
        assumed.append(f"no rule names {given.principal}: its kind is not known (--with principal.kind=human)")
        return replace(
            whose, principal=given.principal, on_behalf_of=given.on_behalf_of, assurance="role_only"
        ), assumed
    named, role = found.named, given.role or found.role
    assumed.append(
        f"named by rule {named.rule} of the identities, after a login with a password"
        + ("" if given.role or role is None else f" as {role}")
    )
    whose = replace(
        whose,
        principal=named.principal,
        principal_kind=named.kind,
        on_behalf_of=given.on_behalf_of or named.on_behalf_of,
        peer_group=named.peer_group,
        assurance=named.assurance,
        identity_rule=named.rule,
        owner=named.owner,
        role=role,
    )
    return whose, assumed


def statements_of(text: str) -> list[str]:
    """Cut a text into its statements, as the server's parser does, or its scanner where that cannot read it."""
    from pglast import parser as pglast

    try:
        cut = list(pglast.split(text, True, False))
    except (parser.ParseError, ValueError):
        cut = _scanned(text)
    return [statement for found in cut if (statement := found.strip())] or [text]


def _scanned(text: str) -> list[str]:
    """Cut a text at its semicolons; one that has not even words stays whole."""
    try:
        ends = [token.start for token in parser.scan(text) if token.name == _SEMICOLON]
    except (parser.ParseError, ValueError):
        return [text]
    begins = [0, *(end + 1 for end in ends)]
    return [text[begin:end] for begin, end in zip(begins, [*ends, len(text)], strict=True)]


def _targets(text: str) -> list[tuple[str, str]]:
    """List what a statement changes by itself: the letter of the operation, and the relation."""
    try:
        tree = json.loads(parser.parse_sql_json(text))
    except (parser.ParseError, ValueError):
        return []
    return list(dict.fromkeys(_changed(tree)))


def _changed(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from _changed(item)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind in _DML:
                yield _DML[kind], _name(body.get("relation", {}))
            elif kind == "MergeStmt":
                does = [clause["MergeWhenClause"]["commandType"] for clause in body.get("mergeWhenClauses", [])]
                yield from ((_MERGE[word], _name(body.get("relation", {}))) for word in does if word in _MERGE)
            elif kind == "TruncateStmt":
                yield from (("t", _name(item.get("RangeVar", {}))) for item in body.get("relations", []))
            if kind not in _NOT_RUN:
                yield from _changed(body)


def _name(table: Mapping[str, Any]) -> str:
    from pgwitness.core.events import qualified, quote_identifier

    name, schema = str(table.get("relname", "?")), table.get("schemaname")
    return qualified(str(schema), name) if schema else quote_identifier(name)


def _tag(known: StatementFacts) -> str:
    """Give the command tag of a statement that event triggers would tell; empty for any other."""
    word = known.operations[0] if known.operations else ""
    verb = word.partition("_")[0]
    if verb not in ("create", "alter", "drop", "grant", "revoke", "rename", "comment", "refresh", "security"):
        return ""
    if any(name in word for name in _UNTOLD):
        return ""
    if verb in ("grant", "revoke"):
        return verb.upper()
    return word.replace("rename_", "alter_").replace("_", " ").upper()


_UNTOLD = ("role", "database", "tablespace", "event_trigger", "system", "user_mapping")
"""Objects of which no event trigger tells (docs/reference/events.md)."""


def field_of(text: str) -> tuple[str, object]:
    """Read `NAME=VALUE`. Raises `ConfigurationError` for a name that the language does not have."""
    from detectors.policy.typecheck import near

    name, separator, value = text.partition("=")
    if not separator or name not in SCHEMA:
        raise ConfigurationError(f"--with {text}: NAME=VALUE, and {name!r} is no field; {near(name, sorted(SCHEMA))}")
    sort = SCHEMA[name].type
    if sort == "string":
        return name, value
    if sort == "list of string" and not value.startswith("["):
        return name, value.split(",") if value else []
    try:
        return name, json.loads(value)
    except ValueError:
        raise ConfigurationError(f"--with {name}: {value!r} is no {sort}; write it as JSON") from None


def outcomes() -> tuple[str, ...]:
    """Give the outcomes there are."""
    return tuple(get_args(Outcome))
