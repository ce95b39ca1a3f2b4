"""Durations and sizes as people write them: `10s`, `500ms`, `8KiB`, `10GB`.

A unit is required where the number alone would leave a doubt; `docs/reference/configuration.md` lists them.
"""

from __future__ import annotations

import re

_DURATIONS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_SIZES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


class Duration(float):
    """A length of time in seconds, written `500ms`, `10s`, `5m`, `1h` or `7d`."""

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Read a duration. Raises `ValueError` with an example in its text."""
        return cls(_parse(value, _DURATIONS_S, "10s"))


class Size(int):
    """A number of bytes, written `8KiB`, `10GB`."""

    @classmethod
    def parse(cls, value: object) -> Size:
        """Read a size. Raises `ValueError` with an example in its text."""
        return cls(int(_parse(value, _SIZES, "8KiB")))


def _parse(value: object, units: dict[str, int] | dict[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(
            f"expected a number with one of the units {', '.join(units)}, such as {example!r}; got {value!r}"
        )
    return float(match[1]) * units[match[2]]
