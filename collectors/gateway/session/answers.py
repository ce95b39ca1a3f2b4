"""What a client reads where that is not what the server wrote: of refusals, limits, and messages of the gateway's own.

Pure. Of all other answers nobody asks here: they pass as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collectors.gateway.session import refusing
from collectors.gateway.session.sent import Sent
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import Message

_OF_CLIENT: Final = frozenset((backend.ROW_DESCRIPTION, backend.PARAMETER_STATUS, backend.READY))
"""What passes in whosever answer it comes."""
_COMPLETES: Final = frozenset(
    (backend.COMMAND_COMPLETE, backend.EMPTY_QUERY, backend.SUSPENDED, backend.ERROR, backend.FUNCTION_RESULT)
)


class Answers:
    """The answers of one session; `settings` are those that its server reports."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.withheld = b""
        """The end of a limited statement's answer, which its client reads when its rows were checked."""
        self.leftover: list[bytes] = []
        """Names of the gateway's own that an error kept it from closing."""
        self._settings = settings

    @property
    def _encoding(self) -> str:
        return self._settings.get("client_encoding", "UTF8")

    def to(self, head: Sent | None, metered: Sent | None, message: Message) -> bytes:
        """Return what the client reads for a message of the server, which answers `head`.

        `metered` is the statement whose answer is measured, where one is.
        """
        if message.type in (backend.ERROR, backend.READY):
            withheld, self.withheld = self.withheld, b""
            if withheld and message.type == backend.READY:
                return withheld + message.frame
        if head is None or not head.watched:
            return message.frame
        if message.type == backend.ERROR:
            return self._error(head, metered, message)
        if head.own:
            return self._own(head, message)
        if head.limit is not None and message.type in (backend.COMMAND_COMPLETE, backend.SUSPENDED):
            if head.meter is not None and head.meter.cut is None and head.limit.rows is None and not head.simple:
                return message.frame  # nothing is left that could undo it
            self.withheld = message.frame
            return b""
        return self._warned(head, message)

    def _warned(self, head: Sent, message: Message) -> bytes:
        """Put a warning before the end of an answer."""
        if not head.warning or message.type not in _COMPLETES:
            return message.frame
        warning, head.warning = head.warning, b""
        return warning + message.frame

    def _error(self, head: Sent, metered: Sent | None, message: Message) -> bytes:
        """Return what the client reads of an error."""
        if (cut := self._cut(head, metered, message)) is not None:
            return cut
        if head.own:
            return self._own(head, message)
        if head.refused is not None:
            return head.refused.answer(message.frame, self._encoding)
        if head.decision.masked is not None:
            return head.decision.masked.answer(message.frame, self._encoding)
        return self._warned(head, message)

    def _cut(self, head: Sent, metered: Sent | None, message: Message) -> bytes | None:
        """Return what the client reads of an error that comes of the cut of what is measured; None for any other."""
        limited = head.limited or metered
        meter = head.meter or (metered.meter if metered is not None else None)
        if meter is None or limited is None or head.limit is not limited.limit:
            return None
        if not meter.is_own(backend.fields(message.body)):
            return None
        limited.outcome, limited.sqlstate = "denied", refusing.SQLSTATE
        limited.rows, limited.why = meter.passed, f"cut: {meter.cut}"
        return meter.answer(self._encoding)

    def _own(self, head: Sent, message: Message) -> bytes:
        """Return what the client reads of the answer to a message of the gateway's own: of errors and rows only."""
        if message.type in _OF_CLIENT:
            return message.frame
        if message.type == backend.DATA_ROW:
            if head.limit is not None:
                head.limit.told(message.body)
            return b""
        if message.type != backend.ERROR or head.limit is None:
            released = b""
            if message.type == backend.COMMAND_COMPLETE and head.limited is not None and not head.limited.simple:
                released, self.withheld = self.withheld, b""
            return released
        said = backend.fields(message.body)
        if head.kind == frontend.PARSE and said.get("R") == "exec_parse_message" and said.get("C") == "42601":
            head.limit.stopped = True
            return head.limit.alone(self._encoding)
        rows = head.limit.exceeded(said)
        if rows is None:
            return message.frame
        if head.limited is not None:
            head.limited.outcome, head.limited.sqlstate = "denied", refusing.SQLSTATE
            head.limited.why = f"undone: it changed {rows} rows"
        self.leftover.append(head.name)
        return head.limit.answer(rows, self._encoding)
