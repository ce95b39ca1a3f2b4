"""The page of a report: one HTML file with nothing from elsewhere in it, for a person who writes no SQL. Pure.

What comes out of the evidence may have been chosen by an attacker (names of applications, roles, relations): every
value is escaped, and what would turn text around is written as its code. The page has no script, and forbids any.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from pgwitness.core.printable import visible
from sinks.report import charts
from sinks.report.facts import Facts, Requirement, Table
from sinks.report.subject import EPOCH, Subject

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1f24;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .4rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{text-align:left;padding:3px 8px;vertical-align:top;
border-bottom:1px solid #e4e4e4;overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.figures{display:flex;flex-wrap:wrap;gap:1.5rem;margin:1rem 0}.figures b{display:block;font-size:1.5rem}
.warn{background:#fdf0e6;border-left:4px solid #b4412f;padding:.5rem .8rem}.note{color:#57606a;font-size:13px}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
svg{width:100%;height:auto;font-size:12px}@media print{h2{break-after:avoid}tr{break-inside:avoid}}
"""
SURE = {
    "exact": "the session itself said so, or the transaction carried its name",
    "strong": "only one session can have been it",
    "weak": "a guess among several",
    "none": "no session is known",
}
FINDINGS_SHOWN = 200
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
        _requirements(facts),
        _section("Over time", _time(facts.activity)),
        _section(by, _names(facts.parts)),
        _section("What was found", _table(facts.findings, "Nothing was found.")),
        _section("Logins", _table(facts.logins, "No login was seen.")),
        _section("How sure it is who did it", _sure(facts)),
        _section("What is missing", _missing(facts)),
        _section("What retention took", _retired(facts)),
        _section("Accesses, the latest first", _table(facts.accesses, "None.")),
        _section("What this page rests on", _rests(facts)),
    ]
    title = _safe(_title(facts.subject))
    head = (
        '<meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
    )
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in body if part)}\n</main></body></html>\n"
    )


def _requirements(facts: Facts) -> str:
    """Show the requirements of a standard, each with its question, the answer and the query that gave it."""
    if not facts.standard:
        return ""
    said = "".join(f"<h3>{_safe(one.words)}</h3>{_answer(one)}" for one in facts.requirements)
    return _section(
        facts.standard,
        "<p class=note>What the evidence of the period says; what is not in it stands under <i>What is missing</i>.</p>"
        + said,
    )


def _answer(one: Requirement) -> str:
    if one.answer is None:
        return "<p>Not asked: name the relation that holds cardholder data.</p>"
    return _table(one.answer, "Nothing.") + f"<pre class=note>{_safe(one.query)}</pre>"


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
    if facts.retired.total:
        said.append("Retention took part of this period: what went is in no figure of this page, and listed below.")
    said += _doubts(facts)
    return "".join(f"<p class=warn>{text}</p>" for text in said)


def _doubts(facts: Facts) -> list[str]:
    """Say what the seal does not hold for, where somebody would believe that it does."""
    found, verified = facts.standing, facts.verified
    said = []
    if found.trouble is not None:
        said.append(f"How far this lake is sealed is not known: {_safe(found.trouble)}.")
    elif found.sealed_to < 0:
        said.append("This lake is not sealed: whoever can write it can have altered what this page says.")
    elif rows := _chained_rows(facts):
        said.append(f"Of this period {'' if found.counted else 'at least '}{rows} rows are not sealed yet.")
    if verified is not None and verified.findings:
        said.append(f"Verification found {len(verified.findings)} things that are not in order, listed at the end.")
    return said


def _chained_rows(facts: Facts) -> int:
    """Count the events of the period, by their days of capture, in files that are not sealed."""
    first, last = facts.subject.days
    return sum(
        file.rows
        for file in facts.standing.chained
        if file.table == "events" and file.days[0] <= last and first <= file.days[1]
    )


def _retired(facts: Facts) -> str:
    held = f"<h3>What is held</h3>{_table(facts.holds, '')}" if facts.holds.rows else ""
    return (
        _table(facts.retired, "Nothing of this period was retired.")
        + "<p class=note>By days of capture. Files go as a whole, whoever's events are in them; the lake's log keeps "
        "their hashes. Without <code>rows</code> the values before and after a change are gone, and not the change.</p>"
        + held
    )


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
        f"lake gives the same page.</p><p>{_sealed(facts)}</p>{_verified(facts)}"
    )


def _sealed(facts: Facts) -> str:
    """Say in sentences how far the seal goes."""
    found = facts.standing
    read = f"The page rests on the entries 0 to {found.number} of the lake's log." if found.number >= 0 else ""
    if found.trouble is not None:
        return f"{read} How far it is sealed is not known: {_safe(found.trouble)}."
    if found.sealed_to < 0:
        return f"{read} The lake is not sealed."
    checked = "" if found.signed else ", which nobody has checked the signature of, for no public key is configured"
    behind = f"{found.entries} entries behind it are only chained"
    rows = f"{'' if found.counted else 'at least '}{_chained_rows(facts)} events of this period lie in their files"
    return (
        f"{read} They are sealed to entry {found.sealed_to}, of {_instant(found.sealed_at_us)} by the lake's clock"
        f"{checked}. " + (f"{behind}; {rows}." if found.entries else "Nothing is only chained.")
    )


def _verified(facts: Facts) -> str:
    """Say whether anybody has looked whether the lake is what was sealed, and what came of it."""
    report = facts.verified
    if report is None:
        return (
            "<p>Verification was not run for this page: that the files are still those that were sealed is not proven "
            "here. <code>pgwitness verify</code> finds out.</p>"
        )
    what = f"Verification was run for this page, over {report.entries} entries and {report.files} files"
    notes = "".join(f"<li>{_safe(note)}</li>" for note in report.notes)
    if not report.findings:
        return f"<p>{what}: all is in order.</p><ul class=note>{notes}</ul>"
    rows = [[one.kind.replace("_", " "), one.subject, one.text] for one in report.findings[:FINDINGS_SHOWN]]
    table = Table(["not in order", "what", "why"], rows, len(report.findings))
    return f"<p>{what}.</p>{_table(table, '')}<ul class=note>{notes}</ul>"


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
    return (EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%d %H:%M:%S")  # a float would round the last up


def _safe(text: str) -> str:
    return escape(visible(text))
