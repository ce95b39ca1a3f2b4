"""Judges columns: by names, types and neighbours, and by the shares of values that have a form. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

from collectors.discovery.columns import CONFIDENCES, Column, Confidence, Finding
from collectors.discovery.rules import ABOUT, PERSONS, RULES, Rule

SEEN_MIN = 5
"""Values below which a share says nothing against a name, and nothing by itself."""
SURE, SOME, RARE = 0.8, 0.2, 0.02
"""Shares of values: the form is the column's, the column holds such values, too, or a text mentions some."""
FORMS = frozenset({"email", "bank", "card", "phone", "credential", "identity", "online"})
"""Categories that a value's form tells by itself."""
STRICT = frozenset({"email"})
"""Categories whose every value has the form: a name is doubted where none has it."""
PERSONAL = frozenset({"person_name", "birth", "identity", "health", "income"})
"""What makes a table one of persons, whatever its name."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_FOLDED = str.maketrans(
    {"ß": "ss", "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ł": "l", "ø": "o"}
)
_WINDOW = 4
_ENDINGS = ("kunden", "mitarbeiter", "patienten")


def words(name: str) -> tuple[str, ...]:
    """Cut a name into its words, in lower case and without accents: `E-Mail`, `dateOfBirth`, `geburts_datum`."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", name).translate(_FOLDED))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return tuple(word.lower() for word in _WORD.findall(plain))


def judge(columns: Iterable[Column]) -> list[Finding]:
    """Return what looks sensitive, in the order of the columns; those of a table have to come one after the other."""
    found: list[Finding] = []
    for _, group in groupby(columns, key=lambda column: (column.schema, column.table)):
        found += _judge_table(list(group))
    return found


def _judge_table(columns: Sequence[Column]) -> list[Finding]:
    table = words(columns[0].table)
    first = [_named(column, table, frozenset()) for column in columns]
    contexts = set()
    beside = any(rule is not None and rule.category in PERSONAL for rule in first)
    if PERSONS.intersection(table) or any(word.endswith(_ENDINGS) for word in table) or beside:
        contexts.add("persons")
    if any(rule is not None and rule.category == "address" for rule in first):
        contexts.add("address")
    if contexts:
        first = [_named(column, table, frozenset(contexts)) for column in columns]
    return [found for column, rule in zip(columns, first, strict=True) if (found := _weighed(column, rule)) is not None]


def _named(column: Column, table: tuple[str, ...], contexts: frozenset[str]) -> Rule | None:
    """Return the first rule that the column's name and type satisfy."""
    name = words(column.name)
    return next(
        (
            rule
            for rule in RULES
            if column.kind in rule.kinds and (not rule.context or rule.context in contexts) and _says(rule, name, table)
        ),
        None,
    )


def _says(rule: Rule, name: tuple[str, ...], table: tuple[str, ...]) -> bool:
    for begin in range(len(name)):
        for end in range(begin + 1, min(begin + _WINDOW, len(name)) + 1):
            if "".join(name[begin:end]) in rule.phrases:
                rest = (*name[:begin], *name[end:])
                if not ABOUT.intersection(rest) and (not rule.plain or _own(rest, table)):
                    return True
    return any(
        stem in word and not ABOUT.intersection((*name[:at], *name[at + 1 :]))
        for at, word in enumerate(name)
        for stem in rule.stems
    )


def _own(rest: tuple[str, ...], table: tuple[str, ...]) -> bool:
    """Say whether what else a name has is the table's name (`customer_name` in `customers`)."""
    return all(any(word.startswith(one) or one.startswith(word) for word in table) for one in rest)


def _weighed(column: Column, rule: Rule | None) -> Finding | None:
    """Put together what the name and the values say."""
    shares, why = column.shares, []
    confidence: Confidence | None = None
    category = ""
    if rule is not None:
        category, confidence = rule.category, rule.confidence
        why.append(f"name and type say {category}")
        if column.few and category in {"person_name", "address", "phone", "email", "account"}:
            confidence = _lower(confidence)
            why.append("hardly any different values")
    if shares is not None and shares.seen:
        told = max(FORMS, key=lambda form: (shares.of(form), form == category, form))
        share = shares.of(told)
        if told == category and share >= SOME:
            confidence = "high"
            why.append(f"{share:.0%} of {shares.seen} values have its form")
        elif shares.seen >= SEEN_MIN and share >= (SURE if column.kind == "text" else 0.95) and told != category:
            category, confidence = told, "high" if confidence is None or category in STRICT else confidence
            why.append(f"{share:.0%} of {shares.seen} values have the form of {told}")
        elif shares.seen >= SEEN_MIN and confidence in {None, "low"}:
            category, confidence, why = _mentioned(column, category, confidence, why)
        elif category in STRICT and shares.seen >= SEEN_MIN and not shares.of(category) and confidence is not None:
            confidence = _lower(confidence)
            why.append(f"none of {shares.seen} values has its form")
    if column.labelled:
        category, confidence = category or "labelled", "high"
        why.append("its comment or security label says so")
    if confidence is None:
        return None
    return Finding(column=column, category=category, confidence=confidence, why=tuple(why))


def _mentioned(
    column: Column, category: str, confidence: Confidence | None, why: list[str]
) -> tuple[str, Confidence | None, list[str]]:
    """Look whether some values have a form, or mention what has one."""
    shares = column.shares
    assert shares is not None
    told = max(FORMS, key=lambda form: (shares.of(form), form))
    if column.kind == "text" and shares.of(told) >= SOME and told != "phone":
        return told, "medium", [*why, f"{shares.of(told):.0%} of {shares.seen} values have the form of {told}"]
    mentioned = shares.of("mentions")
    if mentioned >= (RARE if column.kind == "text" else SOME):
        said = f"{mentioned:.0%} of {shares.seen} values mention addresses or keys of personal data"
        return category or "free_text", "medium", [*why, said]
    return category, confidence, why


def _lower(confidence: Confidence) -> Confidence:
    return CONFIDENCES[min(CONFIDENCES.index(confidence) + 1, len(CONFIDENCES) - 1)]
