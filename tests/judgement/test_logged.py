"""Of each way the right policy is raised by what the server's log tells; of what cannot be seen, nothing is."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import pq
from psycopg.conninfo import make_conninfo

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.sensitive import Sensitive
from pgwitness.core.events import Event, Tick
from pgwitness.demo.servers import Postgres
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.collectors.log_server import files
from tests.judgement.running import execute
from tests.judgement.ways import LOGGED, READ_NOTHING, SENSITIVE, SETUP, UNSEEN
from tests.outcomes import sessions
from tests.streams.records import batch, read

EVERYTHING = {"log_statement": "all", "log_min_duration_statement": "0", "log_min_messages": "warning"}
RULES = "rules: [{match: {role: ada}, principal: ada, kind: human}]"
STEPS = [steps for _, steps in LOGGED] + [steps for steps, _ in UNSEEN.values()] + [(text,) for text in READ_NOTHING]


@pytest.fixture(scope="module")
def raised(server: Postgres) -> list[set[str]]:
    """The policies that each way has raised, in the order of `STEPS`."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for text in SETUP.strip().split(";\n"):
            admin.execute(text.encode())
    for number, steps in enumerate(STEPS):
        run(server.dsn("ada"), number, steps)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("SELECT 1 AS that_was_all")
    found: list[set[str]] = [set() for _ in STEPS]
    judge = Judge(Bundle.packaged(), labels={}, behaviour=None, sensitive=Sensitive([SENSITIVE]))
    for event in folded(server):
        policies = judge.judge(event).policies
        if event.application and event.application.startswith("way "):
            found[int(event.application.removeprefix("way "))] |= set(policies)
    return found


def run(dsn: str, number: int, steps: tuple[str, ...]) -> None:
    """Run a way in a session of its own; what fails, fails."""
    conn = pq.PGconn.connect(make_conninfo(dsn, application_name=f"way {number}").encode())
    assert conn.status == pq.ConnStatus.OK, conn.error_message
    for step in steps:
        if step.startswith("x:"):
            conn.exec_params(step[2:].encode(), [])
        else:
            execute(conn, step)
    conn.finish()


def folded(server: Postgres) -> list[Event]:
    """What the fold makes of the log."""
    seen = sessions.lines(files(server, "jsonlog"), "postgres", "that_was_all")
    fold = Fold(0, Identities.parse(RULES), 2_000_000)
    out = fold.apply(0, read(batch(*[sessions.setting(*pair) for pair in EVERYTHING.items()], source="sessions")))
    for offset, event in enumerate(seen, 1):
        out += fold.apply(offset, read(batch(event, source="log")))
    latest = max(event.captured_at_us for event in seen) + 60_000_000
    return out + fold.apply(fold.next_offset, read(batch(Tick(captured_at_us=latest), source="log")))


def test_every_way_raises_its_policy(raised: list[set[str]]) -> None:
    """More than ninety ways, each in a session of its own."""
    missed = {
        steps: (policy, sorted(found))
        for (policy, steps), found in zip(LOGGED, raised, strict=False)
        if policy not in found
    }
    assert missed == {}
    assert len(LOGGED) >= 90


def test_what_cannot_be_seen_by_the_log_is_known(raised: list[set[str]]) -> None:
    """Should one of these be seen one day, it belongs among the others."""
    seen = dict(zip(UNSEEN, raised[len(LOGGED) :], strict=False))
    assert {name for name, policies in seen.items() if policies} == set()


def test_what_reads_no_value_is_no_read(raised: list[set[str]]) -> None:
    """Programs ask for the columns of a table, prepare and explain: nobody has read anything then."""
    told = dict(zip(READ_NOTHING, raised[len(LOGGED) + len(UNSEEN) :], strict=True))
    assert {text: policies for text, policies in told.items() if policies} == {}
