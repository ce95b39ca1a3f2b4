"""Attacks in `tests.quality.season`: 24 kinds in two halves, and what would be the right reason to tell each.

Rules were chosen on `CHOSEN_ON` and the tuning seeds. `HELD_OUT` was written down before the first run and is planted
on the reported seeds alone. What has an amount is drawn between 1.2 and 8 times what its victim ordinarily does in a
day. Two kinds are `blind`: they do nothing that the victim does not do, and what is found of them is chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.quality.season import DAYS, SAVING_ENDS, WARM_DAYS, Life, at, local, tasks_of
from tests.quality.world import Clerk, Task, World

TUNING_SEEDS = tuple(range(1, 6))
REPORTED_SEEDS = tuple(range(101, 111))
VOLUME = frozenset({"actions", "rows_read", "rows_an_action", "statements"})
WRITES = frozenset({"rows_written", "actions", "rows_an_action"})
DELETES = frozenset({"rows_deleted", "actions"})
FOREIGN = frozenset({"foreign", "strange", "new", "relation", "relations"})
PLACE = frozenset({"elsewhere", "beside", "addresses", "client_addr", "application"})
HOURS = frozenset({"off_hours", "idle"})
NEW_WAY = VOLUME | {"rows_read_new", "new", "statement", "columns"}


@dataclass(frozen=True)
class Kind:
    """One kind of attack. `reasons` are the features of which one must be told; own_… counts as its measure.

    `relations`: what the alert must name one of, where the attack lies in what is touched.
    """

    id: str
    group: str
    play: Callable[[Clerk, Random, int, float], None]
    reasons: frozenset[str]
    relations: tuple[str, ...] = ()
    days: int = 1
    blind: bool = False


@dataclass(frozen=True)
class Intrusion:
    """One attack of one seed: whom it befell, how much it was, when its events are."""

    kind: Kind
    victim: str
    times: float
    times_us: tuple[int, ...]


def _ordinary(clerk: Clerk, operation: str) -> tuple[Task, float]:
    """Return a task of the victim and about how many rows it moves by it in a day."""
    own = [task for task in clerk.who.tasks if task.operation == operation]
    others = [task for task in tasks_of(clerk.who.group) if task.operation == operation]
    task = next(iter(own + others), Task(operation, "public.jobs", ("id", "status"), 4))
    a_day = 32 * clerk.who.pace * task.rows / max(1, len(clerk.who.tasks)) * max(1, len(own))
    return task, max(4.0, a_day)


def _more(operation: str, pieces: int, hours: float, start: float = 9.0) -> Callable[[Clerk, Random, int, float], None]:
    def play(clerk: Clerk, random: Random, day: int, times: float) -> None:
        task, ordinary = _ordinary(clerk, operation)
        rows = max(1, round((times - 1) * ordinary / pieces))
        hour = start + random.uniform(0, 2)
        for part in range(pieces):
            clerk.do(local(day, hour + hours * part / pieces), task, rows=rows)

    return play


def _touch(relations: tuple[str, ...], most: int, hours: float) -> Callable[[Clerk, Random, int, float], None]:
    def play(clerk: Clerk, random: Random, day: int, times: float) -> None:
        hour = random.uniform(9.5, 14)
        for part in range(max(3, round(most * times / 8))):
            task = Task("select", relations[part % len(relations)], ("id", "content"), 4)
            clerk.do(local(day, hour + hours * part / most), task)

    return play


def _from(address: str, hours: float, application: str | None = None) -> Callable[[Clerk, Random, int, float], None]:
    def play(clerk: Clerk, random: Random, day: int, times: float) -> None:
        facts = {"client_addr": address} | ({"application": application} if application else {})
        hour = random.uniform(9.5, 14)
        clerk.session(local(day, hour), **facts)
        for part in range(max(4, round(4 * times))):
            task = random.choice([task for task in clerk.who.tasks if task.operation == "select"])
            clerk.do(local(day, hour + 0.02 + hours * part / 32), task, kind="statement", binding="log", **facts)

    return play


def _at_night(clerk: Clerk, random: Random, day: int, times: float) -> None:
    reads = [task for task in clerk.who.tasks if task.operation == "select"]
    for part in range(max(5, round(4 * times))):
        clerk.do(local(day, 1.5 + part / 15), random.choice(reads), client_addr=clerk.who.addresses[0])


def _weekend(clerk: Clerk, random: Random, day: int, times: float) -> None:
    day += (5 - day % 7) % 7
    task, ordinary = _ordinary(clerk, "select")
    hour = random.uniform(6, 17)
    for part in range(20):
        clerk.do(local(day, hour + part / 20), task, rows=max(1, round(ordinary * times / 20)))


def _on_holiday(clerk: Clerk, random: Random, day: int, times: float) -> None:
    away = sorted(clerk.who.away)
    hour = random.uniform(9, 15)
    clerk.session(local(away[-1], hour))
    for part in range(max(4, round(4 * times))):
        clerk.do(local(away[-1], hour + 0.02 + part / 25), random.choice(clerk.who.tasks))


def _loop(clerk: Clerk, random: Random, day: int, times: float) -> None:
    reads = [task for task in clerk.who.tasks if task.operation == "select"]
    hour, count = random.uniform(3, 19), round(30 * clerk.who.pace * times)
    for part in range(count):
        clerk.do(local(day, hour + 2.5 * part / count), random.choice(reads))


def _probe(clerk: Clerk, random: Random, day: int, times: float) -> None:
    hour = random.uniform(0, 22)
    for part in range(max(4, round(4 * times))):
        failed = {"outcome": "failure", "sqlstate": "42601"} if part % 4 else {}
        task = Task("select", clerk.who.tasks[0].relation, ("id", f"probe{part}"), 1)
        clerk.do(at(day, hour + part / 60), task, rows=0 if failed else 2, kind="statement", binding="log", **failed)


def _enumerate(clerk: Clerk, random: Random, day: int, times: float) -> None:
    hour = random.uniform(9.5, 15)
    for part in range(max(4, round(4 * times))):
        clerk.do(local(day, hour + part / 80), Task("select", f"app.table_{part:02d}", ("*",), 1), rows=1)


def _creep(clerk: Clerk, random: Random, day: int, times: float) -> None:
    task, ordinary = _ordinary(clerk, "select")
    for later in range(5):
        part_of = (times - 1) * (later + 1) / 5 * ordinary / 10
        for part in range(10):
            clerk.do(local(day + later, 9.3 + part * 0.6 + random.random() / 5), task, rows=max(1, round(part_of)))


def _guess(clerk: Clerk, random: Random, day: int, times: float) -> None:
    hour, where = random.uniform(7, 17), {"client_addr": "203.0.113.9"}
    for part in range(max(3, round(3 * times))):
        clerk.session(local(day, hour + part / 300), "login_failed", outcome="failure", sqlstate="28P01", **where)
    clerk.session(local(day, hour + 0.1), **where)
    for part in range(5):
        clerk.do(local(day, hour + 0.11 + part / 60), random.choice(clerk.who.tasks), **where)


def _new_query(clerk: Clerk, random: Random, day: int, times: float) -> None:
    base, ordinary = _ordinary(clerk, "select")
    task, hour = Task("select", base.relation, ("*",), base.rows), random.uniform(9.5, 13)
    for part in range(16):
        clerk.do(local(day, hour + part / 4), task, rows=max(1, round(ordinary * times / 16)))


def _copy(clerk: Clerk, random: Random, day: int, times: float) -> None:
    hour = random.uniform(9.5, 15)
    for part in range(5):
        clerk.do(local(day, hour + part / 10), Task("insert", "public.tmp_copy", ("id",), 40), rows=round(20 * times))


def _drift(clerk: Clerk, random: Random, day: int, times: float) -> None:
    for later in range(3):
        for _ in range(max(2, round(times * (later + 1) / 2))):
            relation = random.choice(["public.payments", "public.invoices"])
            clerk.do(local(day + later, random.uniform(7, 20)), Task("select", relation, ("id", "iban"), 3))


def _within_habit(clerk: Clerk, random: Random, day: int, times: float) -> None:
    for _ in range(6):
        hour = clerk.who.starts + random.uniform(1, 6) if clerk.who.kind == "human" else random.uniform(8, 18)
        clerk.do(local(day, hour), random.choice(clerk.who.tasks))


CHOSEN_ON = (
    Kind("more_in_pieces", "support", _more("select", 30, 5), VOLUME),
    Kind("at_once", "analysts", _more("select", 2, 0.2), VOLUME),
    Kind("deletes_in_pieces", "engineers", _more("delete", 20, 3), DELETES),
    Kind("prices_changed", "pricing-agents", _more("update", 12, 2), WRITES),
    Kind("salaries", "analysts", _touch(("hr.salaries", "hr.reviews"), 16, 3), FOREIGN, ("hr.salaries", "hr.reviews")),
    Kind("at_night", "finance", _at_night, HOURS),
    Kind("other_host", "web", _from("203.0.113.66", 2), PLACE),
    Kind("enumeration", "engineers", _enumerate, FOREIGN, ("app.table_",)),
    Kind("loop", "support-agents", _loop, VOLUME),
    Kind("probing", "web", _probe, frozenset({"errors", "statements", "new", "statement"})),
    Kind("two_at_once", "support", _from("198.51.100.7", 4, "DataGrip"), PLACE),
    Kind("a_little_more_daily", "support", _creep, VOLUME, days=5),
)
HELD_OUT = (
    Kind("new_query", "finance", _new_query, NEW_WAY),
    Kind("at_the_weekend", "finance", _weekend, HOURS | VOLUME),
    Kind("copy_aside", "engineers", _copy, WRITES | FOREIGN, ("public.tmp_copy",)),
    Kind("agent_drift", "support-agents", _drift, FOREIGN, ("public.payments", "public.invoices"), days=3),
    Kind("quiet_purge", "workers", _more("delete", 6, 2), DELETES),
    Kind("orders_changed", "support", _more("update", 25, 4), WRITES),
    Kind("guessed", "support", _guess, PLACE | {"errors", "connects"}),
    Kind("stolen_token", "pricing-agents", _from("203.0.113.77", 6), PLACE),
    Kind("on_holiday", "away", _on_holiday, HOURS),
    Kind(
        "read_catalogue",
        "analysts",
        _touch(("pg_catalog.pg_authid", "pg_catalog.pg_shadow"), 10, 1),
        FOREIGN,
        ("pg_catalog.",),
    ),
    Kind("wrong_tenant", "web", _touch(("tenant_b.orders", "tenant_b.carts"), 12, 1), FOREIGN, ("tenant_b.",)),
    Kind("by_hand", "workers", _from("10.7.0.99", 2, "psql"), PLACE),
)
BLIND = (
    Kind("within_habit", "operators", _within_habit, VOLUME, blind=True),
    Kind("within_habit_agent", "support-agents", _within_habit, VOLUME, blind=True),
)


def plant(world: World, lives: dict[str, Life], kinds: tuple[Kind, ...]) -> list[Intrusion]:
    """Let each kind befall somebody else of its group; adds the events to `world.events`."""
    random, planted, taken = Random(f"{world.seed} intrusions"), [], set()
    for kind in kinds:
        free = [life for life in lives.values() if life.who.name not in taken and life.first == 0 and not life.moves]
        if kind.group == "away":
            free = [life for life in free if life.who.away and WARM_DAYS < max(life.who.away) < DAYS - 1]
        else:
            free = [life for life in free if life.who.group == kind.group]
        if not free:
            continue
        who = random.choice(free).who
        taken.add(who.name)
        days = [
            day
            for day in range(WARM_DAYS + 1, DAYS - kind.days - 1)
            if who.kind != "human"
            or (day % 7 <= (4 if kind.days == 1 else 0) and not who.away & {day, day - 1, day + 1})
        ] or [SAVING_ENDS - 5]
        times = math.exp(random.uniform(math.log(1.2), math.log(8.0)))
        clerk = Clerk(who, random, f"i{world.seed}-{kind.id}")
        kind.play(clerk, random, random.choice(days), times)
        for event in clerk.events:
            event.peer_group = who.group
        world.events += clerk.events
        planted.append(Intrusion(kind, who.name, times, tuple(sorted(event.occurred_at_us for event in clerk.events))))
    world.events.sort(key=lambda event: (event.captured_at_us, event.event_id))
    return planted
