"""The server's log in other languages than English, by PostgreSQL's own translations."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from collectors.log.formats.prefix import Prefix
from collectors.log.formats.record import LogRecord, Times
from collectors.log.formats.splitting import StderrSplitter
from collectors.log.formats.stderr import StderrLog
from collectors.log.interpretation.interpret import Interpreter, Seen
from collectors.log.interpretation.provenance import Provenance, Surroundings
from collectors.log.languages import english, heads, phrases, severities
from pgwitness.core.events import Session, Statement
from pgwitness.core.privacy import tokenizer
from tests.collectors.write_phrases import PHRASES, catalogues, read

LANGUAGES = ("de", "es", "fr", "ja", "zh_CN", "ru", "it", "ko")
LOCALES = Path(os.environ.get("POSTGRES15_LOCALES", "/usr/share/locale"))
AT_US = 1_795_382_790_123_000


def say(language: str, form: str, *values: str) -> str:
    """Say a form of words with its values, as the server would."""
    text = phrases()[language].get(form, form)
    given = list(values)
    return re.sub(r"%0?\d*[sdu]", lambda _: given.pop(0), text)


class Feed:
    """An interpreter of one session's messages."""

    def __init__(self) -> None:
        surroundings = Surroundings(frozenset({"shop"}))
        provenance = Provenance("jsonlog", surroundings=surroundings)
        self.interpreter = Interpreter(tokenizer(b"k" * 32), "jsonlog", provenance=provenance)
        self.events: list[Seen] = []

    def __call__(self, message: str, severity: str = "LOG", **fields: Any) -> None:
        known = {"user": "app", "database": "shop", "session": "6b035d50.29", "sqlstate": "00000"} | fields
        record = LogRecord(AT_US, 41, severity, message, **known)
        self.events += self.interpreter.read(record, "log", len(self.events), 1)

    def end(self) -> list[Seen]:
        """Give all that was told."""
        return self.events + self.interpreter.idle("log", 9)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_matters_is_read(language: str) -> None:
    """From the login to the end, statements with their duration, simple and extended, refusals: as in English."""
    feed = Feed()
    word = phrases()[language].get("execute", "execute")
    title = "authentication"
    feed(
        say(language, 'connection authenticated: identity="%s" method=%s (%s:%d)', "ann", "gss", "f", "7"), title=title
    )
    authorized = say(language, "connection authorized: user=%s", "app") + say(language, " database=%s", "shop")
    authorized += say(language, " application_name=%s", "my app")
    authorized += say(language, " SSL enabled (protocol=%s, cipher=%s, bits=%d)", "TLSv1.3", "x", "256")
    feed(authorized, title=title)
    feed(say(language, "duration: %s ms  statement: %s", "1.250", "DELETE FROM pay WHERE id = 5"))
    feed(say(language, "duration: %s ms  %s %s%s%s: %s", "2.5", word, "S_1", "", "", "UPDATE pay SET a = $1"))
    feed(say(language, "duration: %s ms  parse %s: %s", "2.5", "S_1", "UPDATE pay SET a = $1"))
    feed(say(language, "duration: %s ms  bind %s%s%s: %s", "2.5", "S_1", "", "", "UPDATE pay SET a = $1"))
    feed(say(language, "statement: %s", "TRUNCATE pay"))
    feed(say(language, "duration: %s ms", "3.5"))
    feed(f"{word} S_2: " + "INSERT INTO pay VALUES ($1)")
    form = "disconnection: session time: %d:%02d:%02d.%03d user=%s database=%s host=%s%s%s"
    feed(say(language, form, "0", "00", "02", "250", "app", "shop", "[local]", "", ""))
    refused = say(language, 'password authentication failed for user "%s"', "eve")
    feed(refused, "FATAL", sqlstate="28P01", session="a.1", user=None)
    feed(refused, "FATAL", sqlstate=None, session="a.2", user=None)
    told = feed.end()
    sessions = [event for event in told if isinstance(event, Session)]
    assert [(event.operation, event.role) for event in sessions] == [
        ("connect", "app"), ("disconnect", "app"), ("login_failed", "eve"), ("login_failed", "eve"),
    ]  # fmt: skip
    assert (sessions[0].application, sessions[0].auth_method, sessions[0].identity) == ("my app", "gss", "ann")
    assert sessions[1].duration_ms == 2250.0
    statements = [event for event in told if isinstance(event, Statement)]
    assert [(event.statement, event.duration_ms, event.trust) for event in statements] == [
        ("DELETE FROM pay WHERE id = $1", 1.25, "likely"),
        ("UPDATE pay SET a = $1", 2.5, "likely"),
        ("TRUNCATE pay", 3.5, "likely"),
        ("INSERT INTO pay VALUES ($1)", None, "likely"),
    ]
    assert feed.interpreter.unknown == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_imitations_are_found_in_every_language(language: str) -> None:
    """A function that writes the server's form in its language is told like one that writes English."""
    feed = Feed()
    feed(say(language, "duration: %s ms  statement: %s", "1.0", "SELECT 1"), context="PL/pgSQL … RAISE", xid=5)
    (event,) = feed.end()
    assert isinstance(event, Statement)
    assert (event.source, event.imitates) == ("imitated", "statement")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_log_has_its_words_in_the_servers_language(language: str) -> None:
    """Severities and the names of parts are those of the language; a part does not begin a message."""
    said = phrases()[language]
    at = "2026-11-22 21:26:30.123 UTC [41] "
    label = said.get("STATEMENT:  ", "STATEMENT:  ")
    where = said.get("LOCATION:  %s, %s:%d\n", "LOCATION:  %s, %s:%d\n").partition("%")[0]
    lines = [
        f"{at}{said.get('ERROR', 'ERROR')}:  42501: x", f"{at}{label}DELETE FROM pay", f"{at}{where}aclcheck, acl.c:1",
        f"{at}{said.get('LOG', 'LOG')}:  x",
    ]  # fmt: skip
    prefix = Prefix("%m [%p] ", heads())
    splitter, parser = StderrSplitter(prefix), StderrLog(Times(), prefix)
    pieces = splitter.feed("\n".join([*lines, ""]).encode()) + splitter.idle()
    first, second = [parser.parse(piece.data) for piece in pieces]
    assert (first.severity, first.sqlstate, first.statement) == ("ERROR", "42501", "DELETE FROM pay")
    assert (first.location, second.severity) == ("aclcheck, acl.c:1", "LOG")
    assert severities()[said.get("FATAL", "FATAL")] == "FATAL"


def test_the_table_is_postgresqls() -> None:
    """What stands in the file are the translations of the server that is installed here."""
    installed = catalogues(LOCALES, 15)
    if not installed:
        pytest.skip("the translations of PostgreSQL 15 are not installed")
    assert {language: read(path) for language, path in installed.items()} == {
        language: phrases()[language] for language in installed
    }
    assert PHRASES.exists()


def test_what_is_in_no_form_is_counted() -> None:
    """A language that nobody knows is counted; what the server says of itself in English is not."""
    feed = Feed()
    feed("trajanje: 1.0 ms  stavek: DELETE FROM pay")
    feed("checkpoint starting: time")
    feed("automatic vacuum of table x")
    assert (feed.interpreter.unknown, feed.interpreter.known) == (1, 0)


def test_english_is_not_translated() -> None:
    """What is in no translated form is left alone, whatever it begins with."""
    for message in ("", "D", "Dauer", "Dauer: x ms", "duration: 1 ms", "文"):
        assert english(message) is None
