"""What the policies say of a statement that has not run yet: pass it, pass it with a warning, or refuse it; pure.

The same policies that judge evidence, over the same action schema: those with `effect: deny`, `approve`, `limit` or
`warn` that are about statements. A staged one decides nothing: what it would have done stands in the verdict. What only
the end of a statement tells is not known here: `rows_known` is false, `outcome` is `unknown`, and `asked` says so. A
threshold or sequence looks at what was done, so it decides nothing before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from detectors.actions import Action, put_claim, put_facts
from detectors.policy.evaluator import Evaluator
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.policy.reads import TIMES
from detectors.sensitive import Sensitive
from detectors.vocabulary import SCHEMA
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.units import Duration

Effect = Literal["deny", "approve", "limit", "warn", "staged"]
UNREADABLE: Final = "unreadable"
"""Stands where a policy's id would, for what is refused because nobody can tell what it does."""
MESSAGE_CHARS_MAX: Final = 1_000
NAMES_MAX: Final = 20
_OF_TIME: Final = TIMES | {"hour", "weekday", "claim_age", "claim_left"}


class Terms(Struct, frozen=True):
    """What it takes to approve a statement: `needed` members of the groups; how long it waits, and how long it may be
    run afterwards (microseconds). `count` and `sample` say what of the rows that it chooses is looked at beforehand.
    """

    groups: list[str]
    needed: int
    wait_us: int
    use_us: int
    count: bool = False
    sample: int = 0


class Rate(Struct, frozen=True):
    """How many statements that a policy matches a principal may run in so many seconds."""

    policy: str
    most: int
    seconds: float


class Verdict(Struct, frozen=True, omit_defaults=True):
    """What is to become of a statement. `policies` are the ids of those that said so, the gravest first.

    `message` says what, `why` the reason, `hint` whom to ask or what would be allowed: sentences for whoever asked.
    `bundle` names the policies that were in force.
    """

    effect: Effect
    policies: list[str]
    message: str
    why: str
    hint: str
    bundle: str
    rows: int | None = None
    """With `limit` or `approve`: how many rows it may insert, or update and delete."""
    answered: int | None = None
    """Likewise: how many rows it may answer, where it reads."""
    bytes: int | None = None
    """Likewise: how many bytes it may answer."""
    seconds: float | None = None
    """Likewise: how long it may run."""
    rates: tuple[Rate, ...] = ()
    """Likewise: how many such statements its principal may run."""
    terms: Terms | None = None
    """With `approve`."""
    approval: str = ""
    """The request that it waits for, or by which it runs."""
    staged: dict[str, int] = {}
    """Staged policies that would have refused it, or have had it wait; of one that limits how many rows it allows, else
    -1. With the effect `staged` nothing else is said of it."""

    @property
    def reads(self) -> bool:
        """Whether what it answers is limited, or how long it runs."""
        return self.answered is not None or self.bytes is not None or self.seconds is not None


class Labels:
    """Words for columns (`[labels]`), by their patterns."""

    def __init__(self, patterns: Mapping[str, Sequence[str]]) -> None:
        self._labels = {label: Sensitive(list(columns)) for label, columns in sorted(patterns.items())}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._labels)

    def of(self, columns: Sequence[str], relations: Sequence[str]) -> list[str]:
        """List the labels that any of these columns carries, as a statement names them."""
        return [label for label, found in self._labels.items() if found.among(columns, relations)]


NO_LABELS: Final = Labels({})


class Gatekeeper:
    """Asks the policies of a bundle that decide; `timed` says that an answer may change as time goes on."""

    def __init__(self, bundle: Bundle, sensitive: Sensitive, labels: Labels = NO_LABELS) -> None:
        self._deciding = Bundle([policy for policy in bundle.policies.values() if decides(policy)], bundle.calendars)
        self._evaluator = Evaluator(self._deciding)
        staged = [policy for policy in bundle.policies.values() if decides(policy, "staged")]
        self._staged = Bundle([policy for policy in staged if policy.document.effect != "warn"], bundle.calendars)
        self._would = Evaluator(self._staged)
        self._sensitive = sensitive
        self._labels = labels
        self.sha256 = bundle.sha256
        every = [*self._deciding.policies.values(), *self._staged.policies.values()]
        read = {SCHEMA[path].attribute for policy in every for path in policy.paths}
        self.timed = not read.isdisjoint(_OF_TIME)
        messages = [policy.document.message for policy in self._deciding.policies.values()]
        self.intent = "intent" in read or any("{intent}" in message for message in messages)
        """Whether what a session is for may decide."""
        self.taint = "read_before" in read
        """Whether what a session has read before may."""
        self.labelled = bool(labels) and not read.isdisjoint({"reads", "read_before"})
        """Whether labels of what is read may."""

    def __len__(self) -> int:
        """Return how many policies decide, or would."""
        return len(self._deciding.policies) + len(self._staged.policies)

    def action(self, whose: Action, known: StatementFacts, at_us: int) -> Action:
        """Make the action of a statement that somebody asks for; `whose` has the facts of the session."""
        action = replace(whose, kind="statement", asked=True, rows_known=False, calls=1, outcome="unknown")
        put_facts(action, known)
        hours = at_us // 3_600_000_000
        action.hour, action.weekday = hours % 24, (hours // 24 + 3) % 7
        action.occurred_at_us = action.captured_at_us = at_us
        if "agent" in action.detail:
            put_claim(action, action.detail["agent"])
        if action.read_columns:
            action.sensitive = self._sensitive.among(action.read_columns, action.relations)
            action.reads = self._labels.of(action.read_columns, action.relations)
        return action

    def ask(self, action: Action) -> Verdict | None:
        """Return what the policies decide; None where none has anything against it.

        A policy that denies and cannot be evaluated refuses: whether it would have is not known. What staged policies
        would have done goes along with that, or alone.
        """
        verdict = self._decide(action)
        staged = self._would_have(action) if self._staged.policies else {}
        if not staged:
            return verdict
        if verdict is not None:
            return replace(verdict, staged=staged)
        return Verdict("staged", [], "", "", "", self.sha256, staged=staged)

    def _would_have(self, action: Action) -> dict[str, int]:
        """Return which staged policies match, each with the rows that it would have let pass, or -1."""
        found = sorted(self._would.ask(action).matched, key=_gravest)[:NAMES_MAX]
        limits = {one.id: one.document.max_rows for one in found if one.document.effect == "limit"}
        return {one.id: -1 if (rows := limits.get(one.id)) is None else rows for one in found}

    def _decide(self, action: Action) -> Verdict | None:
        """Return what the policies that are active decide."""
        matches = self._evaluator.ask(action)
        failed = [policy for policy, _ in matches.failed if policy.document.effect in ("deny", "approve")]
        found = [*matches.matched, *failed]
        if not found:
            return None
        denying = [policy for policy in found if policy.document.effect == "deny" or policy in failed]
        if denying:
            return self._verdict("deny", denying, action)
        approving = [policy for policy in found if policy.document.effect == "approve"]
        limiting = [policy for policy in found if policy.document.effect in ("limit", "approve")]
        if not limiting:
            return self._verdict("warn", found, action)
        return self._limited(approving, limiting, action)

    def _limited(self, approving: list[Policy], limiting: list[Policy], action: Action) -> Verdict | None:
        """Return the tightest of each limit, and the policies that set it, or who has to approve."""
        operations = set(action.operations)
        if not approving and operations and operations <= _CONTROL and not (action.relations or action.functions):
            return None  # BEGIN and COMMIT do nothing of which more could be too much
        least: dict[str, tuple[float, Policy]] = {}
        for policy in limiting:
            for name, most in policy.limits.by_name().items():
                if name not in least or most < least[name][0]:
                    least[name] = (most, policy)
        rates = tuple(
            Rate(policy.id, policy.limits.rate, policy.limits.rate_s)
            for policy in sorted(limiting, key=_gravest)
            if policy.limits.rate is not None
        )
        setting = {policy.id: policy for _, policy in least.values()}
        setting.update({policy.id: policy for policy in limiting if policy.limits.rate is not None})
        verdict = self._approve(approving, action) if approving else self._verdict("limit", [*setting.values()], action)
        if verdict.effect == "deny":
            return verdict
        rows, size, seconds = (least[name][1].limits if name in least else None for name in ("rows", "bytes", "time"))
        if rows is not None:
            why = None
            if not _COMMITS.isdisjoint(operations):
                why = "What commits as it runs could not be undone, so it is refused where a limit on rows holds."
            elif "truncate" in operations and len(approving) < len(limiting):
                why = "TRUNCATE takes all rows and counts none, so it is refused where a limit on rows holds."
            if why is not None:
                return replace(verdict, effect="deny", message=f"refused by {verdict.message}", why=why)
        return replace(
            verdict,
            rows=None if rows is None else rows.rows,
            answered=rows.rows if rows is not None and not operations.isdisjoint(_READS) else None,
            bytes=None if size is None else size.bytes,
            seconds=None if seconds is None else seconds.seconds,
            rates=rates,
        )

    def _approve(self, policies: list[Policy], action: Action) -> Verdict:
        """Return what it takes to satisfy all of these policies at once."""
        verdict = self._verdict("approve", policies, action)
        asked = [policy.document.approve for policy in policies if policy.document.approve is not None]
        sets = [[action.labels.get("owner", "") if name == "owner" else name for name in one.by] for one in asked]
        groups = [name for name in sets[0] if name and all(name in other for other in sets)]
        if not groups:
            why = "No group of approvers may decide for all of these policies, or the cluster has no label `owner`."
            return replace(verdict, effect="deny", message=f"refused: {verdict.message}", why=why)
        terms = Terms(
            groups=groups,
            needed=max(one.needed for one in asked),
            wait_us=min(_us(one.within) for one in asked),
            use_us=min(_us(one.use_within) for one in asked),
            count=all(one.count for one in asked),
            sample=min(one.sample for one in asked),
        )
        return replace(verdict, terms=terms)

    def unreadable(self, whose: Action, why: str) -> Verdict:
        """Return the refusal of a statement of which nobody can tell what it does."""
        return Verdict(
            effect="deny",
            policies=[UNREADABLE],
            message=f"refused, because it cannot be told what this statement does: {why}",
            why="What cannot be read cannot be judged, and is refused for this kind of principal.",
            hint=f"Write it as plain SQL, without text that is put together as it runs, or {_whom(whose.labels)}.",
            bundle=self.sha256,
        )

    def _verdict(self, effect: Effect, policies: list[Policy], action: Action) -> Verdict:
        policies = sorted(policies, key=_gravest)
        first = policies[0]
        said = first.message(action)[:MESSAGE_CHARS_MAX]
        ids = [policy.id for policy in policies][:NAMES_MAX]
        named = f"{'policy' if len(ids) == 1 else 'policies'} {', '.join(ids)}"
        return Verdict(
            effect=effect,
            policies=ids,
            message=f"{_DONE[effect]}{named}: {said}",
            why=f"{first.document.title}: {' '.join(first.document.description.split())}"[:MESSAGE_CHARS_MAX],
            hint=first.document.hint or f"If it has to be done, {_whom(action.labels)}; name the policy {first.id}.",
            bundle=self.sha256,
        )


def decides(policy: Policy, mode: Literal["active", "staged"] = "active") -> bool:
    """Return whether a policy decides on statements before they run, or with `staged` would if it were not staged."""
    document = policy.document
    return (
        (document.effect in ("deny", "limit", "warn") or document.approve is not None)
        and document.mode == mode
        and policy.plan is None
        and "statement" in document.kinds
    )


def would_have(verdict: Verdict, changed: int | None) -> list[str]:
    """List the staged policies that would have refused a statement, or have undone what it `changed` (rows)."""
    return [name for name, rows in verdict.staged.items() if rows < 0 or (changed is not None and changed > rows)]


def _gravest(policy: Policy) -> tuple[int, str]:
    return _SEVERITIES.index(policy.document.severity), policy.id


_DONE: Final = {
    "deny": "refused by ",
    "approve": "approval is needed by ",
    "warn": "passed with a warning by ",
    "limit": "the limit of ",
}
_COMMITS: Final = frozenset({"call", "begin", "commit", "rollback", "savepoint", "release", "rollback_to"})
_CONTROL: Final = _COMMITS - {"call"}
_READS: Final = frozenset({"select", "copy", "copy_to", "execute", "fetch"})
"""What answers rows: they are limited whatever else the statement does, or a small write would let any read through."""
_SEVERITIES: Final = ("critical", "high", "medium", "low", "info")


def _us(duration: str) -> int:
    return int(Duration.parse(duration) * 1_000_000)


def _whom(labels: Mapping[str, str]) -> str:
    owner = labels.get("owner")
    return f"ask {owner}" if owner else "ask whoever keeps the policies of this database"
