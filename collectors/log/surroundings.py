"""What the judging of log lines must know of the server beside its log: which languages its databases have.

A thread of its own asks, so that a server that does not answer holds up nobody who reads a file: at the start, every
`ASK_S`, and at once when the log shows that a language or an extension is made. Until it has an answer, and of
databases that it may not enter, any language is taken to be there.
"""

from __future__ import annotations

import threading
import time

import structlog

from collectors.connection import connect
from collectors.log.advice import Advice
from collectors.log.interpretation.provenance import ORDINARY, PRINTING, Surroundings
from collectors.log.statuses import Statuses
from pgwitness.core.config import Cluster, Log
from pgwitness.core.errors import ConfigurationError, Unreachable

APPLICATION = "pgwitness log"
ASK_S = 600.0
FIRST_S_MAX = 5.0
"""How long the first answer is waited for, so that what stands in the log already is judged by it."""
DATABASES_MAX = 200
ODD_MAX = 10

_DATABASES = "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY datname LIMIT %s"
_LANGUAGES = """\
SELECT array(SELECT lanname::text FROM pg_language),
    EXISTS (SELECT FROM pg_extension WHERE extname = ANY (%s)) OR EXISTS (SELECT FROM pg_subscription)"""

log = structlog.get_logger("log")


def ask(cluster: Cluster, dsn: str, key: bytes | None = None) -> Surroundings:
    """Ask every database of a server. Raise `Unreachable` and `ConfigurationError`."""
    with connect(cluster, dsn, application_name=APPLICATION, key=key) as connection:
        names = [str(name) for (name,) in connection.execute(_DATABASES, [DATABASES_MAX]).fetchall()]
    plain: set[str] = set()
    quiet = len(names) < DATABASES_MAX
    for name in names:
        try:
            with connect(cluster, dsn, name, application_name=APPLICATION, key=key) as connection:
                row = connection.execute(_LANGUAGES, [list(PRINTING)]).fetchone()
        except Unreachable:
            row = None  # not ours to enter: what it has nobody knows
        if row is not None and ORDINARY.issuperset(row[0]):
            plain.add(name)
            quiet = quiet and not row[1]
        else:
            quiet = False
    return Surroundings(frozenset(plain), quiet, frozenset(names) - plain)


def others(settings: Log, found: Surroundings) -> list[Advice]:
    """Say, for the doctor, what of a server lowers the trust in its log besides its settings."""
    if settings.format == "stderr" or not found.odd:
        return []
    names = ", ".join(sorted(found.odd)[:ODD_MAX])
    problem = f"other languages than {', '.join(sorted(ORDINARY))} are there, or none may look: {names}"
    fix = "ALTER SYSTEM SET log_error_verbosity = 'verbose'; else lines of these databases are claimed (weak)"
    return [Advice("server log", problem, fix)]


class Watch:
    """Keeps what is known of one server up to date; `now` is the latest answer."""

    def __init__(self, cluster: Cluster, dsn: str, key: bytes | None = None) -> None:
        self.now = Surroundings()
        self.statuses = Statuses(cluster, dsn, key)
        self._cluster = cluster
        self._dsn = dsn
        self._key = key
        self._wake = threading.Event()
        self._answered = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="pgwitness-log-surroundings", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()
        self.statuses.start()

    def wait(self, stop: threading.Event) -> None:
        """Wait a moment for the first answer, or until `stop`."""
        deadline = time.monotonic() + FIRST_S_MAX
        while not stop.is_set() and time.monotonic() < deadline and not self._answered.wait(0.1):
            pass

    def doubt(self) -> None:
        """Take nothing for known any more, and ask at once: the log shows that something is installed."""
        self.now = Surroundings()
        self._wake.set()

    def end(self) -> None:
        """Ask no more; a question that is under way is left to itself."""
        self._ended = True
        self._wake.set()
        self.statuses.end()

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            try:
                found = ask(self._cluster, self._dsn, self._key)
            except (Unreachable, ConfigurationError) as error:
                log.info("the languages of the server are not known, so lines of its log prove less", error=str(error))
                found = Surroundings()
            if not self._wake.is_set():
                self.now = found
            self._answered.set()
            self._wake.wait(ASK_S)
