"""Texts as they come from a database and go to it, whatever it is encoded in.

A name in a catalogue that all databases share has the bytes of the one it was made in, and a database without an
encoding (SQL_ASCII) holds whatever its clients sent: psycopg would refuse the first and give the second as bytes.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from collectors.beacon.encodings import json_of, text_of

_TEXTS = ("text", "varchar", "bpchar", "name", '"char"')
_ANYTHING_ELSE = 0


def codec_of(connection: psycopg.Connection[Any]) -> str:
    """Return Python's name of the encoding that a connection speaks; without one that is UTF-8, with anything in it."""
    codec = connection.info.encoding
    return "utf-8" if codec == "ascii" else codec


def read_texts(connection: psycopg.Connection[Any], errors: str = "backslashreplace") -> None:
    """Let a connection give texts as texts; bytes that are none are shown as such, or kept for `statement`."""
    codec = codec_of(connection)

    class Text(Loader):
        def load(self, data: Buffer) -> str:
            return bytes(data).decode(codec, errors)

    class Json(Loader):
        def load(self, data: Buffer) -> Any:
            return json.loads(json_of(bytes(data), codec))

    for name in _TEXTS:
        connection.adapters.register_loader(name, Text)
    connection.adapters.register_loader(_ANYTHING_ELSE, Text)
    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, Json)


def keep_texts(connection: psycopg.Connection[Any]) -> None:
    """Let a connection give names so that `statement` sends the same bytes back, whatever they are."""
    read_texts(connection, "surrogateescape")


def statement(connection: psycopg.Connection[Any], sql: str) -> bytes:
    """Write a statement as the connection's encoding has it."""
    return sql.encode(codec_of(connection), "surrogateescape")


def shown(text: str) -> str:
    """Return a text that may hold bytes kept by `keep_texts` for people to read."""
    return text_of(text.encode("utf-8", "surrogateescape"))
