"""From what an alert told to a policy that would have refused it, with its tests: a draft, for a person to widen; pure.

It is as narrow as what was told: this principal, these relations, these operations. Where rows are what it was about,
it limits them. It is staged, so that what it would stop can be counted before it stops anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml
from msgspec import Struct

from detectors.policy.files import parse
from detectors.policy.occurring import statement_words
from pgwitness.core.sql.statements import facts

DRAWN: Final = ("statement", "query_stats", "change", "ddl")
"""Kinds of actions that are statements, or come of one: a gateway or a guard can refuse it."""
_COUNTED: Final = frozenset({"update", "delete"})
_PLAIN: Final = re.compile(r"[^a-z0-9]+")
_NAMES_MAX: Final = 20


class Told(Struct, frozen=True, kw_only=True):
    """What an alert told of its action, as its record has it."""

    uid: str
    title: str
    message: str
    severity: str
    kind: str
    principal: str
    principal_kind: str
    role: str
    relations: tuple[str, ...]
    operation: str
    operations: tuple[str, ...]
    where: str
    rows: int | None
    policy: str
    runbook: str
    owner: str | None
    attack: tuple[str, ...]


def told(alert: Mapping[str, Any]) -> Told:
    """Read an alert (OCSF). Raise `ValueError` where what it told is nothing that could have been refused."""
    said, info = _object(alert.get("unmapped")), _object(alert.get("finding_info"))
    kind = str(said.get("kind") or "")
    if kind not in DRAWN:
        raise ValueError(f"it tells of a {kind or 'finding'}, and only statements can be refused before they are done")
    evidences = alert.get("evidences")
    evidence = _object(evidences[0]) if isinstance(evidences, list) and evidences else {}
    detail = _object(_object(evidence.get("data")).get("detail"))
    known = facts(str(said.get("statement") or ""), freed=True)
    operations = [str(word) for word in detail.get("operations") or known.operations]
    severity = str(alert.get("severity") or "").lower()
    attacks = [_object(_object(one).get("technique")).get("uid") for one in info.get("attacks") or ()]
    found = Told(
        uid=str(info.get("uid") or ""),
        title=str(info.get("title") or ""),
        message=str(alert.get("message") or ""),
        severity="info" if severity == "informational" else severity,
        kind=kind,
        principal=str(said.get("principal") or ""),
        principal_kind=str(said.get("principal_kind") or "unknown"),
        role=str(said.get("role") or ""),
        relations=tuple(str(name) for name in said.get("relations") or ())[:_NAMES_MAX],
        operation=str(said.get("operation") or ""),
        operations=tuple(word for word in operations if word in statement_words()),
        where=str(detail.get("where") or known.where or ""),
        rows=said.get("rows") if isinstance(said.get("rows"), int) else None,
        policy=str(said.get("policy") or said.get("detector") or "alert"),
        runbook=str(said.get("runbook") or ""),
        owner=said.get("owner") if isinstance(said.get("owner"), str) else None,
        attack=tuple(str(one) for one in attacks if one),
    )
    if not found.principal and not found.role:
        raise ValueError("it names neither a principal nor a role, so nobody could have been refused")
    if not _words(found):
        raise ValueError("it does not tell what was done, so that a policy would refuse everything")
    return found


def draft(alert: Told, *, active: bool = False) -> str:
    """Write the policy as YAML. Raise `ValueError` where it does not match what was told: then it is no use."""
    words = _words(alert)
    most = _most(alert, words)
    document: dict[str, Any] = {
        "id": _id(alert),
        "title": f"Drafted: {alert.title}"[:200],
        "description": f"Would have refused what the alert {alert.uid} told: {alert.message}",
        "severity": alert.severity if alert.severity in ("low", "medium", "high", "critical") else "medium",
        **({"attack": list(dict.fromkeys(alert.attack))} if alert.attack else {}),
        "kinds": ["statement", *([alert.kind] if alert.kind != "statement" else [])],
        "when": _condition(alert, words, most),
        "mode": "active" if active else "staged",
        "effect": "deny" if most is None else "limit",
        **({} if most is None else {"max_rows": most}),
        "message": "{who} {done:ran|run} " + ", ".join(words).replace("_", " ") + " on {what} in {where}",
        **({"hint": f"If it has to be done, ask {alert.owner}."} if alert.owner else {}),
        "runbook": alert.runbook or "Read what was asked for, and ask whoever asked.",
        "tests": _tests(alert, words, most),
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    for policy in parse(text, "draft"):
        for failure in (policy.run_case(case) for case in policy.document.tests):
            if failure is not None:
                raise ValueError(f"the draft {failure.problem} in its test {failure.test!r}; write it by hand")
    return text


def _words(alert: Told) -> list[str]:
    """List the operations that the policy is about: of a change the rows', of DDL the command's."""
    if alert.kind == "change":
        return [alert.operation]
    if alert.operations:
        return list(dict.fromkeys(alert.operations))[:_NAMES_MAX]
    word = alert.operation.lower().replace(" ", "_")
    return [word] if word in statement_words() else []


def _most(alert: Told, words: Sequence[str]) -> int | None:
    """Return how many rows are to be let pass, where rows are what it is about: the next 1, 2 or 5 below."""
    bare = alert.where in ("none", "useless")
    if alert.rows is None or alert.rows < 2 or bare or not set(words) <= _COUNTED:
        return None
    scale = 10 ** (len(str(alert.rows)) - 1)
    return next(step for step in (5 * scale, 2 * scale, scale, scale // 2 or 1) if step < alert.rows)


def _condition(alert: Told, words: Sequence[str], most: int | None) -> str:
    who = f"principal.name == {_text(alert.principal)}" if alert.principal else f"role == {_text(alert.role)}"
    does = f"statement.operations.exists(o, o in {_list(words)})"
    if alert.kind in ("change", "ddl"):
        done = f"operation == {_text(alert.operation)}"
        does = f'(kind == "{alert.kind}" ? {done} : {does})'
    parts = [who, does]
    if alert.relations:
        parts.append(f"relations.exists(r, r in {_list(alert.relations)})")
    if alert.where in ("none", "useless") and alert.kind != "change":
        parts.append('statement.where in ["none", "useless"]')
    if most is not None:
        parts.append(f"(asked || rows > {most})")
    return " && ".join(parts)


def _tests(alert: Told, words: Sequence[str], most: int | None) -> list[dict[str, Any]]:
    statement: dict[str, Any] = {"operations": list(words)}
    if alert.where:
        statement["where"] = alert.where
    action: dict[str, Any] = {
        "kind": "statement",
        "relations": list(alert.relations),
        "principal": {"name": alert.principal, "kind": alert.principal_kind},
        "role": alert.role,
        "statement": statement,
        "asked": True,
    }
    found = [{"name": "what the alert told, before it runs", "match": True, "action": action}]
    if alert.kind != "statement" and alert.kind != "query_stats":
        rows = {"rows": alert.rows} if alert.rows is not None else {}
        done = {"kind": alert.kind, "operation": alert.operation, "relations": list(alert.relations)}
        whose = {"principal": action["principal"], "role": alert.role}
        found.append({"name": "what the alert told", "match": True, "action": {**done, **whose, **rows}})
    other = {**action, "principal": {"name": "somebody-else", "kind": alert.principal_kind}, "role": "another_role"}
    found.append({"name": "somebody else", "match": False, "action": other})
    if alert.relations:
        found.append({"name": "elsewhere", "match": False, "action": {**action, "relations": ["public.elsewhere_"]}})
    if most is not None:
        few = {**action, "asked": False, "rows": most}
        found.append({"name": "as many rows as may be", "match": False, "action": few})
    return found


def _id(alert: Told) -> str:
    parts = ("stop", alert.policy.removeprefix("policy:"), alert.principal or alert.role)
    name = "_".join(_PLAIN.sub("_", part.lower()).strip("_") for part in parts)
    return f"{name[:52]}_{_PLAIN.sub('', alert.uid.lower())[:8]}".rstrip("_")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
