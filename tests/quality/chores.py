"""Ordinary work that looks like what policies forbid: schema changes, grants, roles, maintenance, fixes by hand.

Its people are three database administrators; its services one that deploys and one that makes backups. A newcomer
joins, and is granted what its colleagues have. Everything here is honest, so every alert about it is a false one.
Texts of statements are read by the parser, as the worker does it. `work` adds it to a company's days.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from pgwitness.core.events import Event
from pgwitness.core.sql.statements import facts
from tests.quality.world import (
    DAYS,
    DEPLOYMENT,
    Clerk,
    Principal,
    Task,
    World,
    at,
    person_day,
    pool,
)

DEPLOYMENTS = (1, 3, 8, 10, DEPLOYMENT[0], 15)
JOINS = 8
"""The day on which a newcomer in support begins."""
BACKED_UP = (
    ("public.customers", 41_000),
    ("public.orders", 180_000),
    ("public.payments", 175_000),
    ("public.tickets", 23_000),
    ("public.products", 6_000),
    ("public.sessions", 900_000),
)


NOBODY = dict.fromkeys(("principal", "peer_group", "role", "application", "client_addr")) | {
    "principal_kind": "unknown"
}
"""What an event has that names nobody."""


def work(world: World) -> None:
    """Add these people and services, what they do and what colleagues do by hand; sorts the events."""
    random = Random(f"{world.seed} chores")
    made: list[Clerk] = []

    def clerk_of(who: Principal) -> Clerk:
        made.append(Clerk(who, random, f"c{world.seed}"))
        return made[-1]

    admins = [_admin(random, number) for number in range(3)]
    deployer = Principal("deployer", "service", "deployers", "shop_owner", "flyway", ["10.20.0.4"], [], [], 1.0)
    backup = Principal("backup", "service", "backups", "backup", "pg_dump", ["10.20.0.9"], [], [], 1.0)
    newcomer = _newcomer(random)
    for admin in admins:
        clerk = clerk_of(admin)
        for day in range(DAYS):
            person_day(clerk, day)
            if day % 7 < 5 and day not in admin.away:
                _administer(clerk, day)
    clerk = clerk_of(deployer)
    for day in DEPLOYMENTS:
        deploy(clerk, day, DEPLOYMENT[1] - 0.1 if day == DEPLOYMENT[0] else random.uniform(8, 15))
    clerk = clerk_of(backup)
    for day in range(DAYS):
        _back_up(clerk, day)
    clerk = clerk_of(newcomer)
    for day in range(JOINS, DAYS):
        person_day(clerk, day)
    _join(clerk_of(admins[0]), newcomer)
    for engineer in world.of("engineers"):
        clerk = clerk_of(engineer)
        for day in range(DAYS):
            if random.random() < 0.02:
                _fix(clerk, at(day, random.uniform(0, 5)), engineer.home)
    world.principals += [*admins, deployer, backup, newcomer]
    world.events += [event for clerk in made for event in clerk.events]
    world.events.sort(key=lambda event: (event.captured_at_us, event.event_id))


def say(clerk: Clerk, at_us: int, text: str, rows: int | None = None, **more: Any) -> Event:
    """Let somebody run a statement that the log tells, with what the parser makes of it."""
    known = facts(text)
    return clerk.other(
        at_us,
        "statement",
        **{
            "binding": "log",
            "certainty": "strong",
            "operation": known.operations[0] if known.operations else None,
            "relations": list(known.relations),
            "columns": list(known.columns),
            "statement": known.statement,
            "fingerprint": known.fingerprint,
            "calls": 1,
            "row_count": rows,
            "outcome": "success",
            "detail": {
                "operations": list(known.operations),
                "where": known.where,
                "functions": list(known.functions),
                "settings": list(known.settings),
                "names": list(known.objects),
                "defines": list(known.defines),
                "utility": known.utility,
            },
        }
        | more,
    )


def define(clerk: Clerk, at_us: int, tag: str, text: str, relation: str | None = None, **more: Any) -> Event:
    """Let somebody change the schema; the event trigger tells it, with the statement."""
    known = facts(text)
    detail: dict[str, Any] = {
        "operations": list(known.operations),
        "where": "n/a",
        "functions": [],
        "names": list(known.objects),
        "defines": list(known.defines),
        "utility": True,
    }
    if tag == "DROP TABLE":
        detail["dropped"] = [{"type": "table", "name": relation}]
    return clerk.other(
        at_us,
        "ddl",
        binding="beacon",
        certainty="exact",
        operation=tag,
        relations=[relation] if relation else list(known.relations),
        statement=known.statement,
        fingerprint=known.fingerprint,
        outcome="success",
        detail=detail,
        **more,
    )


def found(clerk: Clerk, at_us: int, object_type: str, name: str, change: str, **sides: Any) -> Event:
    """Let a snapshot find what changed: nobody is named for it."""
    detail = {"object_type": object_type, "name": name, "change": change} | sides
    return clerk.other(at_us, "posture", operation=change, detail=detail, assurance="none", **NOBODY)


def deploy(clerk: Clerk, day: int, hour: float) -> None:
    """Migrate the schema for a release: tables, columns, indexes, views, grants, a backfill, now and then a drop."""
    random = clerk.random
    clerk.session(at(day, hour))
    table = f"public.feature_{day:02d}"
    steps = [
        ("CREATE TABLE", f"CREATE TABLE {table} (id bigint PRIMARY KEY, code text, created_at timestamptz)", table),
        ("CREATE INDEX", f"CREATE INDEX feature_{day:02d}_code ON {table} (code)", table),
        ("ALTER TABLE", f"ALTER TABLE public.orders ADD COLUMN note_{day:02d} text", "public.orders"),
        ("CREATE VIEW", f"CREATE VIEW public.recent_{day:02d} AS SELECT id, status FROM public.orders", None),
        ("GRANT", f"GRANT SELECT, INSERT, UPDATE ON {table} TO web", table),
        ("ALTER TABLE", "ALTER TABLE public.orders ALTER COLUMN status SET NOT NULL", "public.orders"),
    ]
    for number, (tag, text, relation) in enumerate(random.sample(steps[1:], 3) + steps[:1]):
        define(clerk, at(day, hour + 0.01 + number / 300), tag, text, relation)
    if random.random() < 0.5:
        size = round(random.lognormvariate(7.0, 0.8))
        clerk.do(at(day, hour + 0.05), Task("update", "public.orders", ("note",), 1), rows=max(1, size))
    if random.random() < 0.15:
        gone = f"public.old_{day:02d}"
        define(clerk, at(day, hour + 0.06), "DROP TABLE", f"DROP TABLE {gone}", gone)


def _administer(clerk: Clerk, day: int) -> None:
    """Let an administrator do by hand what comes up that day; most days little."""
    random = clerk.random
    office = random.uniform(9, 16)
    for chance, chore, hour in (
        (0.25, _maintain, random.uniform(16, 21)),
        (0.08, _migrate, office),
        (0.08, _grant, office + 0.3),
        (0.05, _roles, office + 0.6),
        (0.06, _tune, office + 0.9),
        (0.06, _cancel, office + 1.2),
        (0.04, _test_a_restore, random.uniform(9, 13)),
        (0.06, lambda clerk, at_us: _fix(clerk, at_us, clerk.who.addresses[0]), office + 1.5),
    ):
        if random.random() < chance:
            chore(clerk, at(day, hour))


def _maintain(clerk: Clerk, at_us: int) -> None:
    table = clerk.random.choice(["public.orders", "public.sessions", "public.jobs", "public.tickets"])
    for number, text in enumerate(("VACUUM (ANALYZE)", "REINDEX TABLE CONCURRENTLY", "ANALYZE")):
        if clerk.random.random() < 0.7:
            say(clerk, at_us + number * 90_000_000, f"{text} {table}")


def _migrate(clerk: Clerk, at_us: int) -> None:
    number = clerk.random.randrange(1000)
    for tag, text, relation in (
        ("CREATE INDEX", f"CREATE INDEX CONCURRENTLY orders_{number} ON public.orders (status)", "public.orders"),
        ("ALTER TABLE", f"ALTER TABLE public.jobs ADD COLUMN tried_{number} int", "public.jobs"),
    ):
        say(clerk, at_us, text)
        define(clerk, at_us + 100_000, tag, text, relation)
        at_us += 120_000_000


def _grant(clerk: Clerk, at_us: int) -> None:
    table = clerk.random.choice(["reports.daily", "public.products", "public.shipments"])
    say(clerk, at_us, f"GRANT SELECT ON {table} TO readers")
    right = {"object": table, "grantee": "readers", "privilege": "SELECT"}
    found(clerk, at_us + 30_000_000, "grant", f"readers on {table}", "added", after=right)


def _roles(clerk: Clerk, at_us: int) -> None:
    """A password is changed, a leaver's login is locked."""
    name = f"leaver_{clerk.random.randrange(100)}"
    if clerk.random.random() < 0.5:
        say(clerk, at_us, "ALTER ROLE web PASSWORD 'x'")
        return
    say(clerk, at_us, f"ALTER ROLE {name} NOLOGIN")
    sides = {"before": {"rolcanlogin": True}, "after": {"rolcanlogin": False}}
    found(clerk, at_us + 30_000_000, "role", name, "changed", **sides)


def _tune(clerk: Clerk, at_us: int) -> None:
    say(clerk, at_us, "ALTER SYSTEM SET work_mem = '64MB'")
    say(clerk, at_us + 5_000_000, "SELECT pg_reload_conf()", 1)
    sides = {"before": {"value": "32MB"}, "after": {"value": "64MB"}}
    found(clerk, at_us + 60_000_000, "setting", "work_mem", "changed", **sides)
    if clerk.random.random() < 0.3:
        # To see what the new setting does, counting begins anew.
        say(clerk, at_us + 90_000_000, "SELECT pg_stat_statements_reset()", 1)
        reset = {"reason": "stats_reset"}
        clerk.other(at_us + 95_000_000, "gap", operation="stats_reset", detail=reset, assurance="none", **NOBODY)


def _cancel(clerk: Clerk, at_us: int) -> None:
    say(clerk, at_us, "SELECT pid, query FROM pg_catalog.pg_stat_activity WHERE state = 'active'", 14)
    say(clerk, at_us + 20_000_000, "SELECT pg_cancel_backend(4711)", 1)
    if clerk.random.random() < 0.4:
        say(clerk, at_us + 50_000_000, "SELECT pg_terminate_backend(4711)", 1)


def _test_a_restore(clerk: Clerk, at_us: int) -> None:
    """The backup is restored into a database of its own, counted, and dropped again."""
    say(clerk, at_us, "CREATE DATABASE restore_test")
    there: dict[str, Any] = {"database": "restore_test", "application": "pg_restore"}
    for number, (table, rows) in enumerate(BACKED_UP):
        later = at_us + (number + 1) * 60_000_000
        say(clerk, later, f"COPY {table} (id, name) FROM stdin", rows, **there)
    for number, (table, _) in enumerate(BACKED_UP):
        later = at_us + (number + 10) * 60_000_000
        say(clerk, later, f"SELECT count(*) FROM {table}", 1, database="restore_test")
    say(clerk, at_us + 3_600_000_000, "DROP DATABASE restore_test")


def _fix(clerk: Clerk, at_us: int, client_addr: str) -> None:
    """Something is stuck, and many rows are set right at once."""
    task = Task("update", clerk.random.choice(["public.jobs", "public.orders"]), ("id", "status"), 1)
    rows = max(1, round(clerk.random.lognormvariate(math.log(800), 1.2)))
    clerk.session(at_us, client_addr=client_addr)
    look = Task("select", task.relation, ("id", "status", "tried_at"), 20)
    clerk.do(at_us + 60_000_000, look, client_addr=client_addr)
    clerk.do(at_us + 300_000_000, task, rows=rows, client_addr=client_addr)


def _back_up(clerk: Clerk, day: int) -> None:
    clerk.session(at(day, 1.5))
    for number, (table, rows) in enumerate(BACKED_UP):
        text = f"COPY {table} (id, name, created_at) TO stdout"
        say(clerk, at(day, 1.51 + number / 60), text, round(rows * (1 + day / 200)))


def _join(clerk: Clerk, newcomer: Principal) -> None:
    """An administrator makes a login for a newcomer, the morning before it begins."""
    at_us = at(JOINS, 8.0)
    say(clerk, at_us, f'CREATE ROLE "{newcomer.role}" LOGIN')
    say(clerk, at_us + 20_000_000, f'GRANT support TO "{newcomer.role}"')
    login = {"rolcanlogin": True, "rolinherit": True, "rolsuper": False}
    found(clerk, at_us + 40_000_000, "role", newcomer.role, "added", after=login)
    member = {"role": "support", "member": newcomer.role, "inherit": True}
    found(clerk, at_us + 40_000_000, "membership", f"{newcomer.role} in support", "added", after=member)


def _admin(random: Random, number: int) -> Principal:
    tasks = random.sample(pool("dbas"), 8)
    weights = [random.lognormvariate(0, 0.6) for _ in tasks]
    starts = random.gauss(8, 0.5)
    name, home = f"dba-{number:02d}", f"192.0.{random.randrange(256)}.{random.randrange(2, 250)}"
    return Principal(
        name, "human", "dbas", name, "psql", [f"10.19.0.{10 + number}"], tasks, weights, 0.6, starts, starts + 9, home
    )


def _newcomer(random: Random) -> Principal:
    tasks = random.sample(pool("support"), 8)
    weights = [random.lognormvariate(0, 0.8) for _ in tasks]
    home = f"192.0.{random.randrange(256)}.{random.randrange(2, 250)}"
    name = "support-new"
    return Principal(name, "human", "support", name, "backoffice", ["10.1.0.250"], tasks, weights, 0.7, 8.0, 16.5, home)
