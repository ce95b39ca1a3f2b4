"""What the server writes in another language than English, as it would have written it in English.

`phrases.json` has the forms of words that matter, from PostgreSQL's own translations
(`tests/collectors/write_phrases.py` makes it). A message is turned into its English form before anything else reads it;
what it quotes stays as it is. Only the fixed beginnings are looked for, so that the time does not depend on what stands
behind them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

from collectors.log.formats.prefix import PRIMARY, SECONDARY

_SPEC = re.compile(r"%(?:\d+\$)?0?\d*[sdu]")
_NUMBER = r"(\d{1,15}(?:\.\d{1,6})?)"
_TIME = re.compile(r"\d{1,9}:\d\d:\d\d\.\d{1,6}")
_FIXED = (
    "statement: %s", 'fastpath function call: "%s" (OID %u)', "connection received: host=%s port=%s",
    "connection received: host=%s", "received replication command: %s",
)  # fmt: skip
_MEASURED = {
    "duration: %s ms  statement: %s": "  statement: ",
    "duration: %s ms  parse %s: %s": "  parse ",
    "duration: %s ms  bind %s%s%s: %s": "  bind ",
    'duration: %s ms  fastpath function call: "%s" (OID %u)': "  fastpath function call: ",
}
_EXECUTED = "duration: %s ms  %s %s%s%s: %s"
_DISCONNECTION = "disconnection: session time: %d:%02d:%02d.%03d user=%s database=%s host=%s%s%s"
_AUTHENTICATED = 'connection authenticated: identity="%s" method=%s (%s:%d)'
_PARTS = (" database=%s", " application_name=%s", " SSL enabled (protocol=%s, cipher=%s, bits=%d)")
_SAYS_WHO = re.compile(r".*(?:authentication failed for user|role|database) \"?%s\"?(?: .*)?", re.DOTALL)

Rule = Callable[[str], str | None]


@cache
def phrases() -> dict[str, dict[str, str]]:
    """Return the translations by language and by what they translate."""
    found: dict[str, dict[str, str]] = json.loads((files(__package__) / "phrases.json").read_text(encoding="utf-8"))
    return found


@cache
def severities() -> dict[str, str]:
    """Return the English word of each severity by what it is called in any language."""
    found = {word: word for word in PRIMARY}
    for said in phrases().values():
        for word in PRIMARY:
            found.setdefault(said.get(word, word), word)
    return found


@cache
def heads() -> dict[str, str]:
    """Return the English word by what stands before a message of a text log, or before a part of one."""
    found = {f"{word}:  ": word for word in (*PRIMARY, *SECONDARY)}
    for said in phrases().values():
        for word in PRIMARY:
            found.setdefault(said.get(word, word) + ":  ", word)
        for word in SECONDARY:
            label = said.get(f"{word}:  ") or said.get(f"{word}:  %s, %s:%d\n", f"{word}:  ")
            found.setdefault(label.partition("%")[0], word)
    return found


def english(message: str) -> str | None:
    """Return a message as it would be in English; None for one that is in no form that is known."""
    for begin, rule in _rules().get(message[:1], ()):
        if message.startswith(begin):
            found = rule(message)
            if found is not None:
                return found
    return None


@cache
def _rules() -> dict[str, list[tuple[str, Rule]]]:
    """Return the rules of all languages by the first letter; of those that begin alike the longest comes first."""
    found: dict[str, list[tuple[str, Rule]]] = {}
    for said in phrases().values():
        for begin, rule in _of_language(said):
            found.setdefault(begin[:1], []).append((begin, rule))
    for rules in found.values():
        rules.sort(key=lambda item: len(item[0]), reverse=True)
    return found


def _of_language(said: dict[str, str]) -> Iterator[tuple[str, Rule]]:
    yield from _durations(said)
    for form in _FIXED:
        if form in said:
            yield _begin(said[form]), _replaced(_begin(said[form]), _begin(form))
    for word in ("execute fetch from", "execute"):
        if word in said:
            yield said[word] + " ", _replaced(said[word] + " ", word + " ")
    yield from _sessions(said)
    for form, translated in said.items():
        if form.startswith(("no pg_hba.conf entry", "pg_hba.conf rejects")):
            yield _begin(translated), _replaced(_begin(translated), _begin(form))
        elif form == "database system is ready to accept connections":
            yield translated, _replaced(translated, form)
        elif _SPEC.search(form) is not None and len(_SPEC.findall(form)) == 1 and _SAYS_WHO.fullmatch(form):
            yield _begin(translated), _between(translated, form)


def _begin(form: str) -> str:
    """Return what stands before the first thing that a form quotes."""
    return _SPEC.split(form, maxsplit=1)[0]


def _replaced(begin: str, by: str) -> Rule:
    return lambda message: by + message[len(begin) :]


def _between(translated: str, form: str) -> Rule:
    """Make the rule of a form that quotes one thing and has a fixed beginning and end."""
    begin, end = _SPEC.split(translated, maxsplit=1)
    first, last = _SPEC.split(form, maxsplit=1)

    def rule(message: str) -> str | None:
        if len(message) < len(begin) + len(end) or not message.endswith(end):
            return None
        return first + message[len(begin) : len(message) - len(end)] + last

    return rule


def _durations(said: dict[str, str]) -> Iterator[tuple[str, Rule]]:
    for form, after in _MEASURED.items():
        if form in said:
            begin, middle, *_ = _SPEC.split(said[form])
            yield begin, _measured(begin, middle, after)
    if _EXECUTED in said:
        begin, middle, after, *_ = _SPEC.split(said[_EXECUTED])
        for word in ("execute fetch from", "execute"):
            whole = middle + said.get(word, word) + after
            yield begin, _measured(begin, whole, f"  {word} ")
    plain = said.get("duration: %s ms")
    if plain is not None:
        begin, end = _SPEC.split(plain, maxsplit=1)
        # What auto_explain writes behind a duration is not translated, its beginning is English then, too.
        pattern = re.compile(re.escape(begin) + _NUMBER + re.escape(end))

        def rule(message: str) -> str | None:
            found = pattern.fullmatch(message)
            return f"duration: {found[1]} ms" if found is not None else None

        yield begin, rule


def _measured(begin: str, middle: str, after: str) -> Rule:
    pattern = re.compile(re.escape(begin) + _NUMBER + re.escape(middle))

    def rule(message: str) -> str | None:
        found = pattern.match(message)
        return f"duration: {found[1]} ms{after}{message[found.end() :]}" if found is not None else None

    return rule


def _sessions(said: dict[str, str]) -> Iterator[tuple[str, Rule]]:
    parts = [(_begin(said[form]), _begin(form)) for form in _PARTS if form in said]

    def authorized(begin: str, by: str) -> Rule:
        def rule(message: str) -> str:
            rest = message[len(begin) :]
            for translated, plain in parts:
                rest = rest.replace(translated, plain)
            return by + rest

        return rule

    for form in ("connection authorized: user=%s", "replication connection authorized: user=%s"):
        if form in said:
            yield _begin(said[form]), authorized(_begin(said[form]), _begin(form))
    if _AUTHENTICATED in said:
        begin, middle, *_ = _SPEC.split(said[_AUTHENTICATED])

        def authenticated(message: str) -> str | None:
            at = message.rfind(middle)
            if at < len(begin):
                return None
            return _begin(_AUTHENTICATED) + message[len(begin) : at] + '" method=' + message[at + len(middle) :]

        yield begin, authenticated
    if _DISCONNECTION in said:
        end = _begin(said[_DISCONNECTION])

        def disconnection(message: str) -> str | None:
            found = _TIME.match(message, len(end))
            return _begin(_DISCONNECTION) + message[len(end) :] if found is not None else None

        yield end, disconnection
