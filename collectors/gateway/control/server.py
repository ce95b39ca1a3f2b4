"""The socket at which a process of the gateway answers: questions in, answers out; bounded in size, number and time."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from collectors.gateway.connection import Connection, House, cancelled, now
from collectors.gateway.control.live import identity, live
from collectors.gateway.spool.records import Stopped
from collectors.gateway.upstream import cancel
from pgwitness.core.errors import ConfigurationError, PgwitnessError
from pgwitness.core.runtime.control import (
    ANSWER_S_MAX,
    LINE_BYTES_MAX,
    SUFFIX,
    TEXT_CHARS_MAX,
    Answer,
    Cancel,
    End,
    Learn,
    Question,
    Sessions,
    reachable,
)
from pgwitness.core.sql.lessons import Lesson

ASKING_MAX: Final = 64
"""Who asks at once; more are hung up on."""
IDLE_S: Final = 600.0
BACKLOG: Final = 64
_PEER: Final = struct.Struct("3i")

log = structlog.get_logger("gateway")
_made = msgspec.json.Decoder(Lesson)
_question: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)


def open_socket(folder: Path, process: int, group: str | None) -> socket.socket:
    """Open the socket of a process, for its own user, and for those of a group. Raise `ConfigurationError`."""
    path = folder / f"{process}{SUFFIX}"
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else -1
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if group is not None:
            _give(folder, gid)
            folder.chmod(0o750)
        _vacate(path)
        with reachable(path) as name:
            before = os.umask(0o177)
            try:
                opened.bind(name)
            finally:
                os.umask(before)
        if group is not None:
            _give(path, gid)
            path.chmod(0o660)
        opened.listen(BACKLOG)
    except BaseException as error:
        opened.close()
        if isinstance(error, KeyError):
            raise ConfigurationError(f"gateway.control_group: there is no group {group!r}") from None
        if isinstance(error, OSError):
            said = error.strerror or error
            raise ConfigurationError(f"gateway.control: {path} cannot be served ({said})") from error
        raise
    opened.setblocking(False)
    return opened


def _give(path: Path, gid: int) -> None:
    """Give a file to a group; what is the group's already needs no right to be given."""
    if path.stat().st_gid != gid:
        os.chown(path, -1, gid)


def _vacate(path: Path) -> None:
    """Take away what a process left behind that was killed. Raise `ConfigurationError` where one answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, reachable(path) as name:
        asking.settimeout(ANSWER_S_MAX)
        try:
            asking.connect(name)
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise ConfigurationError(f"gateway.control: another gateway answers at {path}: give each one a folder of its own")


class Control:
    """Answers for the sessions of one process."""

    def __init__(self, house: House, process: int) -> None:
        self._house, self._process = house, process
        self._asking = 0

    async def serve(self, listening: socket.socket) -> None:
        """Answer until cancelled."""
        server = await asyncio.start_unix_server(self._asked, sock=listening, limit=LINE_BYTES_MAX)
        async with server:
            await server.serve_forever()

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asking += 1
        try:
            if self._asking <= ASKING_MAX:
                await self._answers(reader, writer)
        except (OSError, TimeoutError, ValueError):
            pass  # it has gone, says nothing, or a line of its has no end
        finally:
            self._asking -= 1
            writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid, peer = _peer(writer.get_extra_info("socket"))
        while True:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readline()
            if not line:
                return
            try:
                question = _question.decode(line)
                if isinstance(question, Learn):
                    answer = self._learn(question) if uid == os.getuid() else Answer(error="for its own user only")
                else:
                    answer = await self._answer(question, peer)
            except msgspec.DecodeError as error:
                answer = Answer(error=f"this is no question that the gateway knows: {error}")
            writer.write(msgspec.json.encode(answer) + b"\n")
            async with asyncio.timeout(ANSWER_S_MAX):
                await writer.drain()

    def _learn(self, question: Learn) -> Answer:
        """Take up functions that a session of another process makes."""
        self._house.judging.learn(question.cluster, question.database, _made.decode(question.made), own=False)
        return Answer(done=True)

    async def _answer(self, question: Sessions | End | Cancel, peer: str) -> Answer:
        """Do what is asked; `peer` is who asks, as the kernel knows."""
        match question:
            case Sessions():
                at = now()
                connections = list(self._house.sessions.values())
                return Answer(sessions=[live(one, self._house.judging, self._process, at) for one in connections])
            case End():
                return await self._end(question, peer)
            case Cancel():
                try:
                    secret = bytes.fromhex(question.secret)
                except ValueError:
                    return Answer(error="secret: hexadecimal digits")
                return Answer(done=await cancelled(self._house, question.pid, secret))

    async def _end(self, question: End, peer: str) -> Answer:
        found = next((one for one in self._house.sessions.values() if identity(one) == question.session), None)
        if found is None:
            return Answer()
        by, reason = _short(question.by) or peer, _short(question.reason)
        record = Stopped(session=found.opened.session, at_us=now().us, by=by, peer=peer, reason=reason)
        opened = found.opened
        if opened.application != (application := found.look().application):
            record = replace(record, application=application)
        try:
            self._house.write(record)
        except PgwitnessError as error:
            return Answer(error=f"the session goes on, for that it was ended could not be written down: {error}")
        log.info("a session is ended", session=question.session, role=opened.role, by=by, peer=peer, reason=reason)
        await _stop(found, f"terminating connection: {by} has ended this session{f': {reason}' if reason else ''}")
        return Answer(done=True)


async def _stop(connection: Connection, said: str) -> None:
    """End a session with its last words, and what it runs at the server, which would go on to its end otherwise."""
    active = connection.look().active
    connection.end("FATAL", "57P01", said)
    if active:
        await cancel(connection.server)


def _short(text: str) -> str:
    return " ".join(text.split())[:TEXT_CHARS_MAX]


def _peer(link: socket.socket) -> tuple[int | None, str]:
    """Name who asks: its user on this machine, by number and name."""
    with contextlib.suppress(OSError):
        _, uid, _ = _PEER.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        try:
            return uid, pwd.getpwuid(uid).pw_name
        except KeyError:
            return uid, f"user {uid}"  # a container's user need not have a name
    return None, "unknown"
