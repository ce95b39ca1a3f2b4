"""What a session says that it is for: `SET pgwitness.intent = 'TICKET-12: refund'`. What the client says, no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from pgwitness.core.sql import postgres_parser as parser

SETTING: Final = "pgwitness.intent"
CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 10_000
"""In a longer text none is looked for."""


class Intent(NamedTuple):
    """An intent from here on, empty where it is taken back; `local` is until the end of the transaction."""

    text: str
    local: bool = False


def given(text: str) -> Intent | None:
    """Return the intent that a text gives to its session; of several the last one. Never raises."""
    if len(text) > TEXT_CHARS_MAX or not _may(text.lower()):
        return None
    try:
        tree = json.loads(parser.parse_sql_json(text))
    except (parser.ParseError, ValueError, RecursionError):
        return None
    found = None
    for kind, body in _statements(tree):
        found = _of(kind, body) or found
    return found


def bounded(text: str) -> str:
    """Return an intent as it is kept: on one line, and not longer than it may be."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:CHARS_MAX]


def option(options: str) -> str:
    """Return the intent that a connection's `options` give: `-c pgwitness.intent=TICKET-12`; empty where none does."""
    found = ""
    words = options.replace("\\ ", "\0").split()
    for word, following in pairwise([*words, ""]):
        setting = following if word == "-c" else word.removeprefix("-c").removeprefix("--")
        name, equals, value = setting.partition("=")
        if equals and name.lower() == SETTING and (word == "-c" or word.startswith("-")):
            found = value.replace("\0", " ")
    return bounded(found)


def _may(text: str) -> bool:
    return "intent" in text or "reset" in text or "discard" in text


def _statements(tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for item in tree.get("stmts", []):
        for kind, body in item.get("stmt", {}).items():
            yield kind, body if isinstance(body, dict) else {}


def _of(kind: str, body: Mapping[str, Any]) -> Intent | None:
    if kind == "DiscardStmt":
        return Intent("") if body.get("target") == "DISCARD_ALL" else None
    if kind == "VariableSetStmt":
        return _set(body)
    return _called(body) if kind == "SelectStmt" else None


def _set(body: Mapping[str, Any]) -> Intent | None:
    does = body.get("kind")
    if does == "VAR_RESET_ALL":
        return Intent("")
    if str(body.get("name", "")).lower() != SETTING:
        return None
    if does != "VAR_SET_VALUE":
        return Intent("")
    texts = [_text(arg) for arg in body.get("args", [])]
    return Intent(bounded(", ".join(text for text in texts if text is not None)), bool(body.get("is_local")))


def _called(body: Mapping[str, Any]) -> Intent | None:
    for target in body.get("targetList", []):
        call = target.get("ResTarget", {}).get("val", {}).get("FuncCall", {})
        names = [name.get("String", {}).get("sval") for name in call.get("funcname", [])]
        args = call.get("args", [])
        if names[-1:] == ["set_config"] and len(args) == 3 and str(_text(args[0])).lower() == SETTING:
            local = args[2].get("A_Const", {}).get("boolval", {}).get("boolval") is True
            return Intent(bounded(_text(args[1]) or ""), local)
    return None


def _text(node: Mapping[str, Any]) -> str | None:
    constant = node.get("A_Const", {})
    if "sval" in constant:
        return str(constant["sval"].get("sval", ""))
    return str(constant["ival"].get("ival", 0)) if "ival" in constant else None
