"""What an alert says was done was done: what also succeeds with nothing to do is said to have been asked for."""

from __future__ import annotations

import pytest

from detectors.actions import Action, of_event
from detectors.wording import done, whether
from pgwitness.core.sql.statements import facts
from tests.detectors.material import event

UNKNOWN = "; whether that changed anything is not known"


def action(text: str, **further: str) -> Action:
    """A statement of the log that succeeded."""
    read = facts(text)
    detail = {"operations": list(read.operations), "names": list(read.objects), "where": read.where, "functions": []}
    made = {"statement": text, "outcome": "success", "binding": "log", "detail": detail} | further
    return of_event(event(1, "statement", **made), {})


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("CREATE EXTENSION dblink", True),
        ("CREATE EXTENSION IF NOT EXISTS dblink", False),
        ("DROP EXTENSION IF EXISTS dblink", False),
        ("DROP EXTENSION dblink", True),
        ("ALTER TABLE t OWNER TO app", False),
        ("ALTER SCHEMA s OWNER TO app", False),
        ("ALTER TABLE t ADD COLUMN a int", True),
    ],
)
def test_what_may_have_changed_nothing_was_asked_for(text: str, sure: bool) -> None:
    """Until an effect proves it: the extension may have been there, the owner the same."""
    said = done(action(text), "did", "do"), whether(action(text))
    assert said == (("did", "") if sure else ("asked to do", UNKNOWN))
    assert (done(action(text, effect="altered"), "did", "do"), whether(action(text, effect="altered"))) == ("did", "")


@pytest.mark.parametrize("outcome", ["failure", "rolled_back", "pending", "unknown"])
def test_an_outcome_that_is_no_success_is_said_first(outcome: str) -> None:
    """What failed did not change anything for another reason."""
    made = action("CREATE EXTENSION IF NOT EXISTS dblink", outcome=outcome)
    assert whether(made) not in ("", UNKNOWN)
    assert done(made, "did", "do") in ("tried to do", "asked to do")
