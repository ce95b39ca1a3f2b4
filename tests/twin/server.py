"""One of the two servers: a database as PostgreSQL's own `pg_regress` makes it, and its files run in it by psql."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg

from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

FILES = Path(__file__).parents[2] / "deploy" / "postgres" / "regress"
"""Where `make regress` puts the files."""
DATABASE = "regression"
SECONDS_MAX = 150
"""A file that runs longer has hung; psql is ended then, and what it printed so far is what counts."""

SETTINGS = {
    **FAST_AND_FORGETFUL,
    "max_prepared_transactions": "2",
    "autovacuum": "off",
    "jit": "off",
    "compute_query_id": "regress",
    # Two workers more or less change plans, and what EXPLAIN prints of them.
    "max_parallel_workers": "8",
    "max_worker_processes": "16",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}
_DATABASE_SETTINGS = {
    "lc_messages": "C", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "bytea_output": "hex",
    "timezone_abbreviations": "Default",
}  # fmt: skip


class Twin:
    """A server of its own with the database that the files expect, in a folder that its user may enter."""

    def __init__(self, folder: Path, version: int, programs: Path | None) -> None:
        self.version = version
        self._sources = FILES / str(version) / "sql"
        self._built = folder / "built"
        (self._built / "results").mkdir(parents=True)
        for path in (self._built, self._built / "results"):
            path.chmod(0o777)
        self.server = Postgres(folder / "server", bin=programs, settings=SETTINGS)
        self.way: str | None = None
        """Where psql connects, if not to the server's own socket."""

    def __enter__(self) -> Twin:
        self.server.start()
        with psycopg.connect(self.server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")
            for name, value in _DATABASE_SETTINGS.items():
                admin.execute(f"ALTER DATABASE {DATABASE} SET {name} TO '{value}'")
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop("immediate")

    @property
    def dsn(self) -> str:
        """Where the files run, as the superuser."""
        return self.server.dsn(dbname=DATABASE)

    def run(self, name: str) -> list[str]:
        """Run a file as `pg_regress` does and give the lines that psql printed, errors among them."""
        command = [
            str(self.server.psql_bin / "psql"), "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on",
            "-v", "HIDE_TOAST_COMPRESSION=on", "-d", self.way or self.server.socket_dsn(dbname=DATABASE),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PGAPPNAME": f"pg_regress/{name}",
            "PGTZ": "America/Los_Angeles",
            "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose",
            "PG_ABS_SRCDIR": str(FILES),
            "PG_ABS_BUILDDIR": str(self._built),
            "PG_LIBDIR": str(self._built),
            "PG_DLSUFFIX": ".so",
            "LC_ALL": "C",
        }
        with (self._sources / f"{name}.sql").open("rb") as source:
            try:
                done = subprocess.run(
                    command,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self._built,
                    timeout=SECONDS_MAX,
                    check=False,
                )
                printed = done.stdout
            except subprocess.TimeoutExpired as late:
                printed = (late.stdout or b"") + b"\nnot done in time\n"
        place = str(self._built).encode()
        return printed.replace(place, b"BUILT").decode("utf-8", "replace").splitlines()
