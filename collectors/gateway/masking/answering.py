"""What a client reads of an error in a statement of an audience: places as it wrote it, and why it came; pure."""

from __future__ import annotations

from typing import NamedTuple

from collectors.beacon.encodings import codec_of
from collectors.gateway.masking.rewriting import Edit, before, rewrite
from collectors.gateway.masking.sentences import sentence, with_sentence
from collectors.gateway.masking.silent import Silent, silent
from collectors.gateway.masking.views import Views
from collectors.gateway.wire import backend, lexing
from collectors.gateway.wire.frames import HEADER
from collectors.gateway.wire.lexing import Settings


class Masked(NamedTuple):
    """A statement of an audience: what was replaced in its text, and the views that it reads."""

    text: str
    edits: tuple[Edit, ...]
    views: Views
    silent: Silent | None = None
    """What a view would answer wrongly, and not say so."""

    def answer(self, frame: bytes, encoding: str) -> bytes:
        """Return what the client reads for an error of the server."""
        if self.edits:
            frame = backend.placed(frame, lambda place: before(place, self.edits))
        said = backend.fields(frame[HEADER:])
        added = sentence(said, self.text, self.views)
        if added is None:
            return frame
        return backend.with_fields(frame, with_sentence(said, added), codec_of(encoding))


def masked(text: bytes, settings: Settings, views: Views) -> tuple[Masked | None, bytes | None]:
    """Return how a text is read by an audience, and what goes to the server in its place, where that is another one."""
    chars = lexing.characters(text, settings.encoding)
    if chars is None:
        return None, None
    edits = rewrite(chars, views) if views.relations else ()
    forward = lexing.replaced(text, settings.encoding, edits) if edits else None
    return Masked(chars, edits if forward is not None else (), views, silent(chars, views)), forward
