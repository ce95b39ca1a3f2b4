"""What one process of a gateway tells the others, at their control sockets: a cancel, a function that was made.

A process that does not answer in a moment is passed over: it is being started anew, and reads all of it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from collectors.gateway.wire.startup import CancelRequest
from pgwitness.core.runtime.control import (
    LINE_BYTES_MAX,
    SUFFIX,
    Answer,
    Cancel,
    Learn,
    Question,
    reachable,
    sockets,
)
from pgwitness.core.sql.lessons import Lesson

TOLD_S_MAX: Final = 2.0

log = structlog.get_logger("gateway")
_answer = msgspec.json.Decoder(Answer)


class Others:
    """The other processes of a gateway, by the folder of their sockets."""

    def __init__(self, folder: Path, process: int) -> None:
        self._folder = folder
        self._own = f"{process}{SUFFIX}"

    async def cancel(self, request: CancelRequest) -> None:
        """Have whichever of them has a session cancel what it runs, and wait until the server was asked."""
        await self._all([Cancel(request.pid, request.secret.hex())])

    async def learn(self, made: Sequence[tuple[str, str, Lesson]]) -> None:
        """Tell of what sessions make, and wait until all know of them."""
        questions: list[Question] = [
            Learn(cluster, database, msgspec.Raw(msgspec.json.encode(one))) for cluster, database, one in made
        ]
        await self._all(questions)

    async def _all(self, questions: Sequence[Question]) -> None:
        paths = [path for path in sockets(self._folder) if path.name != self._own]
        await asyncio.gather(*(self._tell(path, questions) for path in paths))

    async def _tell(self, path: Path, questions: Sequence[Question]) -> None:
        try:
            async with asyncio.timeout(TOLD_S_MAX):
                with reachable(path) as name:
                    reader, writer = await asyncio.open_unix_connection(name, limit=LINE_BYTES_MAX)
                try:
                    for question in questions:
                        writer.write(msgspec.json.encode(question) + b"\n")
                        await writer.drain()
                        answer = _answer.decode(await reader.readline())
                        if answer.error is not None:
                            log.warning(
                                "another process does not do as it is told", socket=path.name, said=answer.error
                            )
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("another process does not answer", socket=path.name, error=str(error) or type(error).__name__)
