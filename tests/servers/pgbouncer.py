"""pgbouncer in front of a PostgreSQL: by default in transaction mode, where many clients share a server's sessions.

It listens on 127.0.0.1 only, trusts whoever it knows by name, and ends with the process that started it. It refuses to
run as root; started by root it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from pgwitness.core.errors import Unreachable
from pgwitness.demo.servers import LOOPBACK, Postgres, free_port, kill_all, spawn, tail, wait_for

START_SECONDS_MAX = 30.0
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")


def program() -> str | None:
    """Find pgbouncer; None where it is not installed."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


class PgBouncer:
    """One pgbouncer; `data` is its folder, `users` are the roles that may come, `pool` the sessions they share."""

    def __init__(
        self, data: Path, server: Postgres, users: Sequence[str], pool: int = 3, mode: str = "transaction"
    ) -> None:
        self.port = free_port()
        self._data = data.absolute()
        self._server = server
        self._users = users
        self._pool = pool
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def dsn(self, user: str, dbname: str = "postgres") -> str:
        """Give a connection string through the pooler."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{dbname}"

    def __enter__(self) -> PgBouncer:
        found = program()
        assert found is not None, "pgbouncer is not installed"
        self._data.mkdir(parents=True)
        self._data.chmod(0o755)
        (self._data / "users.txt").write_text("".join(f'"{name}" ""\n' for name in self._users))
        settings = self._data / "pgbouncer.ini"
        settings.write_text(
            f"""\
[databases]
* = host={LOOPBACK} port={self._server.port}
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self._data / "users.txt"}
pool_mode = {self._mode}
default_pool_size = {self._pool}
max_client_conn = 200
"""
        )
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        log = self._data / "pgbouncer.log"
        self._process = spawn([found, str(settings)], log, user=user)
        try:
            wait_for(self._answers, START_SECONDS_MAX, "pgbouncer")
        except BaseException as error:
            self.__exit__()
            raise Unreachable(f"pgbouncer does not start:\n{tail(log)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            kill_all(self._process)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Unreachable(f"pgbouncer has ended with {self._process.returncode}")
        try:
            with psycopg.connect(self.dsn(self._users[0]), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False
