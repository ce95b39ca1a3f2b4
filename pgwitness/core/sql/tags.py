"""What a client says of itself in a comment behind its statement, as sqlcommenter writes it.

`SELECT 1 /*agent='triage-bot',on_behalf_of='ada%40shop',traceparent='00-…-…-01'*/`: keys and values are URL-encoded,
values stand in single quotes (https://google.github.io/sqlcommenter/spec/). Anybody who can send a statement can write
such a comment: it is what the client asserts, no more. `read` finds the comment with PostgreSQL's own scanner, so a
string that looks like one is none; `of_comment` is for those who have found it already. Both take the known keys only
and never raise. A value that is no plain identifier may be anything, so it goes on as a token.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from pgwitness.core.privacy import Tokenizer
from pgwitness.core.sql import postgres_parser as parser

KEYS = (
    "traceparent", "agent", "agent_instance", "model", "tool", "conversation_id", "on_behalf_of", "client", "service",
    "intent",
)  # fmt: skip
COMMENT_CHARS_MAX = 4_096
TEXT_CHARS_MAX = 64 * 1024
"""Behind a longer text no comment is looked for."""
VALUE_CHARS_MAX = 128

_PAIR = re.compile(r"\s*([^\s=,']{1,64})\s*=\s*'((?:[^'\\]|\\.)*)'\s*(,|$)", re.DOTALL)
_PLAIN = re.compile(rf"[A-Za-z0-9][\w.:@/+-]{{0,{VALUE_CHARS_MAX - 1}}}", re.ASCII)


def read(text: str, token: Tokenizer) -> dict[str, str]:
    """Give the known tags of the comment at the end of a statement; none where there is no such comment."""
    end = text[-COMMENT_CHARS_MAX:].rstrip("; \n\t\r")
    if not end.endswith("*/") or len(text) > TEXT_CHARS_MAX:
        return {}
    comment = _last_comment(text)
    return of_comment(comment, token) if comment is not None else {}


def of_comment(comment: str, token: Tokenizer) -> dict[str, str]:
    """Give the known tags of a comment, of which `comment` is what stands between `/*` and `*/`."""
    comment = comment.strip()
    if len(comment) > COMMENT_CHARS_MAX:
        return {}
    found: dict[str, str] = {}
    place = 0
    while place < len(comment):
        pair = _PAIR.match(comment, place)
        if pair is None:
            return {}
        key, place = unquote(pair[1]), pair.end()
        if key in found:
            return {}
        if key in KEYS:
            value = unquote(re.sub(r"\\(.)", r"\1", pair[2], flags=re.DOTALL))
            if value:
                found[key] = value if _PLAIN.fullmatch(value) else token(value.encode("utf-8", "replace")).decode()
    return dict(sorted(found.items()))


def _last_comment(text: str) -> str | None:
    try:
        tokens = parser.scan(text)
    except (parser.ParseError, ValueError):
        return None
    last = next((item for item in reversed(tokens) if item.name != "ASCII_59"), None)
    if last is None or last.name != "C_COMMENT":
        return None
    return text[last.start + 2 : last.end - 1]
