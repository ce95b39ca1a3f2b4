"""Random queries as an audience through the gateway, names of tables rewritten and not: no mark comes back either way.

`python -m tests.gateway.lineage 10000` runs so many with each on PostgreSQL 18; a sample runs in the tests. Queries of
clear columns alone, by names with their schema, have the answers that they have on the tables, or an error that says
why not.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from collectors.gateway.masking.audiences import Audiences
from tests.collectors.masking import lineage
from tests.collectors.masking.lineage import CLEAR, COLUMNS, WHOLE, Found, Queries
from tests.gateway.conftest import running

PASSWORD = "pw"
KEYED = ("customers", "orders")
PARENTS = ("events", "people")


class Named(Queries):
    """Names tables with their schema, as tools do."""

    def clear(self, depth: int = 2) -> str:
        """Write a statement that reads clear columns, of names with a schema."""
        table = self.pick(*WHOLE)
        names = [name for name in COLUMNS[table] if name in CLEAR]
        full = [f"public.{table}.{name}" for name in names]
        shown = ", ".join(self.random.sample(full, self.random.randint(1, len(full))))
        where = self.pick("", f" WHERE public.{table}.id > {self.random.randint(0, 40)}", " WHERE 'public.' <> ''")
        plain = f"SELECT {shown} FROM public.{table}{where}"
        if depth < 2:
            return plain
        keyed = self.pick(*KEYED)
        two = [f"k.{name}" for name in COLUMNS[keyed] if name in CLEAR]
        copied = self.pick(*(name for name in WHOLE if name != "events"))  # nobody copies a partitioned table
        only = "ONLY " if table not in PARENTS or self.random.random() < 0.2 else ""
        inner = super().clear(1)
        return str(
            self.pick(
                plain,
                plain,
                inner,
                f"COPY public.{copied} ({', '.join(n for n in COLUMNS[copied] if n in CLEAR)}) TO STDOUT",
                f"COPY ({plain}) TO STDOUT",
                f"WITH {table} AS (SELECT 1 AS id) SELECT t.id FROM public.{table} AS t, {table} WHERE {table}.id > 0",
                f"SELECT {', '.join(two)}, count(*) FROM public.{keyed} AS k GROUP BY k.id",
                f"SELECT k.id, max(o.id) FROM {keyed} AS k JOIN public.orders AS o ON o.customer = k.id GROUP BY 1",
                f"SELECT 'public.{table}'::regclass::oid, $$public.{table}$$, count(*) /* public.{table} */"
                f" FROM {only}public.{table} -- public.{table}",
                f"PREPARE p AS {plain}; EXECUTE p",
                f"DECLARE c CURSOR FOR {plain}; FETCH ALL FROM c",
                f"SELECT 1; {plain}",
                f"SELECT (SELECT count(*) FROM public.{keyed} AS k WHERE k.id = t.id) FROM public.{table} AS t",
                f"SELECT id FROM public.{table} AS public ORDER BY public.id LIMIT 5",
                f"({plain}) UNION ALL ({plain})",
                f"SELECT s.* FROM ({plain}) AS s",
                f"SELECT count(t.xmin) FROM public.{table} AS t" if self.random.random() < 0.1 else plain,
                f"SELECT count(*) FROM public.{table} TABLESAMPLE SYSTEM (100)"
                if self.random.random() < 0.1
                else plain,
            )
        )

    def table(self) -> str:
        """Name a table, half of the times with its schema."""
        name = self.pick(*COLUMNS)
        return str(self.pick(name, name, f"mask_public.{name}", f"public.{name}", f"public.{name}", f"public.{name}"))


@contextmanager
def gateway(folder: Path, dsn: str, *, rewrite: bool) -> Iterator[str]:
    """Run a gateway in front of a database with masks; gives where the audience comes to it."""
    audiences = dict(lineage.masks().audiences)
    if not rewrite:
        audiences = {name: type(one)(columns=one.columns, rewrite=False) for name, one in audiences.items()}
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE support PASSWORD '{PASSWORD}'".encode())
    known = Audiences(audiences, lambda _: psycopg.connect(dsn, autocommit=True))
    with running(folder, dsn, audiences=known) as one:
        yield one.dsn(user="support", password=PASSWORD)


def main(count: int) -> int:
    """Run on a server of its own, with rewriting and without; gives the exit code."""
    from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

    wrong = False

    def progress(number: int) -> None:
        if number % 100 == 99:
            print(f"\r{number + 1} of {count}", end="", file=sys.stderr)

    with (
        tempfile.TemporaryDirectory(prefix="pgwitness-lineage-") as folder,
        Postgres(Path(folder) / "postgres", settings=FAST_AND_FORGETFUL) as server,
    ):
        Path(folder).chmod(0o711)
        dsn = server.dsn()
        lineage.prepare(dsn)
        for rewrite in (True, False):
            seed = random.randint(1, 1 << 30)
            with gateway(Path(folder) / str(rewrite), dsn, rewrite=rewrite) as through:
                found = lineage.run(dsn, count, seed, progress, through=through, queries=Named(seed))
            wrong = _told(found, count, seed, rewrite=rewrite) or wrong
    return 1 if wrong else 0


def _told(found: Found, count: int, seed: int, *, rewrite: bool) -> bool:
    """Tell what was found, and return whether it is not as it should be."""
    named = "with rewriting" if rewrite else "without rewriting"
    print(f"\n{count} statements {named}, seed {seed}: {dict(found.outcomes.most_common())}")
    clear, differ, said = found.clear, found.differing, found.explained
    print(f"{clear} of clear columns: {len(said)} errors that say why, {len(differ)} differ: {differ[:3]}")
    print(f"{len(found.leaked)} leaked: {found.leaked[:3]}")
    return bool(found.leaked or (rewrite and (differ or len(said) > 0.05 * clear)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
