"""When something was seen and how sure its attribution is, as the sentences that an alert's description ends with.

Two questions, two answers (docs/explanation/attribution.md): is this event that session's, and is that session that
principal's? Who is called at night must not have to know the words for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from detectors.actions import Action

_SESSION = {
    "exact": "The session is certain",
    "strong": "The session is almost certain",
    "weak": "The session is only inferred",
}
_PERSON = {
    "verified": "the name was authenticated",
    "asserted": "the name is what the client says of itself",
    "role_only": "the name follows from the login role alone",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def account(action: Action, count: int, first_us: int, last_us: int) -> str:
    """Return when, how often and how sure, in two or three short sentences."""
    return f"{when(count, first_us, last_us)} {sure(action)}".strip()


def when(count: int, first_us: int, last_us: int) -> str:
    """Return when something was seen, in UTC."""
    first, last = _time(first_us), _time(last_us)
    if count == 0:
        return f"Asked for {first} UTC, and undone."
    if count == 1 and first[:16] == last[:16]:
        return f"Seen {first} UTC."
    times = "once" if count == 1 else f"{count:,} times"
    if first[:10] == last[:10]:
        last = last[11:]
    return f"Seen {times} from {first} to {last} UTC."


def sure(action: Action) -> str:
    """Return how sure it is who did it; nothing of what nobody does, such as a gap."""
    if action.binding == "stats" or (action.kind == "query_stats" and action.binding != "log"):
        return "Statistics tell the role, not the session: others may share it."
    if action.kind == "posture":
        return "Two looks at the server differ, which does not tell who changed it."
    session = _SESSION.get(action.certainty)
    if session is None:
        return "No session can be named." if action.kind in ("change", "ddl", "statement") else ""
    return f"{session}; {_PERSON.get(action.assurance, 'no rule names its user')}."


def _time(time_us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return "a time no calendar has"
