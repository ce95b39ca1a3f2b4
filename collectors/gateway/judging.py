"""What a statement is judged by: its text as the server will read it, freed of its literals."""

from __future__ import annotations

from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.actions import Decision, Settings
from collectors.gateway.records import Said
from collectors.log.interpretation.texts import Texts
from pgwitness.core.privacy import Tokenizer

KNOWN_MAX: Final = 4_096
KNOWN_BYTES_MAX: Final = 2_048
"""Texts that are known by themselves, and how long one may be."""
TEXT_BYTES_MAX: Final = 1024 * 1024
"""A longer text is kept as its hash: to free it of its literals would hold up every other session."""
AS_ASCII: Final = frozenset({"UTF8", "SQL_ASCII"})


class Judging:
    """Judges statements of all sessions; texts that differ in literals only are parsed once."""

    def __init__(self, token: Tokenizer) -> None:
        self._texts = Texts(token)
        self._token = token
        self._known: dict[tuple[bytes, Settings], Decision] = {}

    def judge(self, text: bytes, settings: Settings) -> Decision:
        """Decide on a statement; never raises for what the text is."""
        key = (text, settings)
        decision = self._known.get(key)
        if decision is None:
            decision = Decision(self._said(text, settings))
            if len(text) <= KNOWN_BYTES_MAX:
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[key] = decision
        return decision

    def _said(self, text: bytes, settings: Settings) -> Said:
        """Free a text of its literals, where it can be read for certain as the server reads it."""
        if not text.isascii() and settings.encoding not in AS_ASCII:
            codec = codec_of(settings.encoding)
            known = codec != "utf-8"
        else:
            codec, known = "utf-8", True
        doubtful = (not settings.standard_strings and b"\\" in text) or len(text) > TEXT_BYTES_MAX
        try:
            if known and not doubtful:
                found = self._texts.read(text.decode(codec))
                return Said(found.statement, found.hash, found.parsed, dict(found.tags))
        except UnicodeDecodeError:
            pass
        return Said(hash=self._token(text).decode())
