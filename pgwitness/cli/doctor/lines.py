"""Lines of the doctor's report: what was checked, where, what came out and how to mend it."""

from __future__ import annotations

from collections.abc import Callable

from pgwitness.core.errors import PgwitnessError, Unreachable

Line = dict[str, object]


def line(where: str, what: str, state: str, found: str = "", fix: str = "") -> Line:
    """Make a line; `state` is `ok`, `info`, `warning`, `error` or `unreachable`."""
    return {"where": where, "what": what, "state": state, "found": found, "fix": fix}


def attempt(where: str, what: str, findings: list[Line], check: Callable[[], str]) -> None:
    """Run a check that raises what is wrong; an error's text holds its own remedy, after the colon or semicolon."""
    try:
        findings.append(line(where, what, "ok", check()))
    except Unreachable as error:
        findings.append(line(where, what, "unreachable", str(error)))
    except PgwitnessError as error:
        findings.append(line(where, what, "error", str(error)))
