"""Attacks that nothing was tuned on, scored apart: how models and policies do on what nobody weighed them against.

Rules: a kind is written down before it is first run, and stays as it was written. What is changed because one of
them was missed makes it a kind of `attacks`, and a new one takes its place here.
"""

from __future__ import annotations

from random import Random

from tests.quality.attacks import Attack
from tests.quality.chores import define, say
from tests.quality.world import DEPLOYMENT, Clerk, Task, at, pool


def injected_prices(clerk: Clerk, random: Random, day: int) -> None:
    """A competitor's page tells a pricing agent to change prices, and it does, among its usual work."""
    hour = random.uniform(7, 18)
    for part in range(5):
        clerk.do(
            at(day, hour + part / 50),
            Task("update", "public.prices", ("id", "amount"), 20),
            rows=random.randrange(15, 30),
        )


def leaked_near(clerk: Clerk, random: Random, day: int) -> None:
    """A service's leaked credential reads slowly from a neighbouring pod's address, with the service's name."""
    near = clerk.who.addresses[0].rpartition(".")[0] + ".251"
    facts = {"client_addr": near, "kind": "statement", "binding": "log"}
    for later in range(2):
        clerk.session(at(day + later, 9.0), client_addr=near)
        for part in range(40):
            task = Task("select", "public.customers", ("id", "name", "email"), 15)
            clerk.do(at(day + later, 9.0 + part / 4 + random.random() / 8), task, rows=random.randrange(8, 20), **facts)


def dba_covers_tracks(clerk: Clerk, random: Random, day: int) -> None:
    """An administrator looks at salaries, removes what was logged of it and begins the statistics anew."""
    hour = random.uniform(10, 15)
    say(clerk, at(day, hour), "SELECT name, amount FROM hr.salaries WHERE name = 'x'", 1)
    say(clerk, at(day, hour + 0.02), "SELECT name, amount FROM hr.salaries ORDER BY amount DESC LIMIT 20", 20)
    clerk.do(at(day, hour + 0.1), Task("delete", "audit.log_entries", ("id",), 1), rows=3)
    say(clerk, at(day, hour + 0.15), "SELECT pg_stat_statements_reset()", 1)


def weekend_export(clerk: Clerk, random: Random, day: int) -> None:
    """An account that nobody used since the second day exports reports on a Saturday, page by page."""
    hour = random.uniform(8, 16)
    clerk.session(at(12, hour))
    for part in range(40):
        relation = ("public.orders", "public.products", "reports.daily")[part % 3]
        clerk.do(at(12, hour + 0.01 + part / 40), Task("select", relation, ("*",), 400), rows=400)


def copying_release(clerk: Clerk, random: Random, day: int) -> None:
    """From its new release on a service quietly copies names and addresses into a table of its own."""
    text = "INSERT INTO public.search_cache (name, email) SELECT name, email FROM public.customers WHERE id > 1"
    for later in range(3):
        for part in range(96):
            moment = at(DEPLOYMENT[0] + later, DEPLOYMENT[1] + 0.1) + int(part * 0.25 * 3_600_000_000)
            rows = random.randrange(4, 16)
            say(clerk, moment, text, rows, client_addr=random.choice(clerk.who.addresses))
            clerk.do(moment + 1_000, Task("insert", "public.search_cache", ("name", "email"), rows), rows=rows)


def under_cover_of_a_fix(clerk: Clerk, random: Random, day: int) -> None:
    """An engineer, called at night, reads payments besides what the fix needs."""
    hour = random.uniform(1, 4)
    clerk.session(at(day, hour), client_addr=clerk.who.home)
    for part in range(6):
        called = random.choices(clerk.who.tasks, clerk.who.weights)[0]
        clerk.do(at(day, hour + 0.02 + part / 20), called, client_addr=clerk.who.home)
        task = Task("select", "public.payments", ("id", "iban", "amount"), 120)
        clerk.do(at(day, hour + 0.04 + part / 20), task, rows=random.randrange(80, 160), client_addr=clerk.who.home)


def back_door(clerk: Clerk, random: Random, day: int) -> None:
    """The deploying service's credential makes a function that lends its owner's rights, between two releases."""
    hour = random.uniform(18, 23)
    text = (
        "CREATE FUNCTION public.sync(t text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN EXECUTE t; END'"
    )
    clerk.session(at(day, hour))
    define(clerk, at(day, hour + 0.01), "CREATE FUNCTION", text)
    say(clerk, at(day, hour + 0.011), text)


def agent_helps_itself(clerk: Clerk, random: Random, day: int) -> None:
    """An agent is refused, tries to grant itself the right, and reads what it may by another way."""
    hour = random.uniform(0, 22)
    denied = {"outcome": "denied", "sqlstate": "42501"}
    say(clerk, at(day, hour), "SELECT iban FROM public.payments WHERE id = 1", None, **denied)
    say(clerk, at(day, hour + 0.01), "GRANT SELECT ON public.payments TO agents", None, **denied)
    say(clerk, at(day, hour + 0.02), "SET ROLE finance", None, **denied)
    for part in range(8):
        text = "SELECT invoice_id, iban, total FROM public.invoices WHERE customer_id = 1"
        say(clerk, at(day, hour + 0.03 + part / 60), text, 4)


def patient_colleague(clerk: Clerk, random: Random, day: int) -> None:
    """Somebody in finance looks up a few more invoices an hour than the work needs, as colleagues do, for five days."""
    tasks = [task for task in pool("finance") if task.operation == "select"]
    for later in range(5):
        for part in range(20):
            clerk.do(at(day + later, 8.5 + part * 0.38 + random.random() / 10), random.choice(tasks))


HELD_OUT = (
    Attack("injected_prices", "an agent changes prices as a page told it", "pricing-agents", 1, injected_prices, True),
    Attack("leaked_near", "a service's credential from a near address, slowly", "web", 2, leaked_near, True),
    Attack("dba_covers_tracks", "an administrator covers tracks", "dbas", 1, dba_covers_tracks, True),
    Attack("weekend_export", "a dormant account exports at the weekend", "analysts", 1, weekend_export, True),
    Attack("copying_release", "a new release copies personal data", "web", 4, copying_release, True),
    Attack("under_cover_of_a_fix", "payments read under cover of a fix", "engineers", 1, under_cover_of_a_fix, True),
    Attack("back_door", "a function with its owner's rights", "deployers", 1, back_door, True),
    Attack(
        "agent_helps_itself", "an agent tries to grant itself a right", "support-agents", 1, agent_helps_itself, True
    ),
    Attack("patient_colleague", "a little more than the work needs", "finance", 5, patient_colleague, True),
)
"""Planted besides `ATTACKS`, on victims of their own."""
