"""The page of a report: one HTML file with nothing from elsewhere in it, for a person who writes no SQL. Pure.

What comes out of the evidence may have been chosen by an attacker (names of applications, roles, relations): every
value is escaped, and what would turn text around is written as its code. The page has no script, and forbids any.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from pgwitness.core.printable import visible
from sinks.report import charts
from sinks.report.facts import Facts, Subject, Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1f24;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .4rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{text-align:left;padding:3px 8px;vertical-align:top;
border-bottom:1px solid #e4e4e4;overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.figures{display:flex;flex-wrap:wrap;gap:1.5rem;margin:1rem 0}.figures b{display:block;font-size:1.5rem}
.warn{background:#fdf0e6;border-left:4px solid #b4412f;padding:.5rem .8rem}.note{color:#57606a;font-size:13px}
svg{width:100%;height:auto;font-size:12px}@media print{h2{break-after:avoid}tr{break-inside:avoid}}
"""
SURE = {
    "exact": "the session itself said so, or the transaction carried its name",
    "strong": "only one session can have been it",
    "weak": "a guess among several",
    "none": "no session is known",
}
SERIES = ("writes", "reads", "refused or undone")


def render(facts: Facts) -> str:
    """Write the page; the same facts give the same bytes."""
    total = facts.totals
    figures = [
        ("accesses", total["accesses"] or 0), ("rows changed", total["rows_changed"]), ("reads", total["reads"]),
        ("refused or undone", total["refused"]), ("findings", facts.findings.total), ("gaps", facts.gaps.total),
    ]  # fmt: skip
    by = "By relation" if facts.subject.principal is not None else "By whom"
    body = [
        f"<h1>{_safe(_title(facts.subject))}</h1><p class=note>{_safe(_span(facts.subject))}</p>",
        "<div class=figures>" + "".join(f"<div><b>{value}</b>{name}</div>" for name, value in figures) + "</div>",
        _warnings(facts),
        _section("Over time", _time(facts.activity)),
        _section(by, _names(facts.parts)),
        _section("What was found", _table(facts.findings, "Nothing was found.")),
        _section("Logins", _table(facts.logins, "No login was seen.")),
        _section("How sure it is who did it", _sure(facts)),
        _section("What is missing", _missing(facts)),
        _section("Accesses, the latest first", _table(facts.accesses, "None.")),
        _section("What this page rests on", _rests(facts)),
    ]
    title = _safe(_title(facts.subject))
    head = f'<meta charset=utf-8><meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _title(subject: Subject) -> str:
    if subject.principal is not None and subject.relation is not None:
        return f"{subject.principal} at {subject.relation}"
    if subject.principal is not None:
        return f"What {subject.principal} did"
    return f"Who accessed {subject.relation}" if subject.relation is not None else "What was done"


def _span(subject: Subject) -> str:
    since = "from the beginning of the lake" if not subject.since_us else f"from {_instant(subject.since_us)}"
    until = "to its end" if subject.until_us is None else f"until before {_instant(subject.until_us)}"
    return f"Evidence of pgwitness {since} {until}. All times are UTC, by the database's clock."


def _warnings(facts: Facts) -> str:
    said = []
    if facts.unnamed.total:
        said.append(
            f"Transactions that nobody vouches for, or that contradict their statements: {facts.unnamed.total}."
        )
    if facts.gaps.total:
        said.append(f"Evidence is missing: {facts.gaps.total} gaps, listed below.")
    return "".join(f"<p class=warn>{text}</p>" for text in said)


def _time(table: Table) -> str:
    if not table.rows:
        return "<p>Nothing in this period.</p>"
    labels = [_cell(row[0])[:16] for row in table.rows]
    return charts.over_time(labels, [(name, [row[n] for row in table.rows]) for n, name in enumerate(SERIES, 1)])


def _names(table: Table) -> str:
    if not table.rows:
        return "<p>Nothing in this period.</p>"
    names = [visible(str(row[0])) for row in table.rows]
    drawn = charts.by_name(names, [(name, [row[n] for row in table.rows]) for n, name in enumerate(SERIES, 1)])
    more = table.total - len(table.rows)
    return drawn + (f"<p class=note>And {more} more.</p>" if more > 0 else "")


def _sure(facts: Facts) -> str:
    words = "".join(f"<li><b>{word}</b>: {text}</li>" for word, text in SURE.items())
    return (
        _table(facts.sureness, "Nothing to be sure of.")
        + f"<p class=note>Certainty is how surely an access is a session's:</p><ul class=note>{words}</ul>"
        "<p class=note>Assurance is how surely a session is the principal's: verified by the server or a signature, "
        "asserted by the client, known by a role that others may share (role only), or not at all.</p>"
    )


def _missing(facts: Facts) -> str:
    return (
        _table(facts.gaps, "No gap was reported in this period.")
        + "<h3>Changes that nobody vouches for</h3>"
        + _table(facts.unnamed, "None: each transaction is tied to a session.")
        + "<p class=note>"
        "Reads are known where the server's log or statistics tell them, but not which rows they gave.</p>"
    )


def _rests(facts: Facts) -> str:
    return (
        _table(facts.rests_on, "No event lies in this period.")
        + "<p class=note>Events of the period in this lake, and the SHA-256 of their ids in order: another copy of the "
        "lake gives the same page. No seal was checked for it: that nobody altered the lake is not proven here.</p>"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}"


def _table(table: Table, empty: str) -> str:
    if not table.rows:
        return f"<p>{empty}</p>"
    numeric = [all(isinstance(row[n], int | float | None) for row in table.rows) for n in range(len(table.columns))]
    kind = [" class=n" if number else "" for number in numeric]
    head = "".join(f"<th{k}>{_safe(name.replace('_', ' '))}</th>" for name, k in zip(table.columns, kind, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{k}>{_safe(_cell(value))}</td>" for value, k in zip(row, kind, strict=True)) + "</tr>\n"
        for row in table.rows
    )
    more = table.total - len(table.rows)
    note = f"<p class=note>The first {len(table.rows)} of {table.total}.</p>" if more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>{note}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return str(value)


def _instant(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%d %H:%M:%S")  # a float would round the last up


def _safe(text: str) -> str:
    return escape(visible(text))
