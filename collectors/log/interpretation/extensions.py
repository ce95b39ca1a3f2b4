"""Lines of auto_explain and pgAudit, taken apart. Plans and parameters hold values and are thrown away.

https://www.postgresql.org/docs/current/auto-explain.html, https://github.com/pgaudit/pgaudit#format
"""

from __future__ import annotations

import csv
import re
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

AUDIT = "AUDIT: "
_ROOT = re.compile(r"^\S.*  \((?:cost=|actual )", re.MULTILINE)
_PARAMETERS = re.compile(r"^Query (?:Parameters|Identifier): ", re.MULTILINE)
_AUDIT_FIELDS = ("type", "statement_id", "substatement_id", "class", "command", "object_type", "object_name")


class Explained(NamedTuple):
    """What a line of auto_explain says: the statement, its rows where it is a query that was analyzed."""

    text: str | None
    rows: int | None = None
    query_id: int = 0


class Audited(NamedTuple):
    """What a line of pgAudit says; `text` is None where it was logged before or is not logged."""

    audit: dict[str, str]
    text: str | None
    rows: int | None = None


class _Plan(Struct):
    node: str = field(name="Node Type", default="")
    rows: Annotated[float, Meta(ge=0, le=1e15)] | None = field(name="Actual Rows", default=None)


class _Explain(Struct):
    text: str = field(name="Query Text")
    query_id: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] = field(name="Query Identifier", default=0)
    plan: _Plan = field(name="Plan", default_factory=_Plan)


_explain = msgspec.json.Decoder(_Explain).decode


_REDACTED = " <REDACTED>"


def explained(body: str) -> Explained:
    """Read what follows `plan:`, as JSON or text; of the other formats, and of garbage, nothing is known."""
    body = body.lstrip("\n\t ")
    if body.startswith("{"):
        try:
            found = _explain(body)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return Explained(None)
        counted = found.plan.rows is not None and found.plan.node != "ModifyTable"
        return Explained(found.text, int(found.plan.rows or 0) if counted else None, found.query_id)
    if not body.startswith("Query Text: "):
        return Explained(None)
    text = body[len("Query Text: ") :]
    # The root of the plan is its only line that is not indented. A statement that imitates one comes before it.
    roots = list(_ROOT.finditer(text))
    if not roots:
        return Explained(None)
    text = text[: roots[-1].start()]
    parameters = list(_PARAMETERS.finditer(text))
    return Explained(text[: parameters[-1].start()].rstrip() if parameters else text.rstrip())


def audited(message: str) -> Audited | None:
    """Read a message that begins with `AUDIT: `; None for one that is no such record."""
    body = message[len(AUDIT) :]
    try:
        rows = list(csv.reader([line + "\n" for line in body.split("\n")], strict=True))
    except csv.Error:
        return None
    if len(rows) != 1 or len(rows[0]) < 8 or rows[0][0] not in ("SESSION", "OBJECT"):
        return None
    row = rows[0]
    text: str | None = row[7]
    if text in ("", "<previously logged>", "<not logged>"):
        text = None
    elif text is not None and text.endswith(_REDACTED):
        # pgAudit cuts a statement off behind the word PASSWORD: with a password in the place of its mark it parses.
        text = text.removesuffix(_REDACTED) + " ''"
    count = row[9] if len(row) > 9 else ""
    known = count.isascii() and count.isdigit() and len(count) <= 18
    return Audited(
        {name: value for name, value in zip(_AUDIT_FIELDS, row, strict=False) if value},
        text,
        int(count) if known else None,
    )
