"""Four weeks of a company whose habits move, from a seed: what a detector must not take for an attack.

Shifts that rotate, an end of daylight saving, holidays of two weeks, moves between teams, newcomers, a new service with
a group of its own, pods over several /24, a failover, two releases with new tables, days of threefold load, a month's
end. Nothing was tuned on them when they were written down. `tests.quality.intrusions` plants what is to be found.
"""

from __future__ import annotations

import math
from random import Random

from pgwitness.core.events import Event
from tests.quality.world import DAY_US, SECOND_US, Clerk, Principal, Task, World, pool

FIRST_US = 1_791_158_400_000_000
"""Monday, 5 October 2026, 00:00 UTC."""
DAYS = 28
WARM_DAYS = 12
"""Days on which nothing is planted and nothing is counted."""
SAVING_ENDS = 20
"""The day on which clocks go back: from then on everybody who lives by the clock comes an hour later in UTC."""
PEAKS = (9, 17, 18)
MONTH_END = (25, 26)
RELEASES = (8, 22)
SIZES = {
    "support": 8,
    "analysts": 5,
    "finance": 5,
    "engineers": 4,
    "operators": 3,
    "web": 4,
    "workers": 3,
    "support-agents": 4,
    "pricing-agents": 3,
}
PEOPLE = ("support", "analysts", "finance", "engineers", "operators")
_POOL = {"operators": "dbas", "recommenders": "web"}


def at(day: int, hour: float) -> int:
    """Return the time of an hour, UTC, of a day."""
    return FIRST_US + day * DAY_US + int(hour * 3_600 * SECOND_US)


def local(day: int, hour: float) -> int:
    """Return the time of an hour by the clock on the wall."""
    return at(day, hour - (2.0 if day < SAVING_ENDS else 1.0))


def tasks_of(group: str) -> list[Task]:
    """Return what a group works on."""
    return pool(_POOL.get(group, group))


class Life:
    """What a principal's days depend on, beside who it is."""

    def __init__(self, who: Principal) -> None:
        self.who = who
        self.first, self.last = 0, DAYS
        self.moves: tuple[int, str] | None = None
        self.pods = 1


def build(seed: int) -> tuple[World, dict[str, Life]]:
    """Make the company: its principals, and how each lives."""
    random = Random(f"{seed} season")
    world, lives = World(seed), {}
    for group, size in SIZES.items():
        for number in range(size):
            life = _hire(random, group, number)
            lives[life.who.name] = life
    for group in ("support", "web"):
        # Newcomers of the second week.
        life = _hire(random, group, 50)
        life.first = random.randrange(9, 12)
        lives[life.who.name] = life
    for number in range(3):
        # A new service comes with a group of its own.
        life = _hire(random, "recommenders", number)
        life.first = 10
        lives[life.who.name] = life
    mover = random.choice([life for life in lives.values() if life.who.group == "support" and not life.who.away])
    mover.moves = (random.randrange(13, 20), "finance")
    world.principals = [life.who for life in lives.values()]
    return world, lives


def _hire(random: Random, group: str, number: int) -> Life:
    kind = "human" if group in PEOPLE else "agent" if group.endswith("agents") else "service"
    shared = tasks_of(group)
    tasks = random.sample(shared, k=max(4, round(len(shared) * random.uniform(0.5, 0.8))))
    weights = [random.lognormvariate(0, 0.8) for _ in tasks]
    subnet = [*SIZES, "recommenders"].index(group) + 1
    name, pace = f"{group}-{number:02d}", random.lognormvariate(0, 0.35)
    who = Principal(name, kind, group, name, name, [f"10.{subnet}.0.{10 + number}"], tasks, weights, pace)
    if kind == "service":
        who.pace *= 1.4
    elif kind == "agent":
        who.role, who.pace = "agents", 0.45 * pace
    else:
        who.application = random.choice(["psql", "DBeaver", "backoffice"])
        who.starts = random.gauss(8.7, 0.6)
        who.ends = who.starts + 8.4
        who.home = f"192.0.{random.randrange(256)}.{random.randrange(2, 250)}"
        if random.random() < 0.25:
            first = random.randrange(2, DAYS - 15)
            who.away = frozenset(range(first, first + 14))
    life = Life(who)
    life.pods = 4 if kind == "service" else 1
    return life


def live(world: World, lives: dict[str, Life]) -> None:
    """Let everybody work; fills `world.events` in the order of time."""
    failover = at(Random(f"{world.seed} failover").randrange(13, 24), 11.4)
    for life in lives.values():
        who = life.who
        clerk = Clerk(who, Random(f"{world.seed} {who.name} season"), f"s{world.seed}")
        for day in range(life.first, life.last):
            if life.moves is not None and life.moves[0] == day:
                who.group = life.moves[1]
                who.tasks = Random(f"{world.seed} move").sample(tasks_of(who.group), 8)
                who.weights = [1.0] * len(who.tasks)
            _DAY[who.kind](clerk, life, day)
        if life.moves is not None:
            who.group = "support"
        world.events += _after(clerk, clerk.events, failover)
    world.events.sort(key=lambda event: (event.captured_at_us, event.event_id))


def _after(clerk: Clerk, events: list[Event], failover: int) -> list[Event]:
    """Let the other instance serve from the failover on: services connect anew, and what was under way fails."""
    for event in events:
        if event.occurred_at_us >= failover:
            event.instance = "db-2.example:5432"
    if clerk.who.kind == "human":
        return events
    clerk.events = []
    for number in range(clerk.random.randrange(3, 9)):
        moment = failover + number * 7 * SECOND_US
        facts = {"outcome": "failure", "sqlstate": "57P01", "kind": "statement", "binding": "log"}
        clerk.do(moment, clerk.random.choice(clerk.who.tasks), rows=0, **facts)
        clerk.session(moment + SECOND_US, client_addr=clerk.random.choice(clerk.who.addresses))
    for number, event in enumerate(clerk.events):
        event.event_id += f"-failover-{number}"
    return events + clerk.events


def _person(clerk: Clerk, life: Life, day: int) -> None:
    who, random = clerk.who, clerk.random
    shift, weekend = 0.0, day % 7 > 4
    if who.group == "operators":
        # Early, late, night: another one each week, weekends included, two days off.
        shift = (0.0, -2.7, 5.3, 13.3)[(day // 7 + int(who.name[-2:])) % 4]
        weekend = (day + int(who.name[-2:])) % 7 > 4
    if day in who.away or (weekend and random.random() > 0.04) or random.random() < 0.03:
        return
    where = {"client_addr": who.home} if random.random() < 0.3 else {}
    if random.random() < 0.008:
        where = {"client_addr": f"198.51.{random.randrange(256)}.{random.randrange(2, 250)}"}
    starts, ends = who.starts + shift + random.gauss(0, 0.3), who.ends + shift + random.gauss(0, 0.4)
    busy = math.exp(random.gauss(0, 0.25))
    if who.group == "finance" and day in MONTH_END:
        ends, busy = ends + 1.5, busy * 1.8
    if who.group == "support" and day in PEAKS:
        busy *= 2.0
    if random.random() < 0.02:
        for _ in range(random.randrange(1, 4)):
            clerk.session(local(day, starts), "login_failed", outcome="failure", sqlstate="28P01", **where)
    clerk.session(local(day, starts + 0.01), **where)
    hour = starts + 0.02
    while hour < ends:
        if not 3.4 < hour - starts < 4.1:
            failed = {"outcome": "failure", "sqlstate": "42601"} if random.random() < 0.01 else {}
            clerk.do(local(day, hour), random.choices(who.tasks, who.weights)[0], **failed, **where)
        hour += random.expovariate(4.0 * who.pace * busy)
    _besides(clerk, day, starts, ends, where)


def _besides(clerk: Clerk, day: int, starts: float, ends: float, where: dict[str, str]) -> None:
    who, random, roll = clerk.who, clerk.random, clerk.random.random()
    if roll < 0.08:
        task = random.choice(tasks_of(who.group))
        for number in range(random.randrange(1, 5)):
            clerk.do(local(day, starts + 3 + number / 10), task, **where)
    elif roll < 0.14:
        base = random.choice(tasks_of(who.group))
        made_up = Task("select", base.relation, ("id", f"c{random.randrange(1000)}"), base.rows, 1.2)
        clerk.do(local(day, starts + 4.2), made_up, **where)
    elif roll < 0.18:
        for number in range(random.randrange(4, 12)):
            late = random.choices(who.tasks, who.weights)[0]
            clerk.do(local(day, ends + 1.2 + number / 8), late, client_addr=who.home)
    elif roll < 0.20:
        other = random.choice(tasks_of(random.choice(PEOPLE)))
        for number in range(random.randrange(1, 4)):
            clerk.do(local(day, starts + 5 + number / 15), other, **where)
    elif roll < 0.22:
        # A report or an export that somebody asked for.
        base = random.choice(tasks_of(who.group))
        clerk.do(local(day, starts + 6), base, rows=round(base.rows * random.lognormvariate(3, 0.7)), **where)
    elif who.group in ("engineers", "operators") and roll > 0.95:
        clerk.session(local(day, 2.0), client_addr=who.home)
        for number in range(random.randrange(4, 12)):
            called = random.choices(who.tasks, who.weights)[0]
            clerk.do(local(day, 2.1 + number / 20), called, client_addr=who.home)


def _service(clerk: Clerk, life: Life, day: int) -> None:
    who, random = clerk.who, clerk.random
    busy = 3.0 if day in PEAKS and who.group == "web" else math.exp(random.gauss(0, 0.15))
    if day in RELEASES and who.group == "web":
        table = f"public.release_{day}"
        who.tasks += [Task("select", table, ("id", "code"), 2), Task("insert", table, ("id",), 1, 0.3)]
        who.weights += [1.0, 0.5]
    if day == life.first or random.random() < 0.25 or (day in RELEASES and who.group == "web"):
        # Pods are put wherever there is room: four /24 of one /16.
        network = who.addresses[0].split(".")[1]
        who.addresses[:] = [f"10.{network}.{random.randrange(4)}.{random.randrange(2, 250)}" for _ in range(life.pods)]
    for address in who.addresses:
        clerk.session(at(day, random.random()), client_addr=address)
    load = who.pace * busy
    hour = random.random() / 2
    while hour < 24:
        now = load if who.group == "workers" else load * (0.3 + 0.7 * max(0.0, math.sin((hour - 5) / 18 * math.pi)))
        task = random.choices(who.tasks, who.weights)[0]
        calls = 1 + int(random.expovariate(1 / (6 * now))) if task.operation == "select" else 1
        failed = {"outcome": "failure", "sqlstate": "40001", "kind": "statement"} if random.random() < 0.004 else {}
        clerk.do(at(day, hour), task, calls=1 if failed else calls, client_addr=random.choice(who.addresses), **failed)
        hour += random.expovariate(1.5 * now)
    if who.group == "workers":
        for number in range(3):
            jobs = Task("update", "public.jobs", ("id", "status"), 500, 0.3)
            clerk.do(at(day, 2 + number / 30), jobs)
            clerk.do(at(day, 3 + number / 30), Task("delete", "public.jobs", ("id",), 100, 0.3))
        if day in MONTH_END[:1]:
            clerk.do(at(day, 4), Task("select", "public.invoices", ("*",), 9_000, 0.2))


def _agent(clerk: Clerk, life: Life, day: int) -> None:
    who, random = clerk.who, clerk.random
    weekend = 0.5 if day % 7 > 4 else 1.0
    busy = (2.5 if day in PEAKS else 1.0) * math.exp(random.gauss(0, 0.2))
    reads = [pair for pair in zip(who.tasks, who.weights, strict=True) if pair[0].operation == "select"]
    writes = [task for task in who.tasks if task.operation != "select"]
    hour = random.random()
    while hour < 24:
        for _ in range(random.randrange(2, 5)):
            task = random.choices([task for task, _ in reads], [weight for _, weight in reads])[0]
            failed = {"outcome": "failure", "sqlstate": "42703"} if random.random() < 0.01 else {}
            clerk.do(local(day, hour), task, **failed)
            hour += random.uniform(0.003, 0.02)
        if writes and random.random() < 0.6:
            clerk.do(local(day, hour), random.choice(writes))
        if random.random() < 0.004:
            made_up = Task("select", random.choice(reads)[0].relation, ("id", f"a{random.randrange(1000)}"), 15, 1.0)
            clerk.do(local(day, hour), made_up)
        hour += random.expovariate(1.5 * who.pace * weekend * busy * (1.0 if 6 < hour < 20 else 0.4))


_DAY = {"human": _person, "service": _service, "agent": _agent}
