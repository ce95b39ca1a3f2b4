"""Local time and calendars: what clocks and calendars somewhere showed when an action happened; pure.

The time is that of the event, never a clock's. Zones are those of the package `tzdata` and not of the machine, so that
every worker that runs the same release agrees. From an instant to a local time there is one way only, also when clocks
are put forward or back; from a local time to an instant there is not. So a period holds when the clock there shows a
time in it: of an hour that is skipped nothing is shown, and one that comes twice is in it both times.

`calendars.yaml` beside the policies:

    holidays:
      zone: Europe/Berlin
      yearly: ["01-01", "12-25", "12-26"]
      days: [2026-04-03, 2026-04-06]
    freeze:
      zone: Europe/Berlin
      ranges: [{from: 2026-03-27 18:00, until: 2026-04-02}]     # until a day: that day included
    on_call:
      zone: Europe/Berlin
      weekly: [{days: [mon, tue, wed, thu], from: "18:00", until: "08:00"}, {days: [sat, sun]}]
"""

from __future__ import annotations

import calendar as months
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from detectors.policy.details import Shape

FILES = ("calendars.yaml", "calendars.yml")
CALENDARS_MAX = 100
ENTRIES_MAX = 2_000
"""Days, ranges and weekly windows of one calendar."""
CLOCK: dict[str, Shape] = {
    **dict.fromkeys(("hour", "minute", "weekday", "day", "month", "year", "days_left"), "int"),
    "date": "string",
}
"""What a clock shows: `weekday` counts from Monday, 0; `days_left` are days of the month after this one."""

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: dict[str, int] = {name: number for number, name in enumerate(get_args(Weekday))}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_YEARLY = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_MIN, _SECONDS_MAX = -62_000_000_000, 253_000_000_000
"""Years 5 to 9987: what claims to be beyond is taken for the end of it."""


class Range(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from"}):
    """From a day or time on, until another; a day as the end is in it."""

    begin: str
    until: str


class Window(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from"}):
    """Hours that come each week, on these days; past midnight where the end is not after the beginning."""

    days: list[Weekday]
    begin: str = "00:00"
    until: str = "24:00"


class Calendar(Struct, frozen=True, forbid_unknown_fields=True):
    """One calendar as it is written."""

    zone: str = "UTC"
    days: list[str] = []
    yearly: list[str] = []
    ranges: list[Range] = []
    weekly: list[Window] = []


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """Return a time zone of `tzdata`. Raise `ValueError` for a name that it does not have."""
    if _ZONE.fullmatch(name):
        file = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
        try:
            with file.open("rb") as data:
                return ZoneInfo.from_file(data, name)
        except (OSError, ValueError):
            pass
    raise ValueError(f"there is no time zone {name!r}; write it as Europe/Berlin or UTC")


def shown(name: str, at_us: int) -> dict[str, object]:
    """Return what a clock in a zone shows at an instant (`CLOCK`)."""
    return _shown(name, min(max(at_us // 60_000_000, _SECONDS_MIN // 60), _SECONDS_MAX // 60))


@lru_cache(maxsize=4096)
def _shown(name: str, minute: int) -> dict[str, object]:
    local = _local(name, minute)
    return {
        "hour": local.hour,
        "minute": local.minute,
        "weekday": local.weekday(),
        "day": local.day,
        "month": local.month,
        "year": local.year,
        "date": local.date().isoformat(),
        "days_left": months.monthrange(local.year, local.month)[1] - local.day,
    }


@lru_cache(maxsize=4096)
def _local(name: str, minute: int) -> datetime:
    """Return the local time of an instant, in minutes since the epoch, without its zone."""
    return (_EPOCH + timedelta(minutes=minute)).astimezone(zone(name)).replace(tzinfo=None)


class _Compiled:
    """A calendar that can be asked."""

    def __init__(self, written: Calendar) -> None:
        self.zone = written.zone
        zone(written.zone)
        entries = len(written.days) + len(written.yearly) + len(written.ranges) + len(written.weekly)
        if not 1 <= entries <= ENTRIES_MAX:
            raise ValueError(f"days, yearly, ranges or weekly: 1 to {ENTRIES_MAX} entries are needed")
        self.days = frozenset(_day(text) for text in written.days)
        self.yearly = frozenset(_yearly(text) for text in written.yearly)
        self.ranges = [_range(item) for item in written.ranges]
        self.weekly = [_window(item) for item in written.weekly]

    def holds(self, local: datetime) -> bool:
        """Return whether a clock that shows this is in the calendar."""
        day = local.date()
        if day in self.days or day.strftime("%m-%d") in self.yearly:
            return True
        if any(begin <= local < end for begin, end in self.ranges):
            return True
        return any(_in(window, local) for window in self.weekly)


_Weekly = tuple[frozenset[int], str, str]


def _in(window: _Weekly, local: datetime) -> bool:
    days, begin, until = window
    time = local.strftime("%H:%M")
    if begin < until:
        return local.weekday() in days and begin <= time < until
    yesterday = (local.weekday() - 1) % 7
    return (local.weekday() in days and time >= begin) or (yesterday in days and time < until)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"days: {text!r} is no day such as 2026-12-25") from None


def _yearly(text: str) -> str:
    if not _YEARLY.fullmatch(text):
        raise ValueError(f"yearly: {text!r} is no month and day such as 12-25")
    return text


def _range(item: Range) -> tuple[datetime, datetime]:
    begin, end = (_moment(text) for text in (item.begin, item.until))
    if len(item.until) == len("2026-12-25"):
        end += timedelta(days=1)
    if begin >= end:
        raise ValueError(f"ranges: {item.until!r} is not after {item.begin!r}")
    return begin, end


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise ValueError(f"ranges: {text!r} is no local day or time such as 2026-03-27 18:00")
    return found


def _window(item: Window) -> _Weekly:
    for text in (item.begin, item.until):
        if not _TIME.fullmatch(text) and text != "24:00":
            raise ValueError(f'weekly: {text!r} is no time such as "18:00"')
    if not item.days:
        raise ValueError("weekly: days: at least one")
    return frozenset(_DAYS[day] for day in item.days), item.begin, item.until


class Calendars:
    """The calendars of one set of policies, by name."""

    def __init__(self, written: Mapping[str, Calendar] | None = None) -> None:
        """Check calendars. Raise `ValueError` that names the calendar and what is wrong with it."""
        self.written = dict(sorted((written or {}).items()))
        if len(self.written) > CALENDARS_MAX:
            raise ValueError(f"more than {CALENDARS_MAX} calendars")
        self._compiled: dict[str, _Compiled] = {}
        for name, calendar in self.written.items():
            try:
                if not _NAME.fullmatch(name):
                    raise ValueError("a name is lower case, digits and _")
                self._compiled[name] = _Compiled(calendar)
            except ValueError as error:
                raise ValueError(f"calendar {name}: {error}") from None
        self._holds = lru_cache(maxsize=4096)(self._ask)

    @property
    def names(self) -> list[str]:
        """The calendars there are."""
        return list(self.written)

    def holds(self, name: str, at_us: int) -> bool:
        """Return whether an instant is in a calendar, by the clock of its zone."""
        return self._holds(name, min(max(at_us // 60_000_000, _SECONDS_MIN // 60), _SECONDS_MAX // 60))

    def _ask(self, name: str, minute: int) -> bool:
        found = self._compiled[name]
        return found.holds(_local(found.zone, minute))

    def value(self, attribute: str, names: Iterable[str], at_us: int) -> dict[str, object]:
        """Return the value of the fields `clock` and `during` for the zones or calendars that are asked for."""
        if attribute == "clock":
            return {name: shown(name, at_us) for name in names}
        return {name: self.holds(name, at_us) for name in names}


NONE = Calendars()


def parse_calendars(tree: Any) -> Calendars:
    """Read the content of a calendar file. Raise `ValueError` that says what is wrong."""
    try:
        return Calendars(msgspec.convert(_texts(tree) or {}, dict[str, Calendar]))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _texts(tree: Any) -> Any:
    """Take days and times that YAML has read as such for the texts they are."""
    if isinstance(tree, datetime):
        return tree.isoformat(sep=" ")
    if isinstance(tree, date):
        return tree.isoformat()
    if isinstance(tree, dict):
        return {key: _texts(value) for key, value in tree.items()}
    return [_texts(item) for item in tree] if isinstance(tree, list) else tree
