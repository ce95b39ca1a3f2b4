"""Attacks among the ordinary days: loud ones, quiet ones and slow ones.

Each is one function: it gets a clerk that writes for its victim, a random generator and the day it starts, and
writes only what the intruder does; the victim's own work goes on beside it. An attack never looks at the models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pgwitness.core.events import Event
from tests.quality.world import SENSITIVE, Clerk, Principal, Task, World, at, pool

FIRST_DAY, LAST_DAY = 10, 15
Play = Callable[[Clerk, Random, int], None]


@dataclass(frozen=True)
class Attack:
    """One kind of attack. `days` is how long it takes, `group` whom it can befall.

    `held_out`: nothing was tuned on it, and it is scored apart.
    """

    id: str
    title: str
    group: str
    days: int
    play: Play
    held_out: bool = False


@dataclass(frozen=True)
class Planted:
    """One attack of one seed: who, and the times of its events."""

    attack: Attack
    victim: str
    times_us: tuple[int, ...]


def bulk_read(clerk: Clerk, random: Random, day: int) -> None:
    """A person reads the whole table at once."""
    clerk.do(
        at(day, random.uniform(9, 15)), Task("select", "public.customers", ("id", "name", "email"), 40_000), rows=40_000
    )


def page_by_page(clerk: Clerk, random: Random, day: int) -> None:
    """The whole table in pages of the usual statement, within two hours."""
    task = next(task for task in clerk.who.tasks if task.operation == "select")
    hour = random.uniform(8, 13)
    for page in range(120):
        clerk.do(at(day, hour + page / 60), task, rows=100)


def gradual_exfiltration(clerk: Clerk, random: Random, day: int) -> None:
    """Each day half as much again as the day before, spread over the office hours."""
    task = next(task for task in clerk.who.tasks if task.operation == "select")
    rows = 60.0
    for later in range(6):
        for part in range(12):
            clerk.do(at(day + later, 8.5 + part * 0.6 + random.random() / 5), task, rows=round(rows / 12 * 4))
        rows *= 1.5


def night_trickle(clerk: Clerk, random: Random, day: int) -> None:
    """An agent's credential reads twenty customers every quarter of an hour through three nights."""
    for later in range(3):
        for part in range(20):
            task = Task("select", "public.customers", ("id", "email", "phone"), 20)
            clerk.do(at(day + later, part / 4 + random.random() / 10), task, rows=20)


def mass_delete(clerk: Clerk, random: Random, day: int) -> None:
    """Everything goes in one transaction."""
    clerk.do(at(day, random.uniform(9, 16)), Task("delete", "public.orders", ("id",), 1), rows=8_000)


def delete_in_pieces(clerk: Clerk, random: Random, day: int) -> None:
    """The same in small pieces, each below any limit, over three hours."""
    hour = random.uniform(8, 12)
    for part in range(90):
        clerk.do(at(day, hour + part / 30), Task("delete", "public.tickets", ("id",), 1), rows=random.randrange(8, 20))


def update_in_pieces(clerk: Clerk, random: Random, day: int) -> None:
    """Many small updates of the usual table: balances nudged a few rows at a time."""
    hour = random.uniform(8, 12)
    for part in range(150):
        clerk.do(
            at(day, hour + part / 50),
            Task("update", "public.invoices", ("id", "status"), 2),
            rows=random.randrange(5, 15),
        )


def off_hours(clerk: Clerk, random: Random, day: int) -> None:
    """A person's credential works at three in the night, from the usual machine, on the usual tables."""
    reads = [task for task in clerk.who.tasks if task.operation == "select"]
    for part in range(25):
        clerk.do(at(day, 2.5 + part / 20), random.choice(reads))


def new_address(clerk: Clerk, random: Random, day: int) -> None:
    """A service's credential is used from a machine that is not its own."""
    hour = random.uniform(0, 23)
    clerk.session(at(day, hour), client_addr="203.0.113.66")
    for part in range(10):
        task = random.choice(clerk.who.tasks)
        clerk.do(at(day, hour + 0.02 + part / 60), task, kind="statement", binding="log", client_addr="203.0.113.66")


def enumeration(clerk: Clerk, random: Random, day: int) -> None:
    """One row each of thirty tables within twenty minutes: what is there?"""
    hour = random.uniform(9, 16)
    for number in range(30):
        clerk.do(at(day, hour + number / 90), Task("select", f"app.table_{number:02d}", ("*",), 1), rows=1)


def privilege_creep(clerk: Clerk, random: Random, day: int) -> None:
    """Each day one more sensitive table, a handful of rows, in office hours."""
    for later in range(5):
        for relation in SENSITIVE[: later + 1]:
            for part in range(2):
                task = Task("select", relation, ("id", "content"), 5)
                clerk.do(at(day + later, 9 + random.random() * 6 + part / 10), task)


def agent_drift(clerk: Clerk, random: Random, day: int) -> None:
    """An agent drifts from its tickets to payments and invoices, day by day a larger part of its work."""
    for later in range(6):
        for _ in range(4 * (later + 1)):
            relation = random.choice(["public.payments", "public.invoices", "public.refunds"])
            columns = random.choice([("id", "amount"), ("id", "iban"), ("id", "owner")])
            clerk.do(at(day + later, random.uniform(1, 23)), Task("select", relation, columns, 4))


def mimicry(clerk: Clerk, random: Random, day: int) -> None:
    """Stolen credentials in office hours, from the usual machine, at the usual pace; only the tables are others."""
    hour = random.uniform(9, 12)
    for part in range(20):
        relation = random.choice(["hr.salaries", "hr.reviews", "public.payments"])
        clerk.do(at(day, hour + part / 8), Task("select", relation, ("id", "name", "amount"), 6))


def poisoning(clerk: Clerk, random: Random, day: int) -> None:
    """Volumes are raised by a few percent an action for three days, then the table is taken in large pages."""
    task = next(task for task in clerk.who.tasks if task.operation == "select")
    rows = 8.0
    for later in range(3):
        for part in range(60):
            clerk.do(at(day + later, 8 + part / 8), task, rows=round(rows))
            rows *= 1.02
    for part in range(30):
        clerk.do(at(day + 3, 10 + part / 20), task, rows=400)


def credential_sharing(clerk: Clerk, random: Random, day: int) -> None:
    """A second person uses a person's login from elsewhere, at the same time, for the same work, for two days."""
    for later in range(2):
        clerk.session(at(day + later, 9.2), client_addr="198.51.100.7", application="DataGrip")
        for _ in range(40):
            task = random.choice(clerk.who.tasks)
            clerk.do(at(day + later, random.uniform(9.3, 16)), task, client_addr="198.51.100.7", application="DataGrip")


def dormant_account(clerk: Clerk, random: Random, day: int) -> None:
    """An account that nobody used since the second day works for an hour."""
    hour = random.uniform(9, 16)
    clerk.session(at(day, hour))
    for part in range(25):
        clerk.do(at(day, hour + 0.01 + part / 30), random.choice(clerk.who.tasks))


def wrong_tenant(clerk: Clerk, random: Random, day: int) -> None:
    """A service reads the same tables of another tenant's schema."""
    hour = random.uniform(0, 23)
    for part in range(12):
        relation = random.choice(["tenant_b.orders", "tenant_b.carts"])
        clerk.do(at(day, hour + part / 60), Task("select", relation, ("id", "total"), 2), calls=3)


def shadow_write(clerk: Clerk, random: Random, day: int) -> None:
    """Triggers off, five rows changed, triggers on."""
    event = clerk.do(at(day, random.uniform(0, 23)), Task("update", "public.payments", ("amount",), 5), rows=5)
    _say(clerk, event, detail={"finding": "shadow_write"}, binding="none", certainty="none")


def make_superuser(clerk: Clerk, random: Random, day: int) -> None:
    """Somebody makes a role that may do everything."""
    detail = {
        "object_type": "role",
        "name": "metrics",
        "change": "added",
        "after": {"rolsuper": True, "rolcanlogin": True},
    }
    clerk.other(at(day, random.uniform(9, 16)), "posture", operation="added", detail=detail)


def drop_table(clerk: Clerk, random: Random, day: int) -> None:
    """A table is dropped."""
    detail = {"operations": ["drop_table"], "where": "n/a", "utility": True, "functions": []}
    clerk.other(
        at(day, random.uniform(9, 16)),
        "ddl",
        binding="beacon",
        certainty="exact",
        operation="DROP TABLE",
        relations=["public.refunds"],
        statement="DROP TABLE public.refunds",
        detail=detail,
    )


def guessed_password(clerk: Clerk, random: Random, day: int) -> None:
    """Forty failed logins within ten minutes, then one that works."""
    hour = random.uniform(0, 6)
    for part in range(40):
        clerk.session(
            at(day, hour + part / 240), "login_failed", outcome="failure", sqlstate="28P01", client_addr="203.0.113.9"
        )
    clerk.session(at(day, hour + 0.2), client_addr="203.0.113.9")
    for part in range(5):
        clerk.do(at(day, hour + 0.21 + part / 60), random.choice(clerk.who.tasks), client_addr="203.0.113.9")


def injection(clerk: Clerk, random: Random, day: int) -> None:
    """Somebody probes a service for injection: statements that never were, most of which fail."""
    hour = random.uniform(0, 23)
    for part in range(40):
        task = Task("select", "public.products", ("id", f"probe{part}"), 1)
        failed = {"outcome": "failure", "sqlstate": "42601"} if part % 5 else {}
        clerk.do(at(day, hour + part / 120), task, rows=0 if failed else 3, kind="statement", binding="log", **failed)


def service_by_hand(clerk: Clerk, random: Random, day: int) -> None:
    """A person uses a service's login with psql, from one of its own machines."""
    hour = random.uniform(9, 16)
    facts = {"application": "psql", "kind": "statement", "binding": "log"}
    clerk.session(at(day, hour), application="psql")
    for part in range(12):
        relation = random.choice(["public.customers", "public.payments", "public.orders"])
        clerk.do(at(day, hour + 0.01 + part / 40), Task("select", relation, ("*",), 30), **facts)


def tampering(clerk: Clerk, random: Random, day: int) -> None:
    """A person in support changes amounts of payments, a row at a time."""
    hour = random.uniform(9, 15)
    for part in range(15):
        clerk.do(at(day, hour + part / 12), Task("update", "public.payments", ("id", "amount"), 1), rows=1)


def runaway_agent(clerk: Clerk, random: Random, day: int) -> None:
    """An agent in a loop: its usual reads, thirty times as fast."""
    reads = [task for task in clerk.who.tasks if task.operation == "select"]
    hour = random.uniform(0, 22)
    for part in range(400):
        clerk.do(at(day, hour + part / 500), random.choice(reads))


def staged_copy(clerk: Clerk, random: Random, day: int) -> None:
    """A copy of the payments is put aside in a table of its own, four thousand rows in ten steps."""
    hour = random.uniform(9, 15)
    for part in range(10):
        clerk.do(at(day, hour + part / 10), Task("insert", "public.tmp_export", ("id", "card"), 400), rows=400)


def injected_agent(clerk: Clerk, random: Random, day: int) -> None:
    """A ticket tells an agent to fetch another tenant's customers, and it does, among its usual work."""
    hour = random.uniform(7, 18)
    task = Task("select", "public.customers", ("id", "email", "phone", "tenant_id"), 35)
    for part in range(4):
        clerk.do(at(day, hour + part / 40), task, rows=random.randrange(25, 45))


def _say(clerk: Clerk, event: Event, **facts: object) -> None:
    for name, value in facts.items():
        setattr(event, name, value)


ATTACKS = (
    Attack("bulk_read", "a person reads the whole table at once", "support", 1, bulk_read),
    Attack("page_by_page", "the whole table in small pages", "support", 1, page_by_page),
    Attack("gradual_exfiltration", "half as much again each day", "support", 6, gradual_exfiltration),
    Attack("night_trickle", "twenty rows every quarter of an hour at night", "pricing-agents", 3, night_trickle),
    Attack("mass_delete", "everything is deleted at once", "finance", 1, mass_delete),
    Attack("delete_in_pieces", "deleted in small pieces", "support", 1, delete_in_pieces),
    Attack("update_in_pieces", "changed in small pieces", "finance", 1, update_in_pieces),
    Attack("off_hours", "the usual work at three in the night", "support", 1, off_hours),
    Attack("new_address", "a service from another machine", "web", 1, new_address),
    Attack("enumeration", "one row each of thirty tables", "analysts", 1, enumeration),
    Attack("privilege_creep", "one more sensitive table each day", "analysts", 5, privilege_creep),
    Attack("agent_drift", "an agent drifts from its task", "support-agents", 6, agent_drift),
    Attack("mimicry", "stolen credentials in office hours", "support", 1, mimicry),
    Attack("poisoning", "volumes raised slowly, then taken", "support", 4, poisoning),
    Attack("credential_sharing", "two people with one login", "finance", 2, credential_sharing),
    Attack("dormant_account", "an account wakes up", "analysts", 1, dormant_account),
    Attack("wrong_tenant", "a service in another tenant's schema", "web", 1, wrong_tenant),
    Attack("shadow_write", "triggers off, rows changed", "engineers", 1, shadow_write),
    Attack("make_superuser", "a superuser is made", "engineers", 1, make_superuser),
    Attack("drop_table", "a table is dropped", "engineers", 1, drop_table),
    Attack("guessed_password", "failed logins, then one that works", "finance", 1, guessed_password),
    Attack("injection", "a service is probed for injection", "web", 1, injection),
    Attack("service_by_hand", "a person uses a service's login", "workers", 1, service_by_hand),
    Attack("tampering", "amounts changed a row at a time", "support", 1, tampering),
    Attack("runaway_agent", "an agent in a loop", "support-agents", 1, runaway_agent),
    Attack("staged_copy", "a copy put aside", "analysts", 1, staged_copy),
    Attack("injected_agent", "an agent reads another tenant's rows", "support-agents", 1, injected_agent),
)


DORMANT = ("dormant_account", "weekend_export")
"""Attacks on accounts that nobody used since the second day."""


def plant(world: World, attacks: tuple[Attack, ...] = ATTACKS, taken: frozenset[str] = frozenset()) -> list[Planted]:
    """Let every attack befall somebody else, none of those `taken`; adds its events to `world.events`."""
    random = Random(f"{world.seed} {'attacks' if attacks is ATTACKS else 'other attacks'}")
    free: dict[str, list[Principal]] = {}
    planted = []
    for attack in attacks:
        if attack.group not in free:
            free[attack.group] = [one for one in world.of(attack.group) if one.name not in taken]
            random.shuffle(free[attack.group])
        # People on holiday lend nobody their credentials in this company: whoever is there comes first.
        candidates = free[attack.group]
        victim = next((one for one in candidates if not one.away), candidates[0])
        candidates.remove(victim)
        day = random.randrange(FIRST_DAY, LAST_DAY - attack.days + 2)
        while attack.days == 1 and victim.kind == "human" and day % 7 > 4:
            day = random.randrange(FIRST_DAY, LAST_DAY + 1)
        clerk = Clerk(victim, random, f"a{world.seed}-{attack.id}")
        if attack.id in DORMANT:
            victim.tasks = pool(attack.group)[:6]
            world.events = [e for e in world.events if e.principal != victim.name or e.occurred_at_us < at(2, 0)]
        attack.play(clerk, random, day)
        world.events += clerk.events
        planted.append(Planted(attack, victim.name, tuple(event.occurred_at_us for event in clerk.events)))
    world.events.sort(key=lambda event: (event.captured_at_us, event.event_id))
    return planted
