"""Logging for every command: structlog to stderr, one line an event, JSON when stderr is not a terminal.

In a daemon's own process nothing else comes there (`own`): what libraries log, warnings, and exceptions that end a
thread or the process become such lines too. librdkafka writes by itself unless a client is given `LIBRDKAFKA`.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from types import TracebackType
from typing import Any, Final, ParamSpec

import structlog

from pgwitness.core.errors import PgwitnessError
from pgwitness.core.printable import visible

CAUSES_MAX = 10
P = ParamSpec("P")


def trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write down where an exception came from and of what type it is, but for what it says.

    One that nobody foresaw may quote what it stumbled upon: a row, a statement, a password. Ours are made for the log.
    """
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = "\n".join(_lines(error))
    return event


def _lines(error: BaseException) -> Iterator[str]:
    for cause in _causes(error):
        for frame in traceback.extract_tb(cause.__traceback__):
            yield f"{frame.filename}:{frame.lineno} in {frame.name}"
        yield f"{type(cause).__name__}: {cause}" if isinstance(cause, PgwitnessError) else type(cause).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Return an exception behind those that it came of, the first one first, ten at most."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain and len(chain) < CAUSES_MAX:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return reversed(chain)


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let nothing that came from elsewhere steer the terminal that a log is shown on."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}


def as_json() -> bool:
    """Say whether lines are JSON here: they are but on a terminal."""
    return not sys.stderr.isatty()


def configure(level: str = "info") -> None:
    """Set up logging for the process; stdout stays free for what a command prints."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            trace,
            *([structlog.processors.JSONRenderer()] if as_json() else [_printable, structlog.dev.ConsoleRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if as_json():
        handler = _Structured()
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Structured(logging.Handler):
    """Writes what a library logs as a line like every other."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one whose text cannot be made is written without its values."""
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        log = structlog.get_logger()
        log.log(max(record.levelno, logging.WARNING), text, logger=record.name, exc_info=record.exc_info)


def own(level: str = "info") -> None:
    """Set up logging for a process that is a daemon's alone: whatever it says on stderr is such a line.

    Not for a process in which others have their own ways with warnings and exceptions, as tests have.
    """
    configure(level)
    if as_json():
        logging.captureWarnings(capture=True)
        sys.excepthook = _unforeseen
        threading.excepthook = lambda of: _unforeseen(of.exc_type, of.exc_value, of.exc_traceback, of.thread)
        sys.unraisablehook = lambda of: _unforeseen(of.exc_type, of.exc_value, of.exc_traceback)


def _unforeseen(
    kind: type[BaseException],
    error: BaseException | None,
    where: TracebackType | None,
    thread: threading.Thread | None = None,
) -> None:
    """Write an exception that nobody caught."""
    if not issubclass(kind, SystemExit):
        named = {} if thread is None else {"thread": thread.name}
        structlog.get_logger().error("unexpected error", exc_info=error or kind(), **named)


def process(target: Callable[P, None]) -> Callable[P, None]:
    """Make a function what another process of a daemon runs: it logs as a daemon does, also how it failed."""

    @functools.wraps(target)
    def be(*args: P.args, **kwargs: P.kwargs) -> None:
        own()
        try:
            target(*args, **kwargs)
        except Exception:
            structlog.get_logger().exception("unexpected error")
            raise SystemExit(1) from None

    return be


class Librdkafka:
    """Stands in as the logger of a Kafka client, which otherwise writes lines of its own to stderr."""

    def log(self, level: int, message: str, *values: object) -> None:
        """Pass on what librdkafka says, at its own level."""
        text = message % values if values else message
        if text.startswith("CONFWARN"):
            return  # it warns of settings that are meant
        log = structlog.get_logger()
        (log.warning if level >= logging.WARNING else log.info)("librdkafka", message=text)


LIBRDKAFKA: Final[Any] = Librdkafka()
"""For the setting `logger` of every client of confluent-kafka, whose own types know texts and numbers alone."""
