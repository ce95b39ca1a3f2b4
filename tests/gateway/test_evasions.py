"""Ways round the packaged policies are refused by the gateway when they deny; the honest work beside them passes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from collectors.gateway.judging.judge import Judging, Person, Rules
from collectors.gateway.session.session import Session
from collectors.gateway.spool.records import Opened
from collectors.gateway.wire import frontend
from detectors.gatekeeper import Gatekeeper
from detectors.policy.policies import Bundle
from detectors.policy.policy import Policy
from detectors.sensitive import Sensitive
from pgwitness.core.privacy import tokenizer
from tests.gateway.test_wire import NOW
from tests.judgement.honest import PROGRAMS
from tests.judgement.ways import LOGGED, READ_NOTHING, SENSITIVE

OPENED = Opened(session=1, at_us=1, cluster="shop", instance="db:5432", role="ada", database="shop", auth_method="x")


@pytest.fixture(scope="module")
def denying() -> Gatekeeper:
    """The packaged policies about single statements, of which each denies."""
    return Gatekeeper(
        Bundle(
            [
                Policy(replace(policy.document, effect="deny", mode="active"), policy.origin)
                for policy in Bundle.packaged().policies.values()
                if policy.plan is None and "statement" in policy.document.kinds
            ]
        ),
        Sensitive([SENSITIVE, "public.shop_person.nick"]),
    )


def denied(gatekeeper: Gatekeeper, steps: tuple[str, ...], person: Person, application: str = "") -> set[str]:
    """Send texts through one session, simple or (`x:`) extended; the policies that refused any of them."""
    rules = Rules(gatekeeper, lambda _opened, _application: person)
    opened = replace(OPENED, application=application)
    session = Session(1, {}, Judging(tokenizer(b"k" * 32), rules).session(opened))
    found: set[str] = set()
    for step in steps:
        text = step.removeprefix("x:").encode()
        sent = frontend.parse_of(b"", text) + frontend.frame(b"S") if step.startswith("x:") else frontend.query_of(text)
        done = session.client(sent, NOW)
        assert done.close is None
        refused = [record.verdict for record in done.records if getattr(record, "verdict", None) is not None]
        found |= {name for verdict in refused for name in verdict.policies}
        forwarded = b"".join(done.to_server)
        assert (text in forwarded) is not any("unreadable" not in one.policies for one in refused), step
    return found


@pytest.mark.parametrize(
    ("policy", "steps"),
    [(policy, steps) for policy, steps in LOGGED if "statement" in Bundle.packaged().policies[policy].document.kinds],
)
def test_ways_round_are_refused(denying: Gatekeeper, policy: str, steps: tuple[str, ...]) -> None:
    """Each of the ways that the log tells of is refused before it runs, by the policy that it would raise."""
    assert policy in denied(denying, steps, Person("helper", "human"))


@pytest.mark.parametrize("text", READ_NOTHING)
def test_what_reads_nothing_passes(denying: Gatekeeper, text: str) -> None:
    """What gives no value of a sensitive column is not refused."""
    assert "sensitive_read" not in denied(denying, (text,), Person("helper", "human"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_honest_programs_pass(denying: Gatekeeper, name: str) -> None:
    """Of what honest programs send nothing is refused but what is true of it."""
    program = PROGRAMS[name]
    for run in program.runs:
        assert denied(denying, run, Person(program.role, "service"), program.application) <= {*program.may, "truncate"}
