"""Policies as code: YAML in, a checked and hashed `Bundle` out; docs/reference/policies.md describes the format.

Loading is strict, because a policy that silently never fires is worse than none: unknown keys, unknown names in
`when` or `message`, a missing positive or negative test and an id used twice are a `ConfigurationError` that names
the file and the policy. The bundle's SHA-256 is over what the policies mean, not over comments or file names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from detectors.actions import HOUR_US, KINDS, SCHEMA, UNDONE, Action
from detectors.policy import details, occurring
from detectors.policy.absence import NEVER_US
from detectors.policy.calendars import FILES, Calendar, Calendars
from detectors.policy.calendars import NONE as NO_CALENDARS
from detectors.policy.calendars import read as calendars_of
from detectors.policy.calendars import zone as calendar_zone
from detectors.policy.correlation import Correlations, Plan
from detectors.policy.document import DEDUP_BY, Case, Document, Severity, severities
from detectors.policy.expressions import Context, Expression
from detectors.policy.occurring import CLOSED
from detectors.policy.reads import joined
from detectors.wording import PLACE, Seen, known_place, render, show, what, who
from pgwitness.core import yamltext
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration

__all__ = ["Bundle", "Case", "Document", "Failure", "Policy", "Severity", "action_from", "packaged_files", "parse"]
__all__ += ["render", "severities", "show", "what", "who"]

_ID = re.compile(r"[a-z][a-z0-9_]{1,63}")
_ATTACK = re.compile(r"T\d{4}(\.\d{3})?")
FAR_BACK_US = -(2**62)
"""Before all that tests speak of."""
REPEAT_MAX = 10_000
"""How often a test may repeat an action."""


class Policy:
    """A policy that can be asked.

    `conditions` are what it asks of one action: its `when`, or the steps of its sequence. `plan` is what it asks of
    several together, None when one is enough. `window_us` is how long repeats of the same key are one finding.
    """

    def __init__(self, document: Document, origin: str = "", calendars: Calendars = NO_CALENDARS) -> None:
        """Check a document; raises `ConfigurationError` naming `origin` and the policy."""
        self._calendars = calendars
        self.document = document
        self.id = document.id
        self.origin = origin
        _require(_ID.fullmatch(document.id), self, "id: lower case, digits and _, 2 to 64 characters")
        _require(document.kinds, self, "kinds: at least one")
        for technique in document.attack:
            _require(_ATTACK.fullmatch(technique), self, f"attack: {technique!r} is no technique such as T1078.004")
        try:
            self.plan = Plan.of(document)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: {error}") from None
        _require(document.when or document.sequence, self, "when: a condition is needed")
        self.dedup_by = document.dedup_by or self._by() or DEDUP_BY
        for path in self.dedup_by:
            _require(path in SCHEMA, self, f"dedup_by: {path!r} is no field of actions")
        for name in PLACE.findall(document.message):
            known = known_place(name, correlates=self.plan is not None) and self._held(name)
            _require(known, self, f"message: {{{name}}} is no field of actions")
        _require(any(case.match for case in document.tests), self, "tests: one with `match: true` is needed")
        _require(any(not case.match for case in document.tests), self, "tests: one with `match: false` is needed")
        try:
            self.window_us = int(Duration.parse(document.window) * 1_000_000)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: window: {error}") from None
        _require(self.window_us > 0, self, "window: longer than nothing")
        try:
            calendar_zone(document.zone)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: zone: {error}") from None
        self.conditions = tuple(self._compile(where, source) for where, source in self._sources())
        for case in document.tests:
            try:
                for _ in actions_of(case, document.kinds[0]):
                    pass
            except ValueError as error:
                raise ConfigurationError(f"{self.place}: test {case.name!r}: {error}") from None
        for word in document.severity_of:
            known = word in CLOSED["outcome"] or occurring.never("operation", word, document.kinds) is None
            _require(known, self, f"severity_of: {word!r} is neither an outcome nor an operation of {document.kinds}")
        self._dedup = tuple(SCHEMA[path].attribute for path in self.dedup_by)

    def _held(self, place: str) -> bool:
        """Say whether a place of the message can hold anything in actions of its kinds."""
        group, _, name = place.partition(".")
        return group != "detail" or not name or details.found(self.document.kinds, name) is not None

    def _by(self) -> list[str] | None:
        correlated = self.document.threshold or self.document.sequence
        return correlated.by if correlated is not None else None

    def _sources(self) -> Iterator[tuple[str, str]]:
        """List the conditions with the name of their place; what a sequence's `when` says holds for every step."""
        document = self.document
        if document.sequence is None:
            yield "when", document.when or ""
            return
        for step in document.sequence.steps:
            yield f"step {step.name}", f"({document.when}) && ({step.when})" if document.when else step.when

    def _compile(self, where: str, source: str) -> Expression:
        try:
            document = self.document
            return Expression(source, document.parameters, document.kinds, document.zone, self._calendars)
        except ValueError as error:
            raise ConfigurationError(f"{self.place}: {where}: {error}") from None

    @property
    def place(self) -> str:
        """Say where the policy stands, for messages."""
        return f"{self.origin or 'policy'}: {self.id}"

    def key(self, action: Action) -> str:
        """Give what repeats of the same finding have in common."""
        values = [getattr(action, attribute) for attribute in self._dedup]
        if action.outcome in UNDONE:  # what was tried in vain is another finding than what was done
            values.append("tried")
        return json.dumps(values, default=str, sort_keys=True)

    def message(self, action: Action, seen: Seen | None = None) -> str:
        """Write the sentence for a person; a value that is not there reads `?`."""
        return render(self.document.message, action, seen)

    @property
    def paths(self) -> frozenset[str]:
        """The names of `SCHEMA` that its conditions read."""
        return frozenset(path for condition in self.conditions for path in condition.paths)

    def run_case(self, case: Case) -> Failure | None:
        """Run one of its tests; None says that it came out as written."""
        correlations = Correlations([self.plan] if self.plan else [], since_us=FAR_BACK_US)
        correlations.begin(FAR_BACK_US)
        context = Context(self.paths, joined(condition.keys for condition in self.conditions), self._calendars)
        matched = False
        clusters: set[str] = set()
        for action in actions_of(case, self.document.kinds[0]):
            clusters.add(action.cluster)
            prepared = context.of(action)
            results = [prepared if isinstance(prepared, str) else c.evaluate(prepared) for c in self.conditions]
            if action.kind not in self.document.kinds:
                matched = False
                continue
            if failed := [result for result in results if isinstance(result, str)]:
                return Failure(self.id, case.name, f"could not be evaluated: {failed[0]}")
            met = [step for step, result in enumerate(results) if result]
            matched = bool(met) and (self.plan is None or correlations.see(self.id, met, action) is not None)
        if self.plan is not None and self.plan.after:
            matched = any(correlations.due(cluster, NEVER_US) for cluster in clusters)
        return None if matched == case.match else Failure(self.id, case.name, "matched" if matched else "did not match")


class Failure(Struct, frozen=True):
    """A test of a policy that did not come out as written."""

    policy: str
    test: str
    problem: str


class Bundle:
    """All policies of an installation, by kind; `sha256` names exactly this set of meanings."""

    def __init__(self, policies: list[Policy], calendars: Calendars = NO_CALENDARS) -> None:
        """Put policies together; raises `ConfigurationError` when two have the same id."""
        self.calendars = calendars
        self.policies: dict[str, Policy] = {}
        for policy in sorted(policies, key=lambda p: p.id):
            if other := self.policies.get(policy.id):
                raise ConfigurationError(f"{policy.place}: the id is used in {other.origin} too; ids are unique")
            self.policies[policy.id] = policy
        self.sha256 = hashlib.sha256(self.canonical().encode("utf-8", "backslashreplace")).hexdigest()
        self.by_kind: dict[str, tuple[Policy, ...]] = {
            kind: tuple(p for p in self.policies.values() if kind in p.document.kinds) for kind in KINDS
        }

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read one file, or every `*.yaml` and `*.yml` below a folder. Raises `ConfigurationError`."""
        calendars = read_calendars(path)
        policies: list[Policy] = []
        for file, text in read_folder(path):
            policies += parse(text, str(file), calendars)
        return cls(policies, calendars)

    @classmethod
    @cache
    def packaged(cls) -> Bundle:
        """Give the policies that come with pgwitness; the same bundle each time, which takes half a second to make."""
        return cls([policy for name, text in packaged_files().items() for policy in parse(text, name)])

    def run_tests(self) -> list[Failure]:
        """Run the tests that stand in the policies; an empty list says that all hold."""
        cases = ((policy, case) for policy in self.policies.values() for case in policy.document.tests)
        return [failure for policy, case in cases if (failure := policy.run_case(case)) is not None]

    def plans(self) -> Iterator[Plan]:
        """List what policies ask of several actions together."""
        return (policy.plan for policy in self.policies.values() if policy.plan is not None)

    def canonical(self) -> str:
        """Write the policies as the text that the hash is of; `from_canonical` reads it again."""
        documents: Any = [msgspec.to_builtins(policy.document) for policy in self.policies.values()]
        if self.calendars.names:
            documents = {"policies": documents, "calendars": msgspec.to_builtins(self.calendars.written)}
        return json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)

    @classmethod
    def from_canonical(cls, text: str) -> Bundle:
        """Make a bundle from its canonical text. Raises `ConfigurationError` when this release cannot use it."""
        try:
            found = msgspec.json.decode(text, type=list[Document] | _Recorded)
            recorded = found if isinstance(found, _Recorded) else _Recorded(found)
            calendars = Calendars(recorded.calendars)
        except (msgspec.DecodeError, UnicodeEncodeError, ValueError) as error:
            raise ConfigurationError(f"recorded policies: {error}") from None
        return cls([Policy(document, "recorded policies", calendars) for document in recorded.policies], calendars)


class _Recorded(Struct, frozen=True):
    """A bundle with calendars, as it is recorded."""

    policies: list[Document]
    calendars: dict[str, Calendar] = {}


def packaged_files() -> dict[str, str]:
    """Give the packaged policy files, by name, so that they can be written somewhere and changed."""
    folder = resources.files("detectors") / "pack"
    return {
        item.name: item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda i: i.name)
        if item.name.endswith(".yaml")
    }


def read_folder(path: Path) -> Iterator[tuple[Path, str]]:
    """Read one file, or every `*.yaml` and `*.yml` below a folder, in order. Raises `ConfigurationError`."""
    for file in policy_files(path):
        yield file, _text_of(file)


def policy_files(path: Path) -> list[Path]:
    """List the files of policies that a path names, in order. Raises `ConfigurationError` when there is none."""
    if path.is_dir():
        found = sorted(p for suffix in ("*.yaml", "*.yml") for p in path.rglob(suffix))
        files = [file for file in found if file.name not in FILES]
    elif path.exists():
        files = [path]
    else:
        raise ConfigurationError(f"policies.path: {path} does not exist; `pgwitness init` writes the packaged ones")
    if not files:
        raise ConfigurationError(
            f"policies.path: {path} has no *.yaml and no *.yml: nothing would be judged; "
            "`pgwitness init` writes the packaged policies"
        )
    return files


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error


def read_calendars(path: Path) -> Calendars:
    """Read the calendars in the folder of policies, or beside the one file. Raises `ConfigurationError`."""
    folder = path if path.is_dir() else path.parent
    files = [file for name in FILES if (file := folder / name).exists()]
    if len(files) > 1:
        raise ConfigurationError(f"{files[1]}: {files[0].name} is there too; one file has all calendars")
    try:
        return calendars_of(yamltext.load(_text_of(files[0]))) if files else NO_CALENDARS
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{files[0]}: {' '.join(str(error).split())}") from None


def parse(text: str, origin: str, calendars: Calendars = NO_CALENDARS) -> list[Policy]:
    """Read the policies of one file, one YAML document each. Raises `ConfigurationError` naming `origin`."""
    policies = []
    for found in _documents(text, origin, calendars):
        if isinstance(found, ConfigurationError):
            raise found
        policies.append(found)
    return policies


class Problem(Struct, frozen=True):
    """What is wrong with a policy, or with a file when `policy` is empty."""

    file: str
    policy: str
    reason: str


def lint(path: Path) -> tuple[list[Policy], list[Problem]]:
    """Check every policy of a file or folder, also behind a bad one. Raises `ConfigurationError` when there is none."""
    policies: dict[str, Policy] = {}
    problems: list[Problem] = []
    try:
        calendars = read_calendars(path)
    except ConfigurationError as error:
        name, _, reason = str(error).partition(": ")
        problems.append(Problem(name, "", reason))
        return [], problems
    for file in policy_files(path):
        for found in _of_file(file, calendars):
            if isinstance(found, ConfigurationError):
                reason = str(found).removeprefix(f"{file}: ")
                name, separator, rest = reason.partition(": ")
                named = bool(separator) and bool(_ID.fullmatch(name) or name.startswith("document "))
                problems.append(Problem(str(file), name if named else "", rest if named else reason))
            elif other := policies.get(found.id):
                problems.append(Problem(str(file), found.id, f"the id is used in {other.origin} too; ids are unique"))
            else:
                policies[found.id] = found
    return list(policies.values()), problems


def _of_file(file: Path, calendars: Calendars) -> Iterator[Policy | ConfigurationError]:
    try:
        yield from _documents(_text_of(file), str(file), calendars)
    except ConfigurationError as error:
        yield error


def _documents(text: str, origin: str, calendars: Calendars) -> Iterator[Policy | ConfigurationError]:
    try:
        documents = [document for document in yamltext.load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        said = f"line {where.line + 1}: {getattr(error, 'problem', '')}" if where is not None else str(error)
        yield ConfigurationError(f"{origin}: not YAML: {said}")
        return
    if not documents:
        yield ConfigurationError(f"{origin}: there is no policy in it; delete the file, or write one")
    for number, document in enumerate(documents, 1):
        name = document.get("id", f"document {number}") if isinstance(document, dict) else f"document {number}"
        try:
            yield Policy(msgspec.convert(document, Document), origin, calendars)
        except msgspec.ValidationError as error:
            yield ConfigurationError(f"{origin}: {name}: {error}")
        except ConfigurationError as error:
            yield error


def actions_of(case: Case, kind: str) -> Iterator[Action]:
    """Make the actions of a test. Raises `ValueError` that says what is wrong with it."""
    if (case.action is None) == (not case.actions):
        raise ValueError("one of action and actions is needed")
    number = 0
    begun_us = 0
    for fields in case.actions or [case.action or {}]:
        facts = dict(fields)
        if "time" in facts:
            begun_us = _moment_us(facts.pop("time"))
        try:
            at_us, every_us = (_duration_us(facts.pop(name, "0s")) for name in ("at", "every"))
        except ValueError as error:
            raise ValueError(f"at and every are times such as 90s: {error}") from None
        repeat = facts.pop("repeat", 1)
        if not isinstance(repeat, int) or not 1 <= repeat <= REPEAT_MAX:
            raise ValueError(f"repeat: 1 to {REPEAT_MAX}")
        flat = _flat(facts, kind)
        for place in range(repeat):
            action = _action(flat)
            action.occurred_at_us = action.captured_at_us = begun_us + at_us + place * every_us
            if begun_us:
                hours = action.occurred_at_us // HOUR_US
                action.hour, action.weekday = facts.get("hour", hours % 24), facts.get("weekday", (hours // 24 + 3) % 7)
            action.event_id = str(number)
            number += 1
            yield action


def _moment_us(text: object) -> int:
    """Read the `time` of a test's action, in UTC where it does not say."""
    try:
        found = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError:
        raise ValueError(f"time: {text!r} is no time such as 2026-03-29T01:30:00Z") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _duration_us(text: object) -> int:
    return 0 if text in (0, "0", "0s") else int(Duration.parse(str(text)) * 1_000_000)


def action_from(fields: Mapping[str, Any], kind: str) -> Action:
    """Make an action from a test's fields, written as expressions name them. Raises `ValueError` on unknown ones."""
    return _action(_flat(fields, kind))


def _flat(fields: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Give the attributes of a test's action, checked. Raises `ValueError`."""
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
    for path, schema in SCHEMA.items():
        value = flat.get(schema.attribute)
        for item in value if isinstance(value, list) else [value]:
            if path != "kind" and (said := occurring.never(path, item, [flat["kind"]])) is not None:
                raise ValueError(f"{path}: {said}")
    if "rows" in flat and "rows_per_call" not in flat:
        flat["rows_per_call"] = int(flat["rows"]) // max(1, int(flat.get("calls", 1)))
    return flat


def _action(flat: dict[str, Any]) -> Action:
    try:
        return msgspec.convert(flat, Action)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _require(condition: object, policy: Policy, problem: str) -> None:
    if not condition:
        raise ConfigurationError(f"{policy.place}: {problem}")
