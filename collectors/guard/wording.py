"""What the guard tells whom it refuses, as SQL: the same sentence that the gateway says (`detectors.wording`); pure.

A message is filled in when it is needed, from the names that the guard's function has. What a trigger does not know
reads `?`, as at the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from collectors.guard.expressions import UNKNOWN, Sql, Value, sql
from collectors.guard.names import text
from collectors.guard.wanted import RUN_TIME
from detectors.gatekeeper import MESSAGE_CHARS_MAX
from detectors.policy.policy import Policy
from detectors.vocabulary import SCHEMA as LANGUAGE
from detectors.wording import PLACE, show

SHOWN = """\
CREATE OR REPLACE FUNCTION pgwitness_guard.shown(value text) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $pgwitness$
SELECT CASE WHEN coalesce(value, '') = '' THEN '?' WHEN length(value) < 200
    THEN regexp_replace(value, '[[:cntrl:]]', ' ', 'g')
    ELSE regexp_replace(left(value, 200), '[[:cntrl:]]', ' ', 'g') || U&'\\2026' END
$pgwitness$"""
"""Shortens a value and keeps control characters out, as `detectors.wording.show` does."""

LISTED = """\
CREATE OR REPLACE FUNCTION pgwitness_guard.listed(items text[]) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $pgwitness$
SELECT CASE WHEN coalesce(cardinality(items), 0) = 0 THEN NULL ELSE
    (SELECT string_agg(pgwitness_guard.shown(i.v), ', ' ORDER BY i.n)
        FROM unnest(items[1:5]) WITH ORDINALITY AS i (v, n))
    || CASE WHEN cardinality(items) > 5 THEN format(' and %s more', cardinality(items) - 5) ELSE '' END END
$pgwitness$"""
"""Writes a list, its first five items; null for an empty one."""

_WHAT: Final = (
    "CASE WHEN the_relations IS NULL THEN 'what it names'"
    " ELSE coalesce(pgwitness_guard.listed(the_relations), pgwitness_guard.shown(current_database()::text)) END"
)
"""What is acted on; of what event triggers do not tell, its name is not known."""
WHO: Final = (
    "(CASE the_kind WHEN 'agent' THEN 'the AI agent ' WHEN 'service' THEN 'the service ' ELSE '' END"
    " || coalesce(nullif(the_principal, ''), 'somebody with the role ' || the_role)"
    " || CASE WHEN the_person <> '' THEN format(' (for %s)', the_person) ELSE '' END)"
)
"""Who acts. Of one who is not known the kind is not told, as it is not known either."""
_ROWS: Final = "an unknown number of rows"


def message(policy: Policy, fixed: Mapping[str, Value]) -> str:
    """Write the policy's message as SQL, as long as a verdict's message may be."""
    template = policy.document.message
    parts, end = [], 0
    for place in PLACE.finditer(template):
        parts += [text(template[end : place.start()])] if place.start() > end else []
        parts.append(_place(place[1], fixed))
        end = place.end()
    parts += [text(template[end:])] if end < len(template) else []
    said = "concat(" + ", ".join(parts) + ")"
    return f"pgwitness_guard.sentence(left({said}, {MESSAGE_CHARS_MAX}), {sql(not template.startswith('{'))})"


SENTENCE = r"""
CREATE OR REPLACE FUNCTION pgwitness_guard.sentence(said text, ours boolean) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $pgwitness$
SELECT CASE WHEN ours OR said ~ '^(the AI agent |the service |somebody )' THEN upper(left(said, 1)) || substr(said, 2)
    ELSE said END
$pgwitness$""".lstrip()
"""Begins a sentence with a capital letter, but never changes a name that stands there."""


def _did() -> str:
    tried = {
        "insert": f"'asked to add {_ROWS} to '",
        "update": f"'asked to update {_ROWS} of '",
        "delete": f"'asked to delete {_ROWS} from '",
        "truncate": "'asked to empty '",
    }
    cases = " ".join(f"WHEN '{one}' THEN {said} || {_WHAT}" for one, said in tried.items())
    other = f"format('asked to run %s on %s ({_ROWS})', the_operations[1], {_WHAT})"
    return f"(CASE the_operations[1] {cases} ELSE {other} END)"


_PHRASES: Final[dict[str, Callable[[Mapping[str, Value]], str]]] = {
    "who": lambda _: f"pgwitness_guard.shown({WHO})",
    "what": lambda _: _WHAT,
    "where": lambda fixed: f"format('database %s of cluster %s', current_database(), {text(str(fixed['cluster']))})",
    "did": lambda _: _did(),
    "share": lambda _: _did(),
    "result": lambda _: "'it has not run'",
    "whether": lambda _: "''",
    "read": lambda _: "'read'",
    "unless_failed": lambda _: "''",
    "statement": lambda _: "'its text is not known'",
    "setting": lambda _: "'?'",
    "gained": lambda _: "''",
}


def _place(name: str, fixed: Mapping[str, Value]) -> str:
    name, _, noun = name.partition(":")
    if name == "done":
        return text(f"asked to {noun.split('|', 1)[-1]}")
    if name == "rows" and noun:
        return text(f"an unknown number of {noun}s")
    if name in _PHRASES:
        return _PHRASES[name](fixed)
    if name in LANGUAGE:
        value = {**fixed, **RUN_TIME}[name]
        return _shown(name, value)
    group, _, key = name.partition(".")
    holder = fixed.get(group)
    return text(show(holder.get(key)) if isinstance(holder, dict) else "?")


def _shown(name: str, value: Value) -> str:
    if value is UNKNOWN:
        return "'?'"
    if not isinstance(value, Sql):
        return text(show(list(value) if isinstance(value, tuple) else value))
    if LANGUAGE[name].type.startswith("list"):
        return f"coalesce(pgwitness_guard.listed({value.text}), '?')"
    return f"pgwitness_guard.shown(({value.text})::text)"


_SPACE = re.compile(r"\s+")


def why(policy: Policy) -> str:
    """Give the reason, as the gateway's DETAIL has it."""
    document = policy.document
    return f"{document.title}: {_SPACE.sub(' ', document.description).strip()}"[:MESSAGE_CHARS_MAX]


def hint(policy: Policy, labels: Mapping[str, str]) -> str:
    """Give what would be allowed, or whom to ask, as the gateway's HINT has it."""
    owner = labels.get("owner")
    whom = f"ask {owner}" if owner else "ask whoever keeps the policies of this database"
    return policy.document.hint or f"If it has to be done, {whom}; name the policy {policy.id}."
