"""What a client reads of an error in a statement of which names were rewritten: places as it wrote it; pure."""

from __future__ import annotations

from typing import NamedTuple

from collectors.gateway.masking.rewriting import Edit, before, rewrite
from collectors.gateway.masking.views import Views
from collectors.gateway.wire import backend, lexing
from collectors.gateway.wire.lexing import Settings


class Masked(NamedTuple):
    """A statement of an audience: what was replaced in its text, and the views that it reads."""

    text: str
    edits: tuple[Edit, ...]
    views: Views

    def answer(self, frame: bytes, _encoding: str) -> bytes:
        """Return what the client reads for an error of the server."""
        return backend.placed(frame, lambda place: before(place, self.edits)) if self.edits else frame


def masked(text: bytes, settings: Settings, views: Views) -> tuple[Masked | None, bytes | None]:
    """Return how a text is read by an audience, and what goes to the server in its place, where that is another one."""
    chars = lexing.characters(text, settings.encoding)
    if chars is None:
        return None, None
    edits = rewrite(chars, views) if views.relations else ()
    forward = lexing.replaced(text, settings.encoding, edits) if edits else None
    return Masked(chars, edits if forward is not None else (), views), forward
