"""Pages from templates: what comes out of the evidence is escaped, and what would turn text around shown as its code.

Neither can be forgotten in a template: the environment does both to every value. Assets have their hash in their names,
and pages the hash beside the name, so that a browser takes no others.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers.sql import PostgresLexer

from pgwitness.core.printable import visible
from sinks.report import charts

HERE = Path(__file__).parent
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
CELL_CHARS_MAX = 2_000
_FORMATTER = HtmlFormatter(nowrap=True)


@dataclass(frozen=True)
class Asset:
    """A file that pages load: where it is served, its hash for the browser, and its bytes."""

    path: str
    integrity: str
    media_type: str
    content: bytes


def _load() -> dict[str, Asset]:
    found = {}
    for file in sorted((HERE / "assets").iterdir()):
        stem, _, extension = file.name.rpartition(".")
        if extension not in TYPES:
            continue
        content = file.read_bytes()
        path = f"/assets/{stem}.{hashlib.sha256(content).hexdigest()[:16]}.{extension}"
        integrity = "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()
        found[file.name] = Asset(path, integrity, TYPES[extension], content)
    return found


ASSETS = _load()


def _finalize(value: object) -> object:
    """Show a value: nothing for none, times in UTC, lists with commas; markup of ours goes on as it is."""
    return value if hasattr(value, "__html__") else visible(text(value))


def text(value: object) -> str:
    """Write a value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def cell(value: object) -> str:
    """Write a value for a cell, cut where it is long."""
    found = text(value)
    return found if len(found) <= CELL_CHARS_MAX else found[:CELL_CHARS_MAX] + " …"


def instant(value: object) -> object:
    """Mark a time up, so that the page can show it by the reader's clock, too."""
    if not isinstance(value, datetime):
        return value
    moment = value.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(moment.isoformat(), text(moment))


def over_time(label: str, labels: Sequence[str], values: Sequence[int]) -> Markup:
    """Draw counts over time; the drawing escapes what it is given."""
    return Markup(charts.over_time(labels, [("events", values)], label=visible(label)))  # noqa: S704


def touched_chart(relations: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw what somebody touched, by relation; the drawing escapes what it is given."""
    series = [(name, [int(row[name]) for row in relations]) for name in ("written", "read", "refused")]
    return Markup(charts.by_name([visible(text(row["relation"])) for row in relations], series))  # noqa: S704


def asset_tag(name: str) -> Markup:
    """Write the tag that loads an asset."""
    asset = ASSETS[name]
    if name.endswith(".css"):
        return Markup('<link rel="stylesheet" href="{}" integrity="{}">').format(asset.path, asset.integrity)
    return Markup('<script src="{}" integrity="{}" defer></script>').format(asset.path, asset.integrity)


def highlighted(statement: str) -> Markup:
    """Write SQL with its words told apart; the formatter escapes, and gives classes, of which the style sheet knows."""
    return Markup(highlight(visible(statement[:CELL_CHARS_MAX]), PostgresLexer(), _FORMATTER))  # noqa: S704


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%H:%M")


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"instant": instant, "cell": cell, "minute_label": _minute}
    made.globals |= {
        "asset": asset_tag,
        "over_time": over_time,
        "touched_chart": touched_chart,
        "highlighted": highlighted,
        "icon": lambda: ASSETS["icon.svg"].path,
    }
    return made


ENVIRONMENT = _environment()


def render(template: str, values: Mapping[str, Any]) -> str:
    """Write a page."""
    return ENVIRONMENT.get_template(template).render(values)
