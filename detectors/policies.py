"""Policies as code: YAML in, a checked and hashed `Bundle` out; docs/reference/policies.md describes the format.

Loading is strict, because a policy that silently never fires is worse than none: unknown keys, unknown names in
`when` or `message`, a missing positive or negative test and an id used twice are a `ConfigurationError` that names
the file and the policy. The bundle's SHA-256 is over what the policies mean, not over comments or file names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import yaml
from msgspec import Struct

from detectors.actions import KINDS, SCHEMA, Action
from detectors.expressions import Context, Expression
from pgwitness.errors import ConfigurationError
from pgwitness.events import Kind
from pgwitness.units import Duration

Severity = Literal["info", "low", "medium", "high", "critical"]

_ID = re.compile(r"[a-z][a-z0-9_]{1,63}")
_ATTACK = re.compile(r"T\d{4}(\.\d{3})?")
_PLACE = re.compile(r"\{([^{}]*)\}")
VALUE_MAX = 200
"""Characters of one value in a message; a list shows its first five items."""


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test beside the policy: this action must match, or must not."""

    name: str
    match: bool
    action: dict[str, Any]


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy as it is written."""

    id: str
    title: str
    description: str
    severity: Severity
    kinds: list[Kind]
    when: str
    message: str
    runbook: str
    tests: list[Case]
    attack: list[str] = []
    dedup_by: list[str] = msgspec.field(default_factory=lambda: ["cluster", "principal.name", "role"])
    window: str = "1h"
    mode: Literal["staged", "active"] = "active"


class Policy:
    """A policy that can be asked; `window_us` is how long repeats of the same key are one finding."""

    def __init__(self, document: Document, origin: str = "") -> None:
        """Check a document; raises `ConfigurationError` naming `origin` and the policy."""
        self.document = document
        self.id = document.id
        self.origin = origin
        _require(_ID.fullmatch(document.id), self, "id: lower case, digits and _, 2 to 64 characters")
        _require(document.kinds, self, "kinds: at least one")
        for technique in document.attack:
            _require(_ATTACK.fullmatch(technique), self, f"attack: {technique!r} is no technique such as T1078.004")
        for path in document.dedup_by:
            _require(path in SCHEMA, self, f"dedup_by: {path!r} is no field of actions")
        for name in _PLACE.findall(document.message):
            _require(_known_place(name), self, f"message: {{{name}}} is no field of actions")
        _require(any(case.match for case in document.tests), self, "tests: one with `match: true` is needed")
        _require(any(not case.match for case in document.tests), self, "tests: one with `match: false` is needed")
        try:
            self.window_us = int(Duration.parse(document.window) * 1_000_000)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: window: {error}") from None
        _require(self.window_us > 0, self, "window: longer than nothing")
        try:
            self.when = Expression(document.when)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: when: {error}") from None
        for case in document.tests:
            try:
                action_from(case.action, document.kinds[0])
            except ValueError as error:
                raise ConfigurationError(f"{self.place}: test {case.name!r}: {error}") from None
        self._dedup = tuple(SCHEMA[path].attribute for path in document.dedup_by)

    @property
    def place(self) -> str:
        """Say where the policy stands, for messages."""
        return f"{self.origin or 'policy'}: {self.id}"

    def key(self, action: Action) -> str:
        """Give what repeats of the same finding have in common."""
        values = [getattr(action, attribute) for attribute in self._dedup]
        return json.dumps(values, default=str, sort_keys=True)

    def message(self, action: Action) -> str:
        """Write the sentence for a person; a value that is not there reads `?`."""
        return render(self.document.message, action)


class Failure(Struct, frozen=True):
    """A test of a policy that did not come out as written."""

    policy: str
    test: str
    problem: str


class Bundle:
    """All policies of an installation, by kind; `sha256` names exactly this set of meanings."""

    def __init__(self, policies: list[Policy]) -> None:
        """Put policies together; raises `ConfigurationError` when two have the same id."""
        self.policies: dict[str, Policy] = {}
        for policy in sorted(policies, key=lambda p: p.id):
            if other := self.policies.get(policy.id):
                raise ConfigurationError(f"{policy.place}: the id is used in {other.origin} too; ids are unique")
            self.policies[policy.id] = policy
        canonical = [msgspec.to_builtins(policy.document) for policy in self.policies.values()]
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
        self.sha256 = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        self.by_kind: dict[str, tuple[Policy, ...]] = {
            kind: tuple(p for p in self.policies.values() if kind in p.document.kinds) for kind in KINDS
        }

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read one file, or every `*.yaml` and `*.yml` below a folder. Raises `ConfigurationError`."""
        if path.is_dir():
            files = sorted(p for suffix in ("*.yaml", "*.yml") for p in path.rglob(suffix))
        elif path.exists():
            files = [path]
        else:
            raise ConfigurationError(f"policies.path: {path} does not exist; `pgwitness init` writes the packaged ones")
        policies: list[Policy] = []
        for file in files:
            try:
                policies += parse(file.read_text(encoding="utf-8"), str(file))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{file}: cannot be read: {error}") from error
        return cls(policies)

    @classmethod
    def packaged(cls) -> Bundle:
        """Give the policies that come with pgwitness."""
        return cls([policy for name, text in packaged_files().items() for policy in parse(text, name)])

    def run_tests(self) -> list[Failure]:
        """Run the tests that stand in the policies; an empty list says that all hold."""
        failures: list[Failure] = []
        for policy in self.policies.values():
            for case in policy.document.tests:
                action = action_from(case.action, policy.document.kinds[0])
                prepared = Context(policy.when.paths).of(action)
                result = prepared if isinstance(prepared, str) else policy.when.evaluate(prepared)
                applies = action.kind in policy.document.kinds
                if isinstance(result, str):
                    failures.append(Failure(policy.id, case.name, f"could not be evaluated: {result}"))
                elif (result and applies) != case.match:
                    failures.append(Failure(policy.id, case.name, "matched" if result else "did not match"))
        return failures


def packaged_files() -> dict[str, str]:
    """Give the packaged policy files, by name, so that they can be written somewhere and changed."""
    folder = resources.files("detectors") / "pack"
    return {
        item.name: item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda i: i.name)
        if item.name.endswith(".yaml")
    }


def parse(text: str, origin: str) -> list[Policy]:
    """Read the policies of one file, one YAML document each. Raises `ConfigurationError` naming `origin`."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{origin}: not YAML: {error}") from error
    policies = []
    for number, document in enumerate(documents, 1):
        name = document.get("id", f"document {number}") if isinstance(document, dict) else f"document {number}"
        try:
            policies.append(Policy(msgspec.convert(document, Document), origin))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{origin}: {name}: {error}") from None
    return policies


def action_from(fields: Mapping[str, Any], kind: str) -> Action:
    """Make an action from a test's fields, written as expressions name them. Raises `ValueError` on unknown ones."""
    flat: dict[str, Any] = {"kind": kind}
    for key, value in fields.items():
        if key in SCHEMA:
            flat[SCHEMA[key].attribute] = value
        elif isinstance(value, dict) and any(path.startswith(f"{key}.") for path in SCHEMA):
            for name, inner in value.items():
                if f"{key}.{name}" not in SCHEMA:
                    raise ValueError(f"{key}.{name} is no field of actions")
                flat[SCHEMA[f"{key}.{name}"].attribute] = inner
        else:
            raise ValueError(f"{key} is no field of actions")
    if "rows" in flat and "rows_per_call" not in flat:
        flat["rows_per_call"] = int(flat["rows"]) // max(1, int(flat.get("calls", 1)))
    try:
        return msgspec.convert(flat, Action)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def who(action: Action) -> str:
    """Name the one who acted, as a sentence would."""
    name = action.principal or (f"somebody as role {action.role}" if action.role else "somebody unknown")
    return f"{name} (for {action.on_behalf_of})" if action.on_behalf_of else name


def what(action: Action) -> object:
    """Name what was acted on: relations, else the object of a posture, else the database."""
    return action.relations or action.object_name or action.database


def render(template: str, action: Action) -> str:
    """Fill a message; total: any action and any template give a text without control characters."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("who", "what"):
            return show(who(action) if name == "who" else what(action))
        if field := SCHEMA.get(name):
            return show(getattr(action, field.attribute))
        group, _, key = name.partition(".")
        holder = SCHEMA.get(group) or SCHEMA.get(".".join(name.split(".")[:2]))
        inside = getattr(action, holder.attribute) if holder else None
        return show(inside.get(name.rsplit(".", 1)[-1] if holder else key)) if isinstance(inside, Mapping) else "?"

    return _PLACE.sub(value, template)


def show(value: object) -> str:
    """Write a value for a person: short, printable, on one line."""
    if value is None or value in ("", [], {}):
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        listed = ", ".join(show(item) for item in value[:5])
        return f"{listed} and {len(value) - 5} more" if len(value) > 5 else listed
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    text = "".join(c if c.isprintable() else " " for c in text[:VALUE_MAX])
    return text + "…" if len(text) == VALUE_MAX else text


def _known_place(name: str) -> bool:
    if name in ("who", "what") or name in SCHEMA:
        return True
    group = name.rpartition(".")[0]
    return group in ("labels", "detail", "object.before", "object.after")


def _require(condition: object, policy: Policy, problem: str) -> None:
    if not condition:
        raise ConfigurationError(f"{policy.place}: {problem}")


def severities() -> tuple[Severity, ...]:
    """Give the severities from the least to the most."""
    return cast(tuple[Severity, ...], Severity.__args__)  # type: ignore[attr-defined]
