"""What a look at the end of a log's files says before anybody collects them. For `pgwitness doctor`.

A path that matches nothing, files that are of another format than configured, and messages in no known form: each is
silence for the collector, and is said here. Only the end of the newest file is read.
"""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from collectors.log.advice import Advice
from collectors.log.formats.record import Unreadable
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from pgwitness.core.config import Log
from pgwitness.core.privacy import tokenizer

BYTES_MAX = 256 * 1024
LINES_MIN = 20
"""How many lines must be there before it is said that nothing in them is known."""


class Sample(NamedTuple):
    """How many messages a piece of a log has: read, unreadable, with something known, in no known form."""

    read: int
    unreadable: int
    known: int
    unknown: int


def take(log: Log, data: bytes) -> Sample:
    """Read a piece of a log that begins anywhere; its first line may be half a line. Raise `ConfigurationError`."""
    make, parser = formats(log)
    splitter = make()
    interpreter = Interpreter(tokenizer(bytes(32)), log.format)
    read = unreadable = 0
    for piece in [*splitter.feed(data.partition(b"\n")[2]), *splitter.idle()]:
        if not piece.readable:
            unreadable += bool(piece.data)
            continue
        try:
            record = parser.parse(piece.data)
        except Unreadable:
            unreadable += 1
            continue
        read += 1
        interpreter.read(record, "", 0, 0)
    return Sample(read, unreadable, interpreter.known, interpreter.unknown)


def look(log: Log) -> list[Advice]:
    """Look at the files of a log on this host. Raise `ConfigurationError`."""
    if log.from_ != "file" or not log.path:
        return []
    names = [name for name in glob.glob(log.path) if os.path.isfile(name)]  # noqa: PTH207, PTH113 - an absolute pattern
    if not names:
        problem = f"no file matches {log.path} on this host: nothing is collected here"
        return [
            Advice("log.path", problem, "see log_directory and log_filename, and who may read there (log_file_mode)")
        ]
    newest = max(names, key=lambda name: os.stat(name).st_mtime_ns)  # noqa: PTH116
    try:
        with open(newest, "rb") as file:  # noqa: PTH123
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - BYTES_MAX))
            data = b"\n" * (size <= BYTES_MAX) + file.read(BYTES_MAX)
    except OSError as error:
        return [
            Advice("log.path", f"{newest} cannot be read: {error.strerror}", "see log_file_mode and the file's group")
        ]
    found = take(log, data)
    if found.unreadable and not found.read:
        problem = f"{newest}: none of {found.unreadable} lines is a message of {log.format}"
        return [Advice("log.format", problem, "make format, field and line_prefix those of the files, or correct path")]
    if found.read >= LINES_MIN and not found.known:
        problem = f"{newest}: nothing known in {found.read} messages, {found.unknown} are in no form that is read"
        fix = "ALTER SYSTEM SET lc_messages = 'C'; log statements and connections (log_min_duration_statement = 0)"
        return [Advice("server log", problem, fix)]
    return []
