"""What each kind of finding says: title, message, severity, runbook, and what makes two findings the same.

Pure: a function a kind. `detectors.alerts.findings` decides whether a report is emitted now, and makes the alert of it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from detectors.actions import Action
from detectors.alerts import verdicts
from detectors.alerts.budget import Standing
from detectors.behaviour.model import MODEL
from detectors.behaviour.unusual_window import UnusualWindow
from detectors.policy.policy import Policy
from detectors.wording import Seen, capitalized, show, who

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
POLICIES_REFUSED = "policies_refused"
"""The `control` event by which a worker says that changed policies cannot be used."""


class Report(Struct, frozen=True, kw_only=True):
    """One occurrence of a finding. The same `detector` and `key` within a window of `window_us` are one finding.

    The other names are those of `detectors.alerts.alert.Alert`. What a threshold or sequence has `seen` is evidence
    too; `standing` is what a finding of the models is held against (`detectors.alerts.budget`).
    """

    detector: str
    key: str
    window_us: int
    title: str
    message: str
    description: str
    severity: str
    runbook: str
    attack: list[str] = []
    policy: str | None = None
    bundle_sha256: str | None = None
    model: str | None = None
    anomaly: float | None = None
    reasons: list[dict[str, Any]] = []
    staged: bool = False
    respond: str | None = None
    together: str = ""
    """What the finding is of, beside its key: occurrences that share it within `TOGETHER_US` are one finding."""
    seen: Seen | None = None
    standing: Standing | None = None


def of_policy(
    policy: Policy,
    action: Action,
    seen: Seen | None,
    *,
    bundle_sha256: str,
    anomaly: float | None,
    reasons: list[dict[str, Any]],
) -> Report:
    """Return the report that a policy matched; how strange the action was comes along."""
    document = policy.document
    return Report(
        detector=f"policy:{policy.id}",
        key=policy.key(action),
        window_us=policy.window_us,
        title=document.title,
        message=policy.message(action, seen),
        description=document.description,
        severity=severity(policy, action),
        runbook=document.runbook,
        attack=document.attack,
        policy=policy.id,
        bundle_sha256=bundle_sha256,
        anomaly=anomaly,
        reasons=reasons,
        staged=document.mode == "staged",
        respond=document.respond,
        together=_together(policy, action),
        seen=seen,
    )


def _together(policy: Policy, action: Action) -> str:
    if policy.document.together is None or not action.session_id:
        return ""
    # What is less severe, or was tried in vain, is another finding than what was done.
    return "\0".join((policy.id, action.cluster, action.session_id, severity(policy, action), action.operation))


def severity(policy: Policy, action: Action) -> str:
    """Return how severe a match is: by what came of the action, else by its operation, else as the policy says."""
    document = policy.document
    return document.severity_of.get(
        action.outcome, document.severity_of.get(action.operation or "", document.severity)
    )  # fmt: skip


def of_error(policy: Policy, why: str, action: Action, bundle_sha256: str) -> Report:
    """Return the report that a policy could not be evaluated."""
    return Report(
        detector=f"policy_error:{policy.id}",
        key=action.kind,
        window_us=HOUR_US,
        title="A policy could not be evaluated",
        message=f"Policy {policy.id} could not judge an action of kind {action.kind}: {why}",
        description="What this policy looks for goes unseen until it is corrected.",
        severity="medium",
        runbook="Correct the policy's `when`, add the action as a test and run `pgwitness policy test`.",
        policy=policy.id,
        bundle_sha256=bundle_sha256,
    )


def of_refused_policies(action: Action, bundle_sha256: str) -> Report:
    """Return the report that changed policies cannot be used; `action` is that of `POLICIES_REFUSED`."""
    return Report(
        detector="policy_error:bundle",
        key=show(action.detail.get("host")),
        window_us=HOUR_US,
        title="Changed policies cannot be used",
        message=f"The policies were changed and cannot be used: {show(action.detail.get('error'))}",
        description="The last good policies go on judging; what was changed has no effect until then.",
        severity="high",
        runbook="Run `pgwitness policy check` and `pgwitness policy test`, and correct what they name.",
        policy=POLICIES_REFUSED,
        bundle_sha256=bundle_sha256,
    )


def of_habits(action: Action, score: float, reasons: list[dict[str, Any]]) -> Report:
    """Return the report that an action is out of its principal's habits."""
    main = reasons[0]["feature"]
    return Report(
        detector="behaviour",
        key="\0".join((action.cluster, action.principal, action.role, main)),
        window_us=DAY_US,
        title="Unusual behaviour of a principal",
        message=capitalized(f"{who(action)} did what is unusual for it: {_words(reasons)}"),
        description="The action differs from what this principal, or its peer group, has done so far.",
        severity="low",
        runbook="Look at the evidence; ask the principal's owner when no change of duty explains it.",
        model=MODEL,
        anomaly=score,
        reasons=reasons,
    )


def of_window(finding: UnusualWindow, action: Action, *, medium_at: float) -> Report:
    """Return the report that a window of a principal's time is out of its routine; its evidence are its most
    significant events.

    `action` stands for the window, a score from `medium_at` on is of medium severity.
    """
    window = finding.window
    main = finding.reasons[0]["feature"] if finding.reasons else ""
    return Report(
        detector="behaviour",
        key=f"{action.cluster}\0{finding.who}\0{main}",
        window_us=DAY_US,
        title="Unusual activity of a principal",
        message=capitalized(f"{who(action)} departed from its routine: {_words(finding.reasons)}"),
        description=f"What it did in {finding.length.words} differs from what it, and its peer group, usually do.",
        severity="medium" if finding.score >= medium_at else "low",
        runbook="Look at the evidence; ask the principal's owner when no change of duty explains it.",
        model=MODEL,
        anomaly=finding.score,
        reasons=finding.reasons,
        seen=Seen(window.actions, window.first_us, window.last_us, tuple(window.event_ids)),
        standing=Standing(
            1.0 - finding.score, finding.peers, finding.principals, finding.warming_up, 1.0 - finding.alone
        ),
    )


def of_refused_verdict(checked: verdicts.Checked) -> Report:
    """Return the report that a verdict is not believed: somebody tried to suppress an alert."""
    claims = checked.claims
    claimed = f"{claims.who} on {claims.title or claims.uid}" if claims is not None else "somebody"
    return Report(
        detector="verdict_refused",
        key=checked.refused or "",
        window_us=HOUR_US,
        title="A verdict was refused",
        message=f"A verdict in the name of {claimed[:200]} was refused: {checked.refused}",
        description="A record of the topic feedback is not what a listed reviewer signed, or may not say this.",
        severity="high",
        runbook=(
            "See who can write to the topic feedback. A reviewer's own verdict is refused when it has expired, "
            "goes beyond the reviewer's scopes or is signed with a key that [reviewers] does not list."
        ),
    )


def _words(reasons: list[dict[str, Any]]) -> str:
    return "; ".join(reason["words"] for reason in reasons[:3])
