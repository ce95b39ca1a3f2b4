"""What a running gateway is asked on this machine: its protocol, and how to ask (`docs/reference/gateway-control.md`).

Each process of a gateway answers at a unix socket of its own, `N.sock` in one folder: a line of JSON for each question,
a line for each answer. Who may open the socket may ask; the kernel says who that is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from pgwitness.core.errors import NotInOrder, Unreachable

SUFFIX = ".sock"
LINE_BYTES_MAX = 1024 * 1024
"""The longest question."""
TEXT_CHARS_MAX = 1_000
"""What is kept of a name or a reason."""
ANSWER_S_MAX = 10.0
_PATH_BYTES_MAX = 100


class Sessions(Struct, frozen=True, tag_field="do", tag="sessions"):
    """Which sessions are there?"""


class End(Struct, frozen=True, omit_defaults=True, tag_field="do", tag="end"):
    """End a session. `by` is who wants that, as whoever asks says; the kernel's own answer is kept beside it."""

    session: str
    by: str = ""
    reason: str = ""


class Cancel(Struct, frozen=True, tag_field="do", tag="cancel"):
    """End what a session runs, by the key that its client was given; `secret` in hexadecimal digits."""

    pid: int
    secret: str


class Learn(Struct, frozen=True, tag_field="do", tag="learn"):
    """Know of what a session makes: among the gateway's own processes, before the statement is forwarded."""

    cluster: str
    database: str
    made: msgspec.Raw


Question = Sessions | End | Cancel | Learn


class LiveSession(Struct, frozen=True, kw_only=True):
    """A session as it is now. Times are microseconds since the epoch; `state` is as in pg_stat_activity.

    `statement` has no literals, and is the last one where none runs. `rows` are those answered so far.
    """

    session_id: str
    process: int
    principal: str | None
    principal_kind: str
    on_behalf_of: str | None
    assurance: str
    intent: str | None
    cluster: str
    instance: str
    database: str
    role: str
    application: str
    client_addr: str | None
    client_port: int | None
    encrypted: bool
    auth_method: str | None
    pid: int
    since_us: int
    state: str
    state_since_us: int
    statement: str | None
    statements: int
    rows: int


class Answer(Struct, frozen=True, omit_defaults=True):
    """What a process answers. `error` says why nothing was done; `done` whether it had what was asked for."""

    error: str | None = None
    done: bool = False
    sessions: list[LiveSession] = []


_answer = msgspec.json.Decoder(Answer)


def sockets(folder: Path) -> list[Path]:
    """List where the processes of a gateway answer."""
    return sorted(folder.glob(f"*{SUFFIX}"))


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Give a socket's name, which is short enough for the kernel however long its path is."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ask(path: Path, question: Question) -> Answer:
    """Ask one process. Raise `Unreachable` where none answers, `NotInOrder` for what it does not do."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, reachable(path) as name:
            link.settimeout(ANSWER_S_MAX)
            link.connect(name)
            link.sendall(msgspec.json.encode(question) + b"\n")
            with link.makefile("rb") as lines:
                answer = _answer.decode(lines.readline())
    except (OSError, msgspec.DecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "no answer that can be read"
        raise Unreachable(f"the gateway does not answer at {path} ({said})") from error
    if answer.error is not None:
        raise NotInOrder(answer.error)
    return answer


def sessions(folder: Path) -> list[LiveSession]:
    """List the sessions of all processes, the oldest first. Raise `Unreachable` where no gateway answers."""
    found = [session for answer in _all(folder, Sessions()) for session in answer.sessions]
    return sorted(found, key=lambda session: (session.since_us, session.session_id))


def end(folder: Path, session: str, by: str, reason: str) -> bool:
    """End a session in whichever process; false where there is none of that name. Raise as `ask` does."""
    return any(answer.done for answer in _all(folder, End(session, by, reason)))


def _all(folder: Path, question: Question) -> list[Answer]:
    """Ask all that answer; one that was killed leaves its socket behind."""
    answers: list[Answer] = []
    failed: Unreachable | None = None
    for path in sockets(folder):
        try:
            answers.append(ask(path, question))
        except Unreachable as error:
            failed = error
    if not answers:
        raise failed or Unreachable(
            f"no gateway answers in {folder}: see that it runs on this host, with this configuration"
        )
    return answers
