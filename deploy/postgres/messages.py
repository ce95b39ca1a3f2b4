"""Makes the table of the server's messages that `pgwitness.core.messages` reads; run it when a new version adds some.

    python deploy/postgres/messages.py --locale /usr/share/locale POSTGRES PLPGSQL.SO …

Two sources. The catalogues of translations that come with a server (`LC_MESSAGES/{postgres,plpgsql}-*.mo`; Debian's
package `postgresql-15` has them) hold each message in English with its translation. The programs named behind it add
what other versions say, in English: among the strings in a program are the forms of its messages, and what is no form
does no harm, since of a text that is matched only the table's own words are ever kept.

PostgreSQL's messages and their translations are under the PostgreSQL License: "Permission to use, copy, modify, and
distribute this software and its documentation for any purpose, without fee, and without a written agreement is hereby
granted, provided that the above copyright notice and this paragraph and the following two paragraphs appear in all
copies" (https://www.postgresql.org/about/licence/); the text stands beside the table.
"""

from __future__ import annotations

import argparse
import gettext
import json
import lzma
import re
from pathlib import Path

TARGET = Path(__file__).parents[2] / "pgwitness" / "core" / "messages"
LANGUAGE_MIN = 1_000
"""A language with fewer messages has PL/pgSQL's only, and not the server's."""
_STRING = re.compile(rb"[\x09\x0a\x20-\x7e]{10,600}(?=\0)")
_MESSAGE = re.compile(r"[A-Za-z\"%(].*[A-Za-z%].* .*", re.DOTALL)
_NO_MESSAGE = re.compile(
    r"(?:Sets|Shows|Enables|Selects|Specifies|Lists|Writes|Logs|Use|Number|Time|Maximum|Minimum|Starts|Forces|Controls"
    r"|Collects|Generates|Allows|Determines|Defines|Amount|Size|Emit|Prints|Causes|Produces|Automatic) [^%]*",
    re.DOTALL,
)
"""What describes a setting, and is no message."""


def translations(locale: Path) -> dict[str, dict[str, str]]:
    """Read the catalogues under a folder of locales: by language, each message with its translation."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(locale.glob("*/LC_MESSAGES/*.mo")):
        if not path.name.startswith(("postgres-", "plpgsql-")):
            continue
        with path.open("rb") as file:
            pairs = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        of_language = found.setdefault(path.parts[-3], {})
        for message, translation in pairs.items():
            # Of a message with a plural, gettext's module keeps each form under the singular and its number.
            name, form = (message, 0) if isinstance(message, str) else message
            if name and not _NO_MESSAGE.fullmatch(name):
                of_language.setdefault(name if not form else f"{name}\0{form}", translation)
    return found


def strings(program: Path) -> set[str]:
    """Give the strings of a program that may be messages."""
    texts = {match[0].decode("ascii") for match in _STRING.finditer(program.read_bytes())}
    return {text for text in texts if _MESSAGE.fullmatch(text) and not _NO_MESSAGE.fullmatch(text)}


def write(name: str, content: object) -> None:
    """Write one file of the table, the same bytes for the same content."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    (TARGET / f"{name}.json.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    """Make the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--locale", type=Path, required=True)
    options.add_argument("programs", type=Path, nargs="*")
    given = options.parse_args()
    languages = {name: pairs for name, pairs in translations(given.locale).items() if len(pairs) > LANGUAGE_MIN}
    messages = {name for pairs in languages.values() for name in pairs if "\0" not in name}
    for program in given.programs:
        messages |= strings(program)
    english = sorted(messages)
    places = {message: place for place, message in enumerate(english)}
    write("en", english)
    for language, pairs in languages.items():
        write(language, sorted((places[name.partition("\0")[0]], text) for name, text in pairs.items()))


if __name__ == "__main__":
    main()
