"""The behaviour model: who is learned, what is new, what is not learned, and what is said about it."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.behaviour.habits import (
    PENDING_MAX,
    TOUCHES_MAX,
    VALUES_MAX,
    Habits,
    Known,
    Observation,
    Unusual,
    Volume,
    size_of,
)
from detectors.behaviour.model import GROUP_FACTOR, Behaviour
from detectors.behaviour.scoring import LEARNING, ORDINARY
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.units import Duration

SECOND_US = 1_000_000
START_US = 1_790_000_000 * SECOND_US
SETTINGS = Settings(warmup=Duration(60.0), warmup_observations=50, adopt_after=Duration(3600.0))


class Life:
    """A model and a clock; `act` is one action of a principal, a second after the one before."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.model = Behaviour(settings)
        self.now_us = START_US

    def act(
        self,
        who: str = "shipping",
        group: str | None = None,
        operation: str = "update",
        relation: str | None = "public.orders",
        rows: int | None = 1,
        address: str | None = "10.0.0.5",
        application: str | None = "shipping",
        seconds: float = 1.0,
        statement: str | None = None,
        columns: str | None = None,
        sensitive: bool = False,
    ) -> Unusual:
        """Let time pass and a principal act."""
        self.now_us += int(seconds * SECOND_US)
        return self.model.observe(
            who, group, self.now_us, operation, relation, rows, address, application, statement, columns, sensitive
        )

    def grow_up(self, who: str = "shipping", group: str | None = None, actions: int = 200) -> None:
        """Return a principal a history in which rows vary between one and three."""
        for number in range(actions):
            self.act(who, group, rows=1 + number % 3)


def test_who_is_new_is_learned_and_not_judged() -> None:
    """Whatever a principal does in its first actions, there is no score; then there is."""
    life = Life()
    first = [life.act(address=f"10.0.0.{n}", relation=f"public.t{n}", rows=n * 1_000) for n in range(50)]
    assert all(result is LEARNING for result in first)
    # By number it is known now, by time it is not.
    assert life.act() is LEARNING
    for _ in range(12):
        life.act()
    assert life.act() is not LEARNING


def test_a_burst_does_not_end_the_warm_up() -> None:
    """A thousand actions in a second are no history."""
    life = Life()
    assert all(life.act(seconds=0.001) is LEARNING for _ in range(1_000))


def test_the_ordinary_is_ordinary() -> None:
    """A principal that does what it always does scores 0, without an object being made."""
    life = Life()
    life.grow_up()
    assert all(life.act(rows=1 + n % 3) is ORDINARY for n in range(500))


def test_a_new_address_is_flagged_and_explained() -> None:
    """Who always came from one address surprises with another; the reason names it."""
    life = Life()
    life.grow_up()
    result = life.act(address="10.9.9.9")
    assert result.new_client_addr
    assert not result.new_application
    assert result.reasons[0]["feature"] == "client_addr"
    assert "10.9.9.9 was never seen" in result.reasons[0]["words"]
    assert 0.5 < result.score < 0.6


def test_an_unknown_address_is_not_a_new_one() -> None:
    """Events that do not tell the address say nothing about it."""
    life = Life()
    life.grow_up()
    assert life.act(address=None, application=None) is ORDINARY


def test_who_comes_from_everywhere_does_not_surprise() -> None:
    """A new address of somebody who has had a hundred scores less than of one who had one."""
    life = Life()
    life.grow_up("steady", actions=300)
    for number in range(300):
        life.act("traveller", address=f"10.1.{number // 3}.1")
    assert life.act("traveller", address="10.2.0.1").score < life.act("steady", address="10.2.0.1").score - 0.1


def test_what_is_new_stays_new_until_it_was_there_for_long() -> None:
    """Coming again and again does not make an intruder ordinary; a week of it does (here: an hour)."""
    life = Life()
    life.grow_up()
    assert all(life.act(address="10.9.9.9").new_client_addr for _ in range(500))
    life.act(seconds=3_600)
    life.act(address="10.9.9.9")
    assert not life.act(address="10.9.9.9").new_client_addr


def test_a_further_pod_of_a_known_network_is_no_new_place() -> None:
    """Of three addresses in one network a fourth does not surprise; an address of another one does."""
    life = Life()
    for number in range(300):
        life.act(address=f"10.4.0.{number % 3}")
    assert life.act(address="10.4.0.77") is ORDINARY
    assert life.act(address="10.5.0.77").new_client_addr
    for address in ("10.4.0.300.1", "not an address", "::ffff:zz", "1:2:3"):
        assert life.act(address=address).new_client_addr


def test_pods_over_several_networks_of_one_prefix_are_no_new_place() -> None:
    """Of three addresses in two networks of a /16 (/48) one in a third does not surprise; of one network it does."""
    life = Life()
    for number in range(300):
        life.act(
            address=("10.4.0.1", "10.4.1.1", "10.4.1.2", "fd00:1:2:a::1", "fd00:1:2:b::1", "fd00:1:2:b::2")[number % 6]
        )
    assert life.act(address="10.4.9.9") is ORDINARY
    assert life.act(address="fd00:1:2:c::9") is ORDINARY
    assert life.act(address="10.5.0.1").new_client_addr
    assert life.act(address="fd00:1:3:c::9").new_client_addr
    alone = Life()
    for _ in range(300):
        alone.act(address="10.4.0.1")
        alone.act(address="10.4.0.2")
    assert alone.act(address="10.4.1.1").new_client_addr


def test_a_new_statement_is_a_reason_and_a_new_relation_holds_its_statements() -> None:
    """Another statement on a known relation is told; on a relation that is new it goes without saying."""
    life = Life()
    for _ in range(200):
        life.act(statement="f1", columns="a,b")
    assert life.act(statement="f1", columns="a,b") is ORDINARY
    other = life.act(statement="f2", columns="a,salary")
    assert other.new_statement
    assert {reason["feature"] for reason in other.reasons} == {"statement", "columns"}
    foreign = life.act(relation="hr.salaries", statement="f3", columns="c")
    assert {reason["feature"] for reason in foreign.reasons} == {"relation"}
    assert foreign.foreign > 0.9


def test_one_member_teaches_its_peers_nothing_and_three_do() -> None:
    """A relation that one member uses stays foreign to its group; when three have used it, it is theirs."""
    life = Life()
    names = ("ada", "ben", "cora", "dan")
    for number in range(400):
        life.act(names[number % 4], "team", rows=1 + number % 3)
    assert all(life.act("ada", "team", relation="hr.salaries").foreign > 0 for _ in range(100))
    assert life.act("ben", "team", relation="hr.salaries").foreign > 0
    assert life.act("cora", "team", relation="hr.salaries").foreign > 0
    last = life.act("dan", "team", relation="hr.salaries")
    assert last.new_relation
    assert last.foreign == 0
    assert "though of its peers" in last.reasons[0]["words"]


def test_where_one_member_moves_is_new_and_where_three_do_is_not() -> None:
    """A network and an application of a rollout are known to the group after three members; also to who comes last."""
    life = Life()
    names = ("ada", "ben", "cora", "dan", "eve")
    for number in range(500):
        life.act(names[number % 5], "team", rows=1 + number % 3, address=f"10.4.{number % 5}.1")
    moved = {"address": "10.99.0.7", "application": "v2"}
    assert all(life.act("ada", "team", **moved).new_client_addr for _ in range(100))
    for name in ("ben", "cora"):
        there = life.act(name, "team", **moved)
        assert (there.new_client_addr, there.new_application) == (True, True)
    assert life.act("dan", "team", address="10.99.0.8", application="v2") is ORDINARY
    assert life.act("eve", "team", address="10.98.0.8", application="v2").new_client_addr
    assert life.act("eve", "team", address="10.99.0.9", application="v3").new_application


def test_a_network_that_is_listed_is_one_place_and_never_new() -> None:
    """Whoever moves in it, and comes to another one that is listed, does nothing new; an address elsewhere is."""
    life = Life()
    for _ in range(300):
        life.act(address="10.4.0.0/16")
    assert life.act(address="10.4.0.0/16") is ORDINARY
    assert life.act(address="fd00:1::/48") is ORDINARY
    assert life.act(address="10.5.0.1").new_client_addr


def test_what_is_sensitive_is_not_adopted_by_time_alone() -> None:
    """An ordinary relation is a habit after a while, a sensitive one only when a reviewer has said so."""
    life = Life()
    life.grow_up()
    for relation, sensitive in (("public.notes", False), ("hr.salaries", True)):
        for _ in range(10):
            assert life.act(relation=relation, sensitive=sensitive).new_relation
    life.act(seconds=2 * 3_600)
    for _ in range(3):
        ordinary = life.act(relation="public.notes")
        reading = life.act(relation="hr.salaries", sensitive=True)
    assert ordinary is ORDINARY
    assert reading.new_relation
    facts = {"rows": 1, "client_addr": "10.0.0.5", "application": "shipping"}
    life.model.learn("shipping", operation="update", relation="hr.salaries", **facts)
    assert not life.act(relation="hr.salaries", sensitive=True).new_relation


def test_a_thousand_relations_and_64_applications_are_kept() -> None:
    """Who works on a thousand relations, from 64 applications, is not surprised by any of them; both are bounded."""
    habits = Habits(0)
    for number in range(1_000):
        for operation in ("select", "update"):
            application = f"app {number % 64}"
            habits.learn(Observation(0, operation, f"public.t{number}", 1, None, application, None, None))
    assert len(habits.touches.counts) == 2_000
    assert len(habits.applications.counts) == 64
    for number in range(TOUCHES_MAX):
        habits.learn(Observation(0, "delete", f"public.t{number}", 1, None, None, None, None))
    assert len(habits.touches.counts) <= TOUCHES_MAX
    restored = Habits.of(msgspec.json.decode(msgspec.json.encode(habits.state())))
    assert restored.touches.values_max == TOUCHES_MAX
    assert restored.state() == habits.state()


def test_far_more_rows_than_ever_are_not_learned() -> None:
    """The same mass of rows a hundred times scores the same the hundredth time."""
    life = Life()
    life.grow_up()
    first = life.act(rows=50_000)
    assert first.score > 0.9
    assert first.reasons[0]["feature"] == "volume"
    assert [life.act(rows=50_000).score for _ in range(100)] == [first.score] * 100


def test_few_rows_are_never_many() -> None:
    """Thirty rows of somebody who writes one at a time are no finding."""
    life = Life()
    for _ in range(200):
        life.act(rows=1)
    assert life.act(rows=30) is ORDINARY


def test_a_volume_that_grows_slowly_is_followed() -> None:
    """Growth by a percent a time is learned, so that a growing business is no anomaly."""
    life = Life()
    life.grow_up()
    rows = 3.0
    for _ in range(600):
        rows *= 1.01
        assert life.act(rows=int(rows)) is ORDINARY
    assert rows > 1_000


def test_an_operation_never_used_is_measured_by_the_usual_one() -> None:
    """The first delete of a principal, if it is of thousands of rows, is unusual by volume too."""
    life = Life()
    life.grow_up()
    result = life.act(operation="delete", rows=5_000)
    assert {reason["feature"] for reason in result.reasons} == {"relation", "volume"}
    assert result.score > 0.9


def test_who_is_warming_up_borrows_from_its_peers() -> None:
    """A new agent that does what no agent ever did is judged by the group; what they all do is not held against it."""
    life = Life()
    for number in range(60 * GROUP_FACTOR):
        life.act(f"agent-{number % 6}", "agents", rows=1 + number % 3)
    assert life.act("newcomer", "agents") is ORDINARY
    strange = life.act("newcomer", "agents", operation="delete", relation="public.customers", rows=9_000)
    assert strange.score > 0.9
    assert "members of agents" in strange.reasons[0]["words"]
    assert not strange.new_client_addr
    assert life.act("stranger", None, operation="delete", rows=9_000) is LEARNING


def test_unknown_principals_cannot_evict_the_known() -> None:
    """A flood of names does not make the model forget whom it knows."""
    life = Life(Settings(warmup=Duration(60.0), warmup_observations=50, principals_max=100))
    life.grow_up()
    for number in range(5_000):
        life.act(f"nobody-{number}", f"group-{number}", seconds=0.001)
    assert life.act(address="10.9.9.9").new_client_addr
    assert len(life.model) <= 100 + 25 + 25


def test_the_known_who_were_inactive_longest_are_evicted_first() -> None:
    """Of more principals than fit those stay that acted last."""
    life = Life(Settings(warmup=Duration(1.0), warmup_observations=5, principals_max=4))
    for who in ("a", "b", "c", "d", "e"):
        life.grow_up(who, actions=10)
    assert life.act("a") is LEARNING
    assert life.act("e") is ORDINARY


def test_values_are_bounded() -> None:
    """More values than are kept push out the rarest, never the usual, and new ones wait in a bounded room."""
    known = Known()
    for number in range(10 * VALUES_MAX):
        known.learn(f"v{number}")
        known.learn("often")
        known.hold(f"p{number}", number, 10**9)
    assert VALUES_MAX // 2 < len(known.counts) <= VALUES_MAX
    assert known.counts["often"] == 10 * VALUES_MAX
    assert len(known.pending) == PENDING_MAX
    assert known.distinct == 10 * VALUES_MAX + 1


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.integers(0, 10**12))
def test_a_volume_comes_back_from_its_state_exactly(rows: list[int], then: int) -> None:
    """Restored means go on as those that were never away, to the last bit."""
    one = Volume()
    for count in rows:
        one.learn(size_of(count))
    other = Volume.of(one.state())
    for volume in (one, other):
        volume.learn(size_of(then))
    assert one.state() == other.state()


@pytest.mark.parametrize("rows", [-(2**63), -1, 0, 1, 10**9, 2**63, 2**200])
def test_sizes_have_fixed_limits(rows: int) -> None:
    """Any number of rows is a size between 0 and log1p of a billion."""
    assert 0.0 <= size_of(rows) <= math.log1p(1e9)
