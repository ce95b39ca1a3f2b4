"""Charts as inline SVG, without scripts: bars over time, and bars by name. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = ("#2f5d8a", "#9dbbd6", "#b4412f")
"""Of writes, reads and what was refused; told apart in grey, too."""
WIDTH = 900
HEIGHT = 180
LEFT = 60
TEXT = 16


def over_time(
    labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]], *, label: str = "accesses over time"
) -> str:
    """Draw stacked bars, one of `labels` each, with the greatest sum on the axis; `label` names the whole."""
    sums = [sum(values) for values in zip(*(values for _, values in series), strict=True)]
    top = max(sums, default=0) or 1
    step = (WIDTH - LEFT) / max(len(labels), 1)
    bar = min(step * 0.8, 60.0)
    parts = [
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT + 3 * TEXT}" aria-label="{escape(label)}">',
        f'<line x1="{LEFT}" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}" stroke="#888"/>',
        f'<text x="{LEFT - 6}" y="{TEXT}" text-anchor="end">{top}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT}" text-anchor="end">0</text>',
    ]
    for place, under in enumerate(labels):
        x, y = LEFT + place * step + (step - bar) / 2, float(HEIGHT)
        for (name, values), colour in zip(series, COLOURS, strict=False):
            high = values[place] / top * (HEIGHT - TEXT)
            y -= high
            if values[place]:
                title = f"<title>{escape(under)}: {values[place]} {escape(name)}</title>"
                size = f'x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{high:.1f}"'
                parts.append(f'<rect {size} fill="{colour}">{title}</rect>')
    for place in sorted({0, len(labels) - 1}) if labels else ():
        x = LEFT + place * step + step / 2
        anchor = "start" if place == 0 and len(labels) > 1 else "end" if place else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + TEXT + 2}" text-anchor="{anchor}">{escape(labels[place])}</text>')
    legend = _legend([name for name, _ in series], HEIGHT + 2 * TEXT + 6) if len(series) > 1 else ""
    return "".join([*parts, legend, "</svg>"])


def by_name(names: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Draw a bar for each name, its sum written behind it."""
    sums = [sum(values) for values in zip(*(values for _, values in series), strict=True)]
    top = max(sums, default=0) or 1
    left, row = 280, 22
    parts = [f'<svg role="img" viewBox="0 0 {WIDTH} {row * len(names) + 2 * TEXT}" aria-label="accesses by name">']
    for place, (name, total) in enumerate(zip(names, sums, strict=True)):
        x, y = float(left), place * row + 2
        shown = name if len(name) <= 36 else name[:35] + "…"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(shown)}</text>')
        for (_, values), colour in zip(series, COLOURS, strict=False):
            wide = values[place] / top * (WIDTH - left - 80)
            if values[place]:
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{row - 6}" fill="{colour}"/>')
            x += wide
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{total}</text>')
    return "".join([*parts, _legend([name for name, _ in series], row * len(names) + TEXT), "</svg>"])


def _legend(names: Sequence[str], y: int) -> str:
    parts = []
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        x = LEFT + place * 120
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y}">{escape(name)}</text>')
    return "".join(parts)
