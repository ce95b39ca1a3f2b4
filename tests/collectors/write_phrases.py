"""Write `collectors/log/phrases.json`: what the server calls things in its log, from PostgreSQL's own translations.

    python -m tests.collectors.write_phrases [/usr/share/locale [15]]

Reads the compiled catalogues that a package of the server brings (`LANGUAGE/LC_MESSAGES/postgres-15.mo`). Languages
whose catalogue is not there keep what the file has of them.
"""

from __future__ import annotations

import gettext
import json
import sys
from pathlib import Path

PHRASES = Path(__file__).parents[2] / "collectors" / "log" / "phrases.json"
WORDS = ("DEBUG", "LOG", "INFO", "NOTICE", "WARNING", "ERROR", "FATAL", "PANIC")
LABELS = ("DETAIL:  ", "HINT:  ", "QUERY:  ", "CONTEXT:  ", "STATEMENT:  ", "BACKTRACE:  ", "LOCATION:  %s, %s:%d\n")
FORMS = (
    "duration: %s ms", "duration: %s ms  statement: %s", "duration: %s ms  %s %s%s%s: %s",
    "duration: %s ms  parse %s: %s", "duration: %s ms  bind %s%s%s: %s",
    'duration: %s ms  fastpath function call: "%s" (OID %u)', "execute", "execute fetch from", "statement: %s",
    'fastpath function call: "%s" (OID %u)', "connection received: host=%s", "connection received: host=%s port=%s",
    'connection authenticated: identity="%s" method=%s (%s:%d)', "connection authorized: user=%s",
    "replication connection authorized: user=%s", " database=%s", " application_name=%s",
    " SSL enabled (protocol=%s, cipher=%s, bits=%d)",
    "disconnection: session time: %d:%02d:%02d.%03d user=%s database=%s host=%s%s%s",
    "received replication command: %s", "database system is ready to accept connections",
)  # fmt: skip
REFUSALS = (
    'role "%s" does not exist', 'database "%s" does not exist', 'role "%s" is not permitted to log in',
    "permission denied for database %s", 'no pg_hba.conf entry for host "%s", user "%s", database "%s", %s',
    'pg_hba.conf rejects connection for host "%s", user "%s", database "%s", %s',
)  # fmt: skip
FAILED = 'authentication failed for user "%s"'
EVERY = frozenset({*WORDS, *LABELS, *FORMS, *REFUSALS})


def read(catalogue: Path) -> dict[str, str]:
    """Give the translations of one catalogue that are of use, by what they translate."""
    with catalogue.open("rb") as file:
        known: dict[object, object] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {
        said: str(translated)
        for said, translated in sorted((str(key), value) for key, value in known.items())
        if (said in EVERY or said.endswith(FAILED)) and translated and translated != said
    }


def catalogues(folder: Path, version: int) -> dict[str, Path]:
    """Find the catalogues of a version, by language."""
    return {path.parts[-3]: path for path in sorted(folder.glob(f"*/LC_MESSAGES/postgres-{version}.mo"))}


def main(folder: str = "/usr/share/locale", version: str = "15") -> None:
    """Write the file."""
    before = json.loads(PHRASES.read_text(encoding="utf-8")) if PHRASES.exists() else {}
    found = {language: read(path) for language, path in catalogues(Path(folder), int(version)).items()}
    text = json.dumps({**before, **found}, ensure_ascii=False, indent=1, sort_keys=True)
    PHRASES.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
