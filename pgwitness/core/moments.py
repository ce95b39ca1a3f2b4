"""Times as people write them: `2026-03-01`, `2026-03-01T08:00:00Z`, or how long ago, `24h`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.units import Duration


def when(text: str, now_us: int) -> int:
    """Read a time, in UTC where it does not say, or how long ago; the epoch for what is before it.

    Raises `ConfigurationError` for what is no time.
    """
    try:
        return max(0, now_us - int(Duration.parse(text) * 1_000_000))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no time; write 2026-03-01, 2026-03-01T08:00:00Z or 24h") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return max(0, (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
