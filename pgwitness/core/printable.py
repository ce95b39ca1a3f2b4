"""Text that came from elsewhere, as a terminal may show it: nothing in it steers the terminal or turns the line around.

For people only. What programs read (JSON, the topics, the lake) keeps every character.
"""

from __future__ import annotations

import json
import unicodedata


def visible(value: str) -> str:
    r"""Write what would steer a terminal, or turn text around, as its escape (`\x1b`); line feeds and tabs stay."""
    if value.isprintable():
        return value
    return "".join(letter if not _steers(letter) else _escape(letter) for letter in value)


def _steers(letter: str) -> bool:
    if letter in "\n\t":
        return False
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\u200c\u200d\u00ad"


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"


def visible_json(text: str) -> str:
    """Give JSON text with such letters escaped as JSON has it: on a terminal it is harmless, and it says the same."""
    if text.isprintable():
        return text
    return "".join(letter if not _steers(letter) else json.dumps(letter)[1:-1] for letter in text)
