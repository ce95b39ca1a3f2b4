"""What of the findings the configuration has already, and the entries of `[privacy]` for the others. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from collectors.discovery.columns import Column, Finding
from collectors.discovery.rules import HOW
from detectors.sensitive import Sensitive
from pgwitness.core.config import Mask, Privacy
from pgwitness.core.events import qualified, quote_identifier
from pgwitness.core.privacy import names_subject

_GLOB = re.compile(r"[*?\[]")


def full_name(column: Column) -> str:
    """Return `schema.table.column`, quoted as SQL would, as the collectors name it."""
    return f"{qualified(column.schema, column.table)}.{quote_identifier(column.name)}"


def pattern(column: Column) -> str:
    """Return the pattern that means just this column: what a glob would read otherwise stands in brackets."""
    return _GLOB.sub(r"[\g<0>]", full_name(column))


class Covered:
    """Says by what the configuration covers a column."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._sensitive = Sensitive(privacy.sensitive)

    def by(self, column: Column) -> str:
        """Return the treatment of its mask, `clear` where somebody decided so, `sensitive`, or nothing.

        What names a data subject has a token, as if a mask said so.
        """
        name = full_name(column)
        for rule in self._privacy.mask:
            if fnmatchcase(name, rule.column):
                return rule.with_
        if any(fnmatchcase(name, entry) for entry in self._privacy.clear):
            return "clear"
        if names_subject(name, self._privacy):
            return "token"
        return "sensitive" if self._sensitive.among([name], []) else ""


def proposed(finding: Finding) -> Literal["token", "last4", "drop", "sensitive"]:
    """Return how a column's values should be masked; `sensitive` for one of a view, which is in no stream of changes.

    What is part of a primary key keeps a token, so that rows can be told apart.
    """
    if finding.column.view:
        return "sensitive"
    return "token" if finding.column.key else HOW.get(finding.category, "token")


def toml(privacy: Privacy, findings: Iterable[Finding]) -> str:
    """Return `mask` and `sensitive` of `[privacy]`: what is there, then what the findings add."""
    masks, sensitive = list(privacy.mask), list(privacy.sensitive)
    for finding in findings:
        name, how = pattern(finding.column), proposed(finding)
        if how == "sensitive":
            sensitive += [name] if name not in sensitive else []
        elif all(name != rule.column for rule in masks):
            masks.append(Mask(column=name, with_=how))
    lines = ["[privacy]", "mask = ["]
    lines += [f'  {{ column = {_quoted(rule.column)}, with = "{rule.with_}" }},' for rule in masks]
    lines += ["]", "sensitive = ["]
    lines += [f"  {_quoted(name)}," for name in sensitive]
    return "\n".join([*lines, "]"])


def _quoted(text: str) -> str:
    """Write a basic string of TOML."""
    made = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08X}" for letter in made) + '"'
