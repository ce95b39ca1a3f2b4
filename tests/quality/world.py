"""Ordinary days of a company on one database, from a seed: who works when, on what, and how much.

People in four groups, services and AI agents in two each. Groups share a pool of tasks, members prefer some of them.
There is a weekly rhythm, lunch, home offices, holidays, late evenings, nights on call, typing errors, colleagues who
stand in, queries made up on the spot, busy days of the shop, nightly batches, a deployment that brings new tables and
moves services to other pods, and a month's end. Events are those the judge receives: statements from the log for
people and agents, statistics for services, changes with a beacon for all who write.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pgwitness.core.events import Count, Event, Position, Relation
from streams.fold.sessions.refusals import WITHIN_US

START_US = 1_786_924_800_000_000
"""Monday, 17 August 2026, 00:00 UTC; the month ends on day 14."""
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
DAYS = 17
MONTH_END = (13, 14)
DEPLOYMENT = (12, 10.0)
"""Day and hour at which the shop's services are deployed anew."""
CLUSTER = "shop"


@dataclass(frozen=True)
class Task:
    """One thing that is done: an operation on a relation by one statement, and how many rows it usually moves."""

    operation: str
    relation: str
    columns: tuple[str, ...]
    rows: float
    spread: float = 0.6

    @property
    def fingerprint(self) -> str:
        """Return the statement's fingerprint: the same task is always done by the same statement."""
        return hashlib.sha256(repr((self.operation, self.relation, self.columns)).encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Write the statement."""
        if self.operation == "select":
            return f"SELECT {', '.join(self.columns)} FROM {self.relation} WHERE id = $1"
        return f"{self.operation.upper()} {self.relation} /* {', '.join(self.columns)} */ WHERE id = $1"


@dataclass
class Principal:
    """Somebody who works, and how."""

    name: str
    kind: str
    group: str
    role: str
    application: str
    addresses: list[str]
    tasks: list[Task]
    weights: list[float]
    pace: float
    starts: float = 0.0
    ends: float = 24.0
    home: str = ""
    away: frozenset[int] = frozenset()


@dataclass
class World:
    """All principals of one seed and what they ordinarily do."""

    seed: int
    principals: list[Principal] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def of(self, group: str) -> list[Principal]:
        """Return the members of a group."""
        return [principal for principal in self.principals if principal.group == group]


PEOPLE = ("support", "analysts", "finance", "engineers")
POOLS: dict[str, list[tuple[str, float]]] = {
    "support": [("public.customers", 3), ("public.orders", 5), ("public.tickets", 4), ("public.shipments", 3)],
    "analysts": [("public.orders", 80), ("public.products", 60), ("public.sessions", 90), ("reports.daily", 40)],
    "finance": [("public.payments", 15), ("public.invoices", 20), ("public.refunds", 6), ("reports.ledger", 50)],
    "engineers": [("public.jobs", 10), ("public.settings", 4), ("public.orders", 6), ("public.sessions", 12)],
    "web": [("public.products", 8), ("public.orders", 2), ("public.carts", 2), ("public.sessions", 1)],
    "workers": [("public.jobs", 4), ("public.shipments", 5), ("public.invoices", 3), ("public.mails", 4)],
    "support-agents": [("public.tickets", 3), ("public.orders", 3), ("public.customers", 1)],
    "pricing-agents": [("public.products", 12), ("public.prices", 6), ("public.competitors", 10)],
    "dbas": [("public.jobs", 12), ("public.settings", 4), ("public.sessions", 20), ("pg_catalog.pg_stat_activity", 60)],
}
WRITES: dict[str, list[tuple[str, str, float]]] = {
    "support": [("update", "public.orders", 1), ("update", "public.tickets", 1), ("insert", "public.tickets", 1)],
    "analysts": [("insert", "reports.daily", 10)],
    "finance": [("insert", "public.refunds", 1), ("update", "public.invoices", 2)],
    "engineers": [("update", "public.settings", 1), ("delete", "public.jobs", 3)],
    "web": [("insert", "public.orders", 2), ("update", "public.carts", 2), ("delete", "public.carts", 1)],
    "workers": [("update", "public.jobs", 4), ("insert", "public.mails", 4), ("update", "public.shipments", 3)],
    "support-agents": [("update", "public.tickets", 1), ("insert", "public.tickets", 1)],
    "pricing-agents": [("update", "public.prices", 3)],
    "dbas": [("update", "public.settings", 1)],
}
SIZES = {
    "support": 20,
    "analysts": 10,
    "finance": 10,
    "engineers": 8,
    "web": 8,
    "workers": 8,
    "support-agents": 10,
    "pricing-agents": 6,
}
NEW_TABLES = ("public.vouchers", "public.wishlists")
SENSITIVE = ("hr.salaries", "hr.reviews", "vault.cards", "legal.cases", "board.minutes", "public.credentials")


_LEAST = {"support": 9, "analysts": 6, "finance": 6, "engineers": 5, "web": 6, "support-agents": 5}
"""As many members of a group as there are attacks on it, and one more."""


def kind_of(group: str) -> str:
    """Return what the members of a group are."""
    return "human" if group in PEOPLE else "agent" if group.endswith("agents") else "service"


def pool(group: str) -> list[Task]:
    """Return the tasks of a group."""
    tasks = []
    for relation, rows in POOLS[group]:
        for columns in (("id", "status"), ("id", "name", "created_at"), ("id", "total")):
            tasks.append(Task("select", relation, columns, rows))  # noqa: PERF401 - two loops read better than one line
    tasks += [Task(operation, relation, ("id", "status"), rows, 0.3) for operation, relation, rows in WRITES[group]]
    return tasks


def build(seed: int, scale: float = 1.0) -> World:
    """Make the company."""
    random = Random(f"{seed} company")
    world = World(seed)
    for group, size in SIZES.items():
        shared = pool(group)
        for number in range(max(_LEAST.get(group, 3), round(size * scale))):
            world.principals.append(_hire(random, group, number, shared))
    return world


def _hire(random: Random, group: str, number: int, shared: list[Task]) -> Principal:
    kind = kind_of(group)
    tasks = random.sample(shared, k=max(4, round(len(shared) * random.uniform(0.5, 0.8))))
    weights = [random.lognormvariate(0, 0.8) for _ in tasks]
    name = f"{group}-{number:02d}"
    subnet = list(SIZES).index(group) + 1
    addresses = [f"10.{subnet}.{number // 200}.{10 + number % 200}"]
    pace = random.lognormvariate(0, 0.35)
    if kind == "service":
        addresses = [f"10.{subnet}.{number}.{random.randrange(2, 250)}" for _ in range(4)]
        return Principal(name, kind, group, name, name, addresses, tasks, weights, 3.0 * pace)
    if kind == "agent":
        return Principal(name, kind, group, "agents", name, addresses, tasks, weights, 0.5 * pace)
    starts = random.gauss(7.5, 0.7)
    away: frozenset[int] = frozenset()
    if random.random() < 0.15:
        first = random.randrange(DAYS - 2)
        away = frozenset(range(first, first + random.randrange(2, 6)))
    application = random.choice(["psql", "DBeaver", "backoffice"])
    home = f"192.0.{random.randrange(256)}.{random.randrange(2, 250)}"
    return Principal(
        name, kind, group, name, application, addresses, tasks, weights, 0.8 * pace, starts, starts + 8.5, home, away
    )


class Clerk:
    """Writes events down for one principal."""

    def __init__(self, principal: Principal, random: Random, prefix: str) -> None:
        self.who = principal
        self.random = random
        self.events: list[Event] = []
        self._refused_us: list[int] = []
        self._prefix = prefix

    def do(self, at_us: int, task: Task, rows: int | None = None, calls: int = 1, **facts: Any) -> Event:
        """Let the principal do a task once, or `calls` times within one window of statistics."""
        if rows is None:
            rows = max(0, round(task.rows * math.exp(self.random.gauss(0, task.spread)) * calls))
        if task.operation == "select" or facts.get("outcome") == "failure":
            event = self._statement(at_us, task, rows, calls, facts)
        else:
            event = self._change(at_us, task, max(1, rows), facts)
        self.events.append(event)
        return event

    def session(self, at_us: int, operation: str = "connect", **facts: Any) -> Event:
        """Let the principal connect."""
        base = self._base(at_us, "session") | {"binding": "activity", "certainty": "exact", "operation": operation}
        event = Event(**(base | facts))
        if operation == "login_failed":
            self._refused_us.append(at_us)
        elif refused := sum(0 <= at_us - then_us <= WITHIN_US for then_us in self._refused_us):
            event.detail["refused_before"] = refused  # as the fold tells it, which sees all logins of a cluster
            self._refused_us.clear()
        self.events.append(event)
        return event

    def other(self, at_us: int, kind: str, **facts: Any) -> Event:
        """Write an event of any other kind down."""
        event = Event(**(self._base(at_us, kind) | facts))
        self.events.append(event)
        return event

    def _base(self, at_us: int, kind: str) -> dict[str, Any]:
        who = self.who
        return {
            "kind": kind,
            "event_id": f"{self._prefix}-{who.name}-{len(self.events)}",
            "at": Position(0, 0, 0),
            "occurred_at_us": at_us,
            "captured_at_us": at_us + 200_000,
            "cluster": CLUSTER,
            "instance": "db.example:5432",
            "database": "shop",
            "principal": who.name,
            "principal_kind": who.kind,
            "peer_group": who.group,
            "assurance": "verified",
            "role": who.role,
            "application": who.application,
            "client_addr": who.addresses[0],
        }

    def _statement(self, at_us: int, task: Task, rows: int, calls: int, facts: dict[str, Any]) -> Event:
        statistics = self.who.kind == "service" and "kind" not in facts
        writes = task.operation != "select"
        base = self._base(at_us, "query_stats" if statistics else "statement") | {
            "binding": "stats" if statistics else "log",
            "certainty": "weak" if statistics else "strong",
            "operation": task.operation,
            "relations": [task.relation],
            "columns": [f"{task.relation}.{column}" for column in task.columns],
            "statement": task.text,
            "fingerprint": task.fingerprint,
            "calls": calls,
            "row_count": rows,
            "outcome": "success",
            "detail": {"operations": [task.operation], "where": "present" if writes else "n/a", "functions": []},
        }
        return Event(**(base | facts))

    def _change(self, at_us: int, task: Task, rows: int, facts: dict[str, Any]) -> Event:
        base = self._base(at_us, "change") | {
            "binding": "beacon",
            "certainty": "exact",
            "operation": task.operation,
            "relation_table": [Relation(task.relation, ["id"], beacon=True)],
            "counts": [Count(0, task.operation[0], rows)],
            "n_rows": rows,
            "outcome": "success",
        }
        return Event(**(base | facts))


def live(world: World, days: int = DAYS) -> None:
    """Let everybody work; fills `world.events`, in the order of time."""
    for principal in world.principals:
        random = Random(f"{world.seed} {principal.name}")
        clerk = Clerk(principal, random, f"o{world.seed}")
        for day in range(days):
            _DAY[principal.kind](clerk, day)
        world.events += clerk.events
    world.events.sort(key=lambda event: (event.captured_at_us, event.event_id))


def at(day: int, hour: float) -> int:
    """Return the time of an hour of a day."""
    return START_US + day * DAY_US + int(hour * 3600 * SECOND_US)


def person_day(clerk: Clerk, day: int) -> None:
    """Let a person work for a day, or not."""
    who, random = clerk.who, clerk.random
    if day in who.away or (day % 7 > 4 and random.random() > 0.03):
        return
    roll = random.random()
    from_home = who.home if random.random() < 0.3 else None
    if random.random() < 0.004:
        from_home = f"198.51.{random.randrange(256)}.{random.randrange(2, 250)}"
    address = {"client_addr": from_home} if from_home else {}
    starts, ends = who.starts + random.gauss(0, 0.3), who.ends + random.gauss(0, 0.4)
    busy = 1.0
    if who.group == "finance" and day in MONTH_END:
        ends += 1.5
        busy = 1.8
    if random.random() < 0.01:
        for _ in range(random.randrange(1, 3)):
            clerk.session(at(day, starts), "login_failed", outcome="failure", sqlstate="28P01", **address)
    clerk.session(at(day, starts + 0.01), **address)
    tasks, weights = who.tasks, who.weights
    hour = starts + 0.02
    while hour < ends:
        if not 11.5 < hour < 12.3:
            task = random.choices(tasks, weights)[0]
            outcome = {"outcome": "failure", "sqlstate": "42601"} if random.random() < 0.006 else {}
            clerk.do(at(day, hour), task, **outcome, **address)
        hour += random.expovariate(8.0 * who.pace * busy)
    _besides(clerk, day, starts, ends, roll, address)


def _besides(clerk: Clerk, day: int, starts: float, ends: float, roll: float, address: dict[str, str]) -> None:
    """Let a person do what is not its daily work; most days nothing."""
    who, random = clerk.who, clerk.random
    if roll < 0.08:
        # Stands in for a colleague.
        task = random.choice(pool(who.group))
        for number in range(random.randrange(1, 4)):
            clerk.do(at(day, starts + 3 + number / 10), task, **address)
    elif roll < 0.12:
        # Makes up a query on the spot.
        relation, rows = random.choice(POOLS[who.group])
        clerk.do(at(day, starts + 4), Task("select", relation, ("id", f"c{random.randrange(1000)}"), rows), **address)
    elif roll < 0.15:
        # Works late.
        for number in range(random.randrange(4, 10)):
            late = random.choices(who.tasks, who.weights)[0]
            clerk.do(at(day, ends + 1.5 + number / 8), late, client_addr=who.home)
    elif roll < 0.165:
        # Has a look at something that is none of its group's business, as people do.
        relation, rows = random.choice(POOLS[random.choice(PEOPLE)])
        task = Task("select", random.choice([relation, f"scratch.note_{random.randrange(100)}"]), ("*",), rows)
        for number in range(random.randrange(1, 3)):
            clerk.do(at(day, starts + 5 + number / 15), task, **address)
    elif who.group == "engineers" and roll > 0.97:
        # Is called at night.
        night = random.uniform(0, 4)
        clerk.session(at(day, night), client_addr=who.home)
        for number in range(random.randrange(4, 12)):
            called = random.choices(who.tasks, who.weights)[0]
            clerk.do(at(day, night + 0.02 + number / 20), called, client_addr=who.home)


def _service(clerk: Clerk, day: int) -> None:
    who, random = clerk.who, clerk.random
    busy = 1.6 if Random(f"busy {day}").random() < 0.12 else 1.0
    for address in who.addresses:
        clerk.session(at(day, random.random()), client_addr=address)
    for slot in range(288):
        hour = slot / 12
        if who.group == "web" and (day, hour) == DEPLOYMENT:
            _deploy(clerk, day, hour)
        load = who.pace * busy * (0.35 + 0.65 * max(0.0, math.sin((hour - 5) / 18 * math.pi)))
        if who.group == "workers":
            load = who.pace
        for _ in range(_poisson(random, 0.4 * load)):
            task = random.choices(who.tasks, who.weights)[0]
            facts = {"client_addr": random.choice(who.addresses)}
            calls = max(1, _poisson(random, 12 * load)) if task.operation == "select" else 1
            if random.random() < 0.002:
                facts |= {"outcome": "failure", "sqlstate": "40001", "kind": "statement"}
                calls = 1
            clerk.do(at(day, hour + random.random() / 12), task, calls=calls, **facts)
    if who.group == "workers":
        for number in range(4):
            moved = round(random.lognormvariate(6.3, 0.3))
            clerk.do(at(day, 2 + number / 30), Task("update", "public.jobs", ("id", "status"), 1), rows=moved)
            gone = round(random.lognormvariate(4.6, 0.3))
            clerk.do(at(day, 3 + number / 30), Task("delete", "public.jobs", ("id",), 1), rows=gone)


def _deploy(clerk: Clerk, day: int, hour: float) -> None:
    """Move a service to other pods of its network, with a release that uses new tables."""
    who, random = clerk.who, clerk.random
    network = who.addresses[0].rpartition(".")[0]
    who.addresses[:] = [f"{network}.{random.randrange(2, 250)}" for _ in range(4)]
    for address in who.addresses:
        clerk.session(at(day, hour), client_addr=address)
    who.tasks += [Task("select", table, ("id", "code"), 2) for table in NEW_TABLES]
    who.tasks.append(Task("insert", NEW_TABLES[0], ("id",), 1, 0.3))
    who.weights += [1.0, 0.7, 0.5]


def _agent(clerk: Clerk, day: int) -> None:
    who, random = clerk.who, clerk.random
    weekend = 0.5 if day % 7 > 4 else 1.0
    hour = random.random()
    reads = [(task, weight) for task, weight in zip(who.tasks, who.weights, strict=True) if task.operation == "select"]
    writes = [task for task in who.tasks if task.operation != "select"]
    while hour < 24:
        # One ticket or one product: some reads, then perhaps a write.
        for _ in range(random.randrange(2, 5)):
            task = random.choices([task for task, _ in reads], [weight for _, weight in reads])[0]
            outcome = {"outcome": "failure", "sqlstate": "42703"} if random.random() < 0.01 else {}
            clerk.do(at(day, hour), task, **outcome)
            hour += random.uniform(0.003, 0.02)
        if writes and random.random() < 0.6:
            clerk.do(at(day, hour), random.choice(writes))
        load = weekend * (1.0 if 6 < hour < 20 else 0.4)
        hour += random.expovariate(3.0 * who.pace * load)


_DAY = {"human": person_day, "service": _service, "agent": _agent}


def _poisson(random: Random, mean: float) -> int:
    """Draw a number of arrivals (Knuth's method; the means here are small)."""
    limit, count, product = math.exp(-mean), 0, random.random()
    while product > limit:
        count += 1
        product *= random.random()
    return count
