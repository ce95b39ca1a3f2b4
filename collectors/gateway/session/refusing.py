"""How a statement is refused: the server itself fails in its place, and the error that comes of it says why.

So the session is as PostgreSQL would leave it after an error, whatever it was in the middle of. What goes instead names
a function that nobody can know, or a portal, with a nonce; the error that quotes the nonce is ours to word. Anything
else that the server answers (the transaction had failed already, it was cancelled, it shuts down) is true and stays.

A text that could not be read goes on behind a statement that fails: the server reads all of it before it runs any of
it, so a mistake in it is told in the server's own words, and nothing of it runs.
"""

from __future__ import annotations

import secrets
from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import HEADER
from detectors.gatekeeper import UNREADABLE, Verdict

SQLSTATE: Final = "42501"
_NO_FUNCTION, _NO_PORTAL, _SYNTAX = "42883", "34000", "42601"


class Refused:
    """One refusal."""

    __slots__ = ("called", "nonce", "verdict", "whole")

    def __init__(self, verdict: Verdict, nonce: str) -> None:
        self.verdict, self.nonce = verdict, nonce
        self.whole = True
        """Whether nothing of the statement itself is sent."""
        self.called = False
        """Whether it is a function call, whose error names no nonce but the function's number, 0."""

    @classmethod
    def of(cls, verdict: Verdict) -> Refused:
        """Refuse a statement."""
        return cls(verdict, secrets.token_hex(8))

    def instead(self, frame: bytes) -> bytes:
        """Return the message that goes to the server instead of one."""
        kind, body = frame[0], frame[HEADER:]
        if kind == frontend.EXECUTE:
            return frontend.execute_of(f"pgwitness refused {self.nonce}".encode())
        if kind == frontend.FUNCTION_CALL:
            self.called = True
            return frame[:HEADER] + b"\0\0\0\0" + frame[HEADER + 4 :]
        failing = f'SELECT pg_catalog."pgwitness refused {self.nonce}"()'.encode()
        if kind == frontend.QUERY:
            return frontend.query_of(failing + self._behind(frontend.query_text(body)))
        parsed = frontend.parse(body)
        return frontend.parse_of(parsed.name, failing + self._behind(parsed.text))

    def _behind(self, text: bytes) -> bytes:
        self.whole = self.verdict.policies != [UNREADABLE]
        return b"" if self.whole else b"; " + text

    def is_own(self, said: dict[str, str]) -> bool:
        """Return whether an error comes of what was sent instead."""
        code, message = said.get("C"), said.get("M", "")
        if code == _NO_FUNCTION:
            return self.nonce in message or self.called
        if code == _NO_PORTAL:
            return self.nonce in message
        return code == _SYNTAX and not self.whole and said.get("R") == "exec_parse_message"

    def answer(self, frame: bytes, encoding: str) -> bytes:
        """Return what the client reads for an error of the server."""
        said = backend.fields(frame[HEADER:])
        if self.is_own(said):
            verdict = self.verdict
            return backend.error(
                "ERROR", SQLSTATE, verdict.message, verdict.hint, why=verdict.why, codec=codec_of(encoding)
            )
        if not self.whole and "P" in said:
            return backend.moved(frame, len(f'SELECT pg_catalog."pgwitness refused {self.nonce}"(); '))
        return frame


def warning(verdict: Verdict, encoding: str) -> bytes:
    """Return the notice of a statement that passes with a warning."""
    return backend.error(
        "WARNING", "01000", verdict.message, verdict.hint, why=verdict.why, codec=codec_of(encoding), kind=b"N"
    )
