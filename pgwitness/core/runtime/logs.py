"""Logging for every command: structlog to stderr, one line an event, JSON when stderr is not a terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog

from pgwitness.core.errors import PgwitnessError
from pgwitness.core.printable import visible

CAUSES_MAX = 10


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


def configure(level: str = "info") -> None:
    """Set up logging for the process; stdout stays free for what a command prints."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            trace,
            *([_printable, structlog.dev.ConsoleRenderer()] if terminal else [structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True
    )
