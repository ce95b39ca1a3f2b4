"""Which programs run, as whom, in which steps; a step is one run of one program.

Commands are found in PostgreSQL's own folder, in `.honest/py`, `.honest/jars` and `.honest/node_modules`; libpq's
environment tells them where the database is. Each program has a database and a login role of its own, which owns it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent / "programs"
TOOLS = Path(__file__).parents[2] / ".honest"
PYTHON = str(TOOLS / "py" / "bin" / "python")
JARS = TOOLS / "jars"


class Step(NamedTuple):
    """One run of a program: its command, and the policies that may rightly raise one High."""

    command: tuple[str, ...]
    may: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    complains: bool = False
    """It ends with an error that harms nobody: a dump brings triggers that new tables have got by themselves."""


class Program(NamedTuple):
    """Steps in their order, run in a folder. Programs that `need` tools are left out where these are not installed."""

    steps: tuple[Step, ...]
    folder: Path = HERE
    need: Path | None = None
    superuser: bool = False


def step(command: str, may: str = "", **environment: str) -> Step:
    """Write a step down."""
    return Step(tuple(command.split()), may, tuple(environment.items()), command.startswith("pg_restore"))


def _node(script: str, *steps: tuple[str, str]) -> tuple[Step, ...]:
    return tuple(step(f"node {script}.js {name}", may) for name, may in steps)


def _java(*steps: tuple[str, str]) -> tuple[Step, ...]:
    return tuple(step(f"sh run.sh {name}", may, HONEST_JARS=str(JARS)) for name, may in steps)


_PY, _NODE = TOOLS / "py", TOOLS / "node_modules"
_DUMP = "-Fc -f {scratch}/dump"
# `pg_restore --clean` over a database that pgwitness watches is not among these: it drops triggers and publications of
# pgwitness on its way, and the Critical findings that this raises are true.
PROGRAMS: dict[str, Program] = {
    "pgbench": Program((
        step("pgbench -i -q"),
        step("pgbench -n -c 2 -T 2"),
        step("pgbench -n -c 2 -t 100 -M prepared -N"),
        step("pgbench -i -q", "drop_table"),
        step("pgbench -i -q --unlogged-tables", "drop_table"),
        step("pgbench -n -c 2 -t 100"),
        step("pgbench -i -q -I dtGvpf --partitions=4 --partition-method=hash --foreign-keys", "drop_table"),
        step("vacuumdb --analyze --quiet"),
    )),
    "backup": Program((
        step(f"pg_dump {_DUMP} pgbench", "database_dumped"),
        step("pg_restore -d backup -O -x {scratch}/dump"),
        step("pg_dump -f {scratch}/plain.sql pgbench", "database_dumped"),
        step("pg_dumpall -f {scratch}/all.sql", "database_dumped"),
        step("pg_dumpall -f {scratch}/all.sql", "database_dumped"),
        step("pg_dump -Fd -j 2 -f {scratch}/folder pgbench", "database_dumped"),
    ), superuser=True),
    "django": Program(tuple(
        step(f"{PYTHON} manage.py {command}", may) for command, may in (
            ("migrate shop 0001 -v 0", ""), ("migrate -v 0", ""), ("work", ""), ("work", ""),
            ("dumpdata -o {scratch}/django.json", ""), ("flush --noinput -v 0", "truncate most_of_table mass_change"),
            ("loaddata -v 0 {scratch}/django.json", ""), ("clearsessions", ""), ("test -v 0", "drop_table"),
            ("migrate -v 0 shop zero", "drop_table"), ("migrate -v 0", ""),
        )
    ), HERE / "django", _PY),
    "alembic": Program(tuple(
        step(f"{PYTHON} -m alembic {command}", may)
        for command, may in (("upgrade head", ""), ("downgrade a1", ""), ("upgrade head", ""),
                             ("downgrade base", "drop_table"), ("upgrade head", ""))
    ), HERE / "alembic", _PY),
    "peewee": Program(tuple(
        step(f"{PYTHON} work.py {command}", may) for command, may in (
            ("work", ""), ("change", ""), ("away", "drop_table"), ("work", ""),
        )
    ), HERE / "peewee", _PY),
    "flyway": Program((
        *_java(("twice", ""), ("validate", ""), ("info", "")),
        step("sh run.sh migrate", HONEST_JARS=str(JARS), AGAIN="changed"),
        *_java(("repair", ""), ("clean", "drop_table"), ("migrate", "")),
    ), HERE / "flyway", JARS),
    "liquibase": Program(
        _java(("twice", ""), ("status", ""), ("rollback-count --count=4", "drop_table"), ("update", ""),
              ("drop-all", "drop_table"), ("update", "")),
        HERE / "liquibase", JARS,
    ),
    "sequelize": Program(
        _node("sequelize", ("force", ""), ("work", ""), ("alter", ""), ("force", "drop_table"), ("work", ""),
              ("truncate", "most_of_table mass_change truncate"), ("drop", "drop_table")),
        HERE / "js", _NODE,
    ),
    "typeorm": Program(
        _node("typeorm", ("synchronize", ""), ("work", ""), ("migrate", ""), ("revert", ""), ("migrate", ""),
              ("clear", "most_of_table mass_change truncate"), ("drop", "drop_table")),
        HERE / "js", _NODE,
    ),
    "drizzle": Program((
        *_node("drizzle", ("migrate", ""), ("work", ""), ("migrate", "")),
        step("npx --no-install drizzle-kit push --force"),
        step("npx --no-install drizzle-kit push --force", HONEST_SCHEMA="later"),
    ), HERE / "js", _NODE),
    "knex": Program(tuple(
        step(f"npx --no-install knex {command}", may) for command, may in (
            ("migrate:latest", ""), ("seed:run", ""), ("seed:run", "most_of_table"),
            ("migrate:rollback --all", "drop_table"), ("migrate:latest", ""),
        )
    ), HERE / "js", _NODE),
}  # fmt: skip


def installed(program: Program) -> bool:
    """Say whether a program can run here."""
    return program.need is None or program.need.exists()


def missing() -> list[str]:
    """Name the programs that cannot run here."""
    return [name for name, program in PROGRAMS.items() if not installed(program)]
