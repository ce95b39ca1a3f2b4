"""What policies say of actions that nobody has done: which match, why, and which nearly do; pure.

The parts of the judge that decide are asked, and nothing else: its evaluator, its memory of several actions, the
sentence and severity of its alerts. Behaviour is left out, for it is nobody's until it was learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from detectors.actions import Action
from detectors.alerts import reports
from detectors.policy.cases import FAR_BACK_US
from detectors.policy.correlation import Correlations
from detectors.policy.evaluator import Evaluator
from detectors.policy.explain import Part, explain, lacking
from detectors.policy.guards import LISTS, Guard
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.vocabulary import SCHEMA
from detectors.wording import Seen, span


class Opinion(Struct, frozen=True):
    """What one policy says of an action.

    `says`: `match`; `counts`, where its condition holds and it wants more of the kind, which `note` explains;
    `failed`, with the reason in `note`; `near`, where it is about such actions and one part of its condition is
    lacking, `lacking`; else `no`. `why` are its conditions, one for a policy without steps; `message` is what its alert
    would say.
    """

    policy: str
    says: str
    severity: str
    effect: str
    mode: str
    why: tuple[Part, ...]
    message: str = ""
    note: str = ""
    lacking: str = ""


class Trial:
    """Asks one set of policies about actions, in the order in which they would happen."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._evaluator = Evaluator(bundle)
        self._correlations = Correlations(bundle.plans(), since_us=FAR_BACK_US)
        self._correlations.begin(FAR_BACK_US)

    def ask(self, action: Action) -> list[Opinion]:
        """Return what each policy for actions of this kind says: first what matches, last what has nothing to say."""
        matches = self._evaluator.ask(action)
        alone, failed, met = set(matches.matched), dict(matches.failed), dict(matches.met)
        found = []
        for policy in self._bundle.by_kind.get(action.kind, ()):
            seen = self._correlations.see(policy.id, met[policy], action) if policy in met else None
            if policy in alone or seen is not None:
                found.append(_matched(policy, action, seen))
            elif policy in failed:
                found.append(_opinion(policy, "failed", action, note=failed[policy]))
            elif policy in met:
                found.append(_opinion(policy, "counts", action, note=_wanted(policy, met[policy])))
            else:
                found.append(_not_matched(policy, action))
        return sorted(found, key=lambda opinion: (_ORDER.index(opinion.says), opinion.policy))


_ORDER = ("match", "failed", "counts", "near", "no")


def decisive(opinions: Iterable[Opinion]) -> Iterator[Opinion]:
    """List those for which the action is not in order: matches of what is not staged, and failures."""
    return (each for each in opinions if each.says == "failed" or (each.says == "match" and each.mode == "active"))


def _opinion(policy: Policy, says: str, action: Action, *, note: str = "", message: str = "") -> Opinion:
    return Opinion(
        policy=policy.id,
        says=says,
        severity=reports.severity(policy, action),
        effect=policy.document.effect,
        mode=policy.document.mode,
        why=tuple(explain(condition, action) for condition in policy.conditions),
        message=message,
        note=note,
    )


def _matched(policy: Policy, action: Action, seen: Seen | None) -> Opinion:
    note = f"{seen.count} within {span(seen.last_us - seen.first_us)}" if seen is not None else ""
    return _opinion(policy, "match", action, note=note, message=policy.message(action, seen))


def _not_matched(policy: Policy, action: Action) -> Opinion:
    found = _opinion(policy, "no", action)
    for condition, why in zip(policy.conditions, found.why, strict=True):
        part = lacking(why)
        if part is not None and _about(condition.guard(action.kind), action):
            return replace(found, says="near", lacking=part.text)
    return found


def _about(guard: Guard, action: Action) -> bool:
    """Return whether a condition is about such actions at all, by what must hold for it to hold."""
    filled = frozenset(name for name in LISTS if getattr(action, SCHEMA[name].attribute))
    asks = guard.operations is not None or guard.runs is not None or guard.filled
    return bool(asks) and guard.lets(action.operation, action.operations, filled)


def _wanted(policy: Policy, steps: Iterable[int]) -> str:
    """Return what a policy of several actions still waits for."""
    threshold, sequence = policy.document.threshold, policy.document.sequence
    if sequence is not None:
        names = [sequence.steps[step].name for step in steps]
        rest = [each for number, each in enumerate(sequence.steps) if number not in set(steps)]
        wanted = " and ".join(f"without {each.name}" if each.absent else f"with {each.name}" for each in rest)
        return f"this is step {', '.join(names)}; it matches {wanted} within {sequence.window}"
    assert threshold is not None
    what = f"different {threshold.distinct}" if threshold.distinct else threshold.sum or "such actions"
    return f"it counts; it matches with {threshold.count:,} {what} within {threshold.window}"
