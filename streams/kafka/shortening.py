"""An alert that no record can carry, made short: what it says stays, long texts and lists are cut. Pure."""

from __future__ import annotations

from typing import Any

ALERT_BYTES_MAX = 900_000
"""Less than what the topic of alerts takes, should nothing of it be compressible."""
TEXT_CHARS_MAX = 1_000
ITEMS_MAX = 50
DEPTH_MAX = 8


def shortened(value: Any, depth: int = 0) -> Any:
    """Return JSON with texts, lists and depth bounded; what was cut ends in `…`."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX] + "…"
    if isinstance(value, dict | list | tuple) and depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, dict):
        kept = list(value.items())[:ITEMS_MAX]
        return {shortened(str(name)): shortened(item, depth + 1) for name, item in kept}
    if isinstance(value, list | tuple):
        return [shortened(item, depth + 1) for item in value[:ITEMS_MAX]] + (["…"] if len(value) > ITEMS_MAX else [])
    return value
