"""`pgwitness gateway sessions` and `pgwitness gateway end`: who is at the gateway now, and who is to leave."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import CELL_MAX, Row, emit, say, to_json
from pgwitness.core.printable import visible

if TYPE_CHECKING:
    from pgwitness.core.runtime.control import LiveSession

COLUMNS = ["session", "who", "for", "intent", "database", "client", "state", "since", "rows", "statement"]
FOLLOW_S = 1.0


@click.command(short_help="Show who is at the gateway now, and what runs.")
@click.option("--follow", is_flag=True, help="Go on with what changes, until interrupted.")
@json_option
@common
def sessions(follow: bool, as_json: bool, config_path: Path) -> None:
    """Show the sessions of the gateway that runs on this machine: whose they are, and what they run, without literals.

    With --follow a line for each session that comes, goes or does something else; with --json one object a line.
    """
    from pgwitness.core.runtime import control

    folder = _folder(config_path)
    if not follow:
        found = control.sessions(folder)
        rows = [row(one) for one in found]
        emit([_whole(one) for one in found] if as_json else rows, as_json=as_json, columns=COLUMNS, empty="no sessions")
        return
    shown: dict[str, LiveSession] = {}
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        while True:
            shown = _changes(shown, control.sessions(folder), as_json)
            time.sleep(FOLLOW_S)


@click.command(short_help="End a session of the gateway.")
@click.argument("session")
@click.option("--reason", default="", help="Why; its client is told, and the evidence has it.")
@common
def end(session: str, reason: str, config_path: Path) -> None:
    """End SESSION, named as in `pgwitness gateway sessions`: its client is told by whom and why, what runs is undone.

    Who ended it is evidence: an event of kind `control`, `gateway_session_ended`.
    """
    from pgwitness.cli.evidence import user_at_host
    from pgwitness.core.errors import NotInOrder
    from pgwitness.core.runtime import control

    if not control.end(_folder(config_path), session, user_at_host(), reason):
        raise NotInOrder(f"no session {session} is at the gateway; `pgwitness gateway sessions` shows those that are")
    say(f"{session} has ended")


def _folder(config_path: Path) -> Path:
    from pgwitness.core.config.gateway import control_folder

    return control_folder(configuration(config_path).gateway)


def row(session: LiveSession) -> Row:
    """Make the row of a table."""
    client = session.client_addr or ""
    return {
        "session": session.session_id,
        "who": session.principal or f"role {session.role}",
        "for": session.on_behalf_of,
        "intent": session.intent,
        "database": session.database,
        "client": f"{client}:{session.client_port}" if session.client_port is not None else client,
        "state": session.state,
        "since": _moment(session.state_since_us),
        "rows": session.rows,
        "statement": (session.statement or "")[:CELL_MAX],
    }


def _whole(session: LiveSession) -> Row:
    import msgspec

    said: dict[str, object] = msgspec.to_builtins(session)
    since = {name: _moment(int(str(said.pop(f"{name}_us"))), whole=True) for name in ("since", "state_since")}
    return {**said, **since}


def _moment(at_us: int, *, whole: bool = False) -> str:
    at = datetime.fromtimestamp(at_us / 1_000_000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if whole else at.strftime("%H:%M:%S")


def _changes(before: dict[str, LiveSession], found: list[LiveSession], as_json: bool) -> dict[str, LiveSession]:
    """Print what is otherwise than before; return what is now."""
    now = {session.session_id: session for session in found}
    for one in found:
        was = before.get(one.session_id)
        if was is None or (one.state, one.statements) != (was.state, was.statements):
            _print(one, one.state, as_json)
    for name, one in before.items():
        if name not in now:
            _print(one, "ended", as_json)
    return now


def _print(session: LiveSession, state: str, as_json: bool) -> None:
    if as_json:
        click.echo(to_json({**_whole(session), "state": state}))
        return
    shown = row(session)
    whose = f"{shown['who']} for {shown['for']}" if shown["for"] else shown["who"]
    at = f"{datetime.now(UTC):%H:%M:%S}"
    words = (at, shown["session"], whose, shown["database"], state, f"{shown['rows']} rows", shown["statement"])
    click.echo(visible("  ".join(str(word) for word in words).replace("\n", " ")))
