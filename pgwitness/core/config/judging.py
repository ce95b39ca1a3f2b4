"""The tables of the worker and of those who judge: behaviour, verdicts, approvals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pgwitness.core.config.section import Section
from pgwitness.core.units import Duration


class Worker(Section, frozen=True, kw_only=True):
    """Table `[worker]`. `group` is the consumer group; `grace` how long a change waits for its identity.

    `evidence` names the store in which evidence lands (`sinks.registry`).
    `session_timeout` is after how long without a heartbeat the broker gives the partitions to another worker.
    """

    group: str = "pgwitness-worker"
    grace: Duration = Duration(2.0)
    session_timeout: Duration = Duration(10.0)
    checkpoint_interval: Duration = Duration(10.0)
    data_path: Path = Path("./state/worker")
    evidence: str = "lake"


class Behaviour(Section, frozen=True, kw_only=True):
    """Table `[behaviour]`: when a principal's habits are known well enough to be judged by.

    A principal is only learned from until `warmup` has passed since its first event and it has made
    `warmup_observations` of them; `warmup` holds for the whole stream too. `adopt_after` is how long something new
    stays new. `alert_at` is the anomaly (0 to 1) from which on behaviour alone is an alert of severity low,
    `medium_at` of medium. `principals_max` bounds the memory. `groups_max` is how many peer groups have models of their
    own; further ones share those of their kind. `seed` decides how the models draw their trees and projections. Of a
    window of time the anomaly is one minus the share of principals' days that are as strange.
    """

    enabled: bool = True
    warmup: Duration = Duration(600.0)
    warmup_observations: int = 30
    adopt_after: Duration = Duration(7 * 86_400.0)
    alert_at: float = 0.9
    medium_at: float = 0.995
    principals_max: int = 50_000
    groups_max: int = 24
    seed: int = 1


class Triage(Section, frozen=True, kw_only=True):
    """Table `[triage]`: what of the findings is told, and how.

    `suppressions` is the file of what stays quiet. Of what behaviour alone finds, the strangest is told by itself, as
    much as the `budget` of alerts a principal and day allows, and the rest in a digest, once in `digest_interval`; all
    of it waits for the `digest`, or each is an `alert`, where `behaviour` says so. Of those `promoted` each is.
    """

    suppressions: Path = Path("suppressions.yaml")
    behaviour: Literal["budget", "digest", "alert"] = "budget"
    budget: float = 0.05
    digest_interval: Duration = Duration(86_400.0)
    promoted: list[str] = []


class Reviewer(Section, frozen=True, kw_only=True):
    """Table `[reviewers.NAME]`: somebody whose verdicts on alerts are believed.

    `key` is the public key that `pgwitness alerts key` prints. `scopes` are those the reviewer may use, all when empty;
    `longest` is how long a verdict of theirs may hold.
    """

    key: str
    scopes: list[Literal["same-finding", "policy-and-principal", "policy-and-relation", "policy-and-cluster"]] = []
    longest: Duration = Duration(366 * 86_400.0)


class Approver(Section, frozen=True, kw_only=True):
    """Table `[approvers.NAME]`: somebody whose decisions on requests are believed (`effect: approve`).

    `key` is the public key that `pgwitness alerts key` prints, `groups` are what policies ask for by name. `principal`
    is what `identities.yaml` calls the same person, by default NAME; `on_behalf_of` is for whom an assistant decides.
    With `break_glass` they may let a request through alone, which is an alert.
    """

    key: str
    groups: list[str] = []
    principal: str = ""
    on_behalf_of: str = ""
    break_glass: bool = False


class Approvals(Section, frozen=True, kw_only=True):
    """Table `[approvals]`: `key_file` is a gateway's own key, with which it signs requests; `gateways` are the public
    keys of all whose requests are believed, beside that.

    `console_url` is where people reach the console, for links in messages; `link_key_file` signs those, and both the
    console and `pgwitness alerts deliver` have it.
    """

    key_file: Path | None = None
    gateways: list[str] = []
    console_url: str = ""
    link_key_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what no browser opens."""
        if self.console_url and not self.console_url.startswith(("https://", "http://")):
            raise ValueError("console_url must be a URL, such as https://pgwitness.example")
