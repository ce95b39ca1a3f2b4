"""What of an error may be told: its message and detail without the values in them.

The server quotes values in messages (`invalid input syntax for type integer: "4111…"`), and whole rows in details
(`Failing row contains (…)`). Messages whose quotes are known to hold names only are kept; of data errors what stands
before the first quote; of all others, what functions raise for instance, nothing.
"""

from __future__ import annotations

import re

from pgwitness.privacy import Tokenizer

NAMES_ONLY = frozenset(
    {
        "23502", "23503", "23505", "23514", "23P01", "25001", "25006", "25P01", "25P02", "28000", "28P01", "3D000",
        "3F000", "40001", "40P01", "42501", "42701", "42703", "42704", "42710", "42723", "42883", "42P01", "42P06",
        "42P07", "53300", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04",
    }
)  # fmt: skip
"""SQLSTATEs whose messages hold names of the schema and no values."""
MESSAGE_CHARS_MAX = 300

_KEY = re.compile(r"Key \((?P<columns>.*?)\)=\((?P<values>.*)\)(?P<rest>[^()]*)\.?", re.DOTALL)
_TABLE = re.compile(r'.*(?P<rest>is not present in|is still referenced from) table "(?P<table>[^"]*)"\.?', re.DOTALL)


def message(text: str, sqlstate: str | None) -> str | None:
    """Give the part of an error's message that holds no values."""
    if sqlstate is None:
        return None
    if sqlstate in NAMES_ONLY:
        return text.split("\n", 1)[0][:MESSAGE_CHARS_MAX]
    if sqlstate.startswith("22"):
        return re.split(r"[\"':(0-9]", text, maxsplit=1)[0].strip()[:MESSAGE_CHARS_MAX] or None
    return None


def detail(text: str | None, token: Tokenizer) -> str | None:
    """Give an error's detail with a token for its values, such as `Key (email)=(tok_…) already exists`."""
    if not text:
        return None
    key = _KEY.fullmatch(text)
    if key is not None:
        rest = key["rest"].strip()
        if rest not in ("already exists", "already exists."):
            table = _TABLE.fullmatch(rest)
            rest = f'{table["rest"]} table "{table["table"]}".' if table is not None else ""
        masked = token(key["values"].encode("utf-8", "surrogatepass")).decode()
        return f"Key ({key['columns']})=({masked}) {rest}".strip()[:MESSAGE_CHARS_MAX]
    if text.startswith("Failing row contains ("):
        return "Failing row contains (…)."
    return None
