"""The fold: whose a transaction is, what waits, what is dropped."""

from __future__ import annotations

import msgspec
import pytest

from pgwitness.core.events import Control, Event, Forgery, Gap, Identities, Posture, QueryStats, RawEvent, Session
from pgwitness.core.topics import OURSELVES
from streams.fold.fold import Fold
from streams.fold.hold_buffer import PART_BYTES
from streams.identity.identities import Identities as Rules
from tests.streams.records import (
    BACKEND_US,
    IDENTITIES,
    SECOND_US,
    START_US,
    batch,
    beacon,
    read,
    sample,
    tick,
    transaction,
)


class Feed:
    """A fold and the offset of its next record."""

    def __init__(self, grace_s: float = 2.0, held_bytes_max: int = 1 << 20) -> None:
        self.fold = Fold(3, Rules.parse(IDENTITIES), int(grace_s * SECOND_US), held_bytes_max)

    def __call__(self, *events: RawEvent, cluster: str = "shop") -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, cluster=cluster)))


@pytest.fixture
def feed() -> Feed:
    """A fold with a grace period of two seconds."""
    return Feed()


def test_the_network_in_which_a_principal_moves_is_emitted() -> None:
    """What its rule lists goes on in `detail`, of any evidence that has an address; from elsewhere nothing is said."""
    feed = Feed()
    feed.fold = Fold(3, Rules.parse(IDENTITIES.replace("owner: payments", "networks: 10.0.0.0/8")), 2_000_000, 1 << 20)
    (event,) = feed(transaction(10, covered=True, beacons=[beacon(application="bot-7", client_addr="10.1.2.3")]))
    assert (event.principal, event.detail) == ("billing-bot", {"network": "10.0.0.0/8"})
    (event,) = feed(transaction(20, covered=True, beacons=[beacon(application="bot-7", client_addr="192.0.2.7")]))
    assert (event.principal, event.detail) == ("billing-bot", {})


def test_a_beacon_is_exact(feed: Feed) -> None:
    """A verified beacon binds its transaction exactly, at once, and the rules name its session."""
    (event,) = feed(transaction(10, covered=True, beacons=[beacon(application="bot-7", claim="ticket 9")]))
    assert (event.principal, event.principal_kind, event.on_behalf_of) == ("billing-bot", "agent", "finance")
    assert (event.binding, event.certainty, event.assurance) == ("beacon", "exact", "asserted")
    assert (event.role, event.application, event.pid, event.peer_group) == ("app", "bot-7", 41, "bots")
    assert event.session_id == f"db:5432/{BACKEND_US // 1_000_000:x}.29"
    assert event.detail == {"claim": "ticket 9", "owner": "payments"}
    assert (event.operation, event.row_count, event.relations) == ("insert", 1, ["public.orders"])


def test_rows_pass_through_as_bytes(feed: Feed) -> None:
    """The fold hands on rows as they came."""
    sent = transaction(10, n_rows=3, beacons=[beacon()])
    (event,) = feed(sent)
    assert bytes(event.rows) == bytes(sent.rows)


def test_what_pg_stat_activity_knows_verifies_a_beacon(feed: Feed) -> None:
    """How a session authenticated is known from pg_stat_activity only, and makes a role verified."""
    feed(sample(1, user="p_ann", application="psql", auth_method="cert"))
    (event,) = feed(transaction(10, beacons=[beacon(user="p_ann", application="psql")]))
    assert (event.assurance, event.auth_method) == ("verified", "cert")


def test_a_sample_seen_before_is_strong(feed: Feed) -> None:
    """A transaction whose xid a session showed is that session's, strongly."""
    feed(sample(77))
    (event,) = feed(transaction(10, xid=77))
    assert (event.principal, event.binding, event.certainty) == ("billing-bot", "activity", "strong")


def test_a_transaction_waits_for_its_sample(feed: Feed) -> None:
    """Without a beacon a transaction waits, and goes with the record that names it."""
    assert feed(transaction(10, xid=77)) == []
    assert feed.fold.held == 1
    (event,) = feed(sample(77, at_s=0.5))
    assert (event.principal, event.certainty) == ("billing-bot", "strong")
    assert (event.at.partition, event.at.offset, event.at.index) == (3, 1, 0)
    assert feed.fold.held == 0
    assert feed.fold.held_bytes == 0


def test_waiting_ends_by_record_time(feed: Feed) -> None:
    """After the grace period of record time a transaction goes on without a name: attribution never blocks."""
    feed(transaction(10))
    assert feed(tick(1.9)) == []
    (event,) = feed(tick(2.0))
    assert (event.principal, event.binding, event.certainty) == (None, "none", "none")
    assert event.at.offset == 2


def test_waiting_is_bounded_by_bytes() -> None:
    """What does not fit into the bound goes on at once, and what waits stays."""
    feed = Feed(held_bytes_max=PART_BYTES + 450)
    assert feed(transaction(10)) == []
    (event,) = feed(transaction(11, n_rows=9))
    assert (event.lsn, event.certainty) == (11, "none")
    assert feed.fold.held == 1


def test_another_clusters_time_is_not_ours(feed: Feed) -> None:
    """Clusters in one partition have their own clocks."""
    feed(transaction(10))
    assert feed(tick(60), cluster="other") == []
    assert len(feed(tick(60))) == 1


def test_rows_on_a_covered_table_without_a_beacon_are_a_finding(feed: Feed) -> None:
    """Whoever switches a beacon off is seen at once, and named when a sample knows the transaction."""
    (event,) = feed(transaction(10, covered=True))
    assert (event.detail, event.certainty) == ({"finding": "shadow_write"}, "none")
    feed(sample(77))
    (event,) = feed(transaction(11, xid=77, covered=True))
    assert event.detail["finding"] == "shadow_write"
    assert (event.principal, event.certainty) == ("billing-bot", "strong")


def test_replicated_rows_name_their_origin(feed: Feed) -> None:
    """Rows with a replication origin are the replication's, strongly, without waiting."""
    (event,) = feed(transaction(10, origin="upstream"))
    assert (event.binding, event.certainty) == ("replication", "strong")
    assert event.principal == "replication:upstream"


def test_a_forged_beacon_is_emitted_once(feed: Feed) -> None:
    """An invalid beacon is a finding of its own, once per message however many parts repeat the header."""
    forged = [Forgery("mac", {"session_user": "cfo"})]
    first = feed(transaction(10, last=False, n_rows=2, forged=forged, beacons=[beacon()]))
    second = feed(transaction(10, part=1, first=2, forged=forged, beacons=[beacon()]))
    assert [event.operation for event in first] == ["beacon_forged", "insert"]
    assert [event.operation for event in second] == ["insert"]
    found = first[0]
    assert (found.kind, found.principal, found.detail["reason"]) == ("control", "app", "mac")
    assert found.detail["claims"] == {"session_user": "cfo"}


@pytest.mark.parametrize("late", [False, True])
def test_an_id_that_a_crash_gave_again_names_nobody_of_before(feed: Feed, late: bool) -> None:
    """Who was seen with it before the server began anew did not commit under it; who was seen after it did.

    `late`: what was seen comes when the transaction waits already.
    """
    began = Control(
        captured_at_us=START_US, operation="server_started", database="shop", detail={"started_us": START_US}
    )
    before, after = sample(11), sample(12, backend_start_us=START_US + 1, pid=42)
    first, then = ([before, after, began], []) if not late else ([began], [before, after])
    told = [event for raw in first for event in feed(raw)]
    told += feed(transaction(10, committed_at_us=START_US - 5), transaction(11, at_s=1.0), transaction(12, at_s=1.0))
    told += [event for raw in [*then, sample(10), tick(9)] for event in feed(raw)]
    names = {event.xid: event.principal for event in told if event.kind == "change"}
    assert names == {10: "billing-bot", 11: None, 12: "billing-bot"}


def test_a_forgery_alone_is_emitted_without_waiting(feed: Feed) -> None:
    """A transaction that holds nothing but a forged message is told at once and names nobody."""
    (event,) = feed(transaction(10, n_rows=0, relations=[], forged=[Forgery("mac")]))
    assert (event.operation, event.principal) == ("beacon_forged", None)


def test_beacons_that_disagree_are_a_conflict(feed: Feed) -> None:
    """Two logins in one transaction cannot both be true: told once, and the name is weak."""
    both = [beacon(), beacon(user="p_ann")]
    told, event = feed(transaction(10, last=False, beacons=both))
    assert told.operation == "identity_conflict"
    assert (event.certainty, event.detail["finding"]) == ("weak", "identity_conflict")
    (rest,) = feed(transaction(10, part=1, first=1, beacons=both))
    assert rest.certainty == "weak"


def test_another_role_in_force_is_no_conflict(feed: Feed) -> None:
    """SET ROLE within a transaction changes the role in force, not who it is."""
    (event,) = feed(transaction(10, beacons=[beacon(), beacon(role="reader")]))
    assert event.certainty == "exact"


def test_what_was_seen_is_dropped(feed: Feed) -> None:
    """A transaction sent again gives nothing, in whatever order."""
    for lsn in (10, 11):
        assert len(feed(transaction(lsn, beacons=[beacon()]))) == 1
    assert feed(transaction(10, beacons=[beacon()])) == []
    assert feed(transaction(11, beacons=[beacon()])) == []
    assert feed.fold.dropped == 2


def test_a_long_transaction_sent_again_from_its_start_goes_on_where_it_was(feed: Feed) -> None:
    """Parts that were seen are dropped, the others are taken."""
    parts = [
        transaction(10, part=number, first=2 * number, n_rows=2, last=number == 2, beacons=[beacon()])
        for number in range(3)
    ]
    feed(parts[0])
    feed(parts[1])
    events = [event for part in parts for event in feed(part)]
    assert [(event.part, event.first_ordinal, event.last) for event in events] == [(2, 4, True)]
    assert len({event.event_id for event in events}) == 1


def test_parts_cut_differently_are_trimmed(feed: Feed) -> None:
    """Of a part that overlaps what was seen only the new rows pass, with their counts."""
    feed(transaction(10, n_rows=3, last=False, beacons=[beacon()]))
    (event,) = feed(transaction(10, n_rows=5, beacons=[beacon()]))
    assert (event.first_ordinal, event.n_rows, event.row_count) == (3, 2, 2)
    assert [row[0] for row in msgspec.json.decode(bytes(event.rows))] == [3, 4]
    assert [count.rows for count in event.counts] == [2]


def test_lsns_come_again_on_another_timeline(feed: Feed) -> None:
    """After a failover an LSN may come again and is another transaction: another watermark, another id."""
    (first,) = feed(transaction(10, beacons=[beacon()]))
    (second,) = feed(transaction(10, timeline=2, beacons=[beacon()]))
    assert first.event_id != second.event_id
    (third,) = feed(transaction(10, system_id="restored", beacons=[beacon()]))
    assert third.event_id not in (first.event_id, second.event_id)


def test_parts_of_one_transaction_wait_and_go_together(feed: Feed) -> None:
    """A long transaction that waits goes in order when its sample comes, and later parts follow it."""
    feed(transaction(10, xid=77, last=False))
    feed(transaction(10, xid=77, part=1, first=1, last=False))
    events = feed(sample(77, at_s=0.1))
    events += feed(transaction(10, xid=77, part=2, first=2))
    assert [event.part for event in events] == [0, 1, 2]
    assert {event.principal for event in events} == {"billing-bot"}


def test_a_transaction_that_gave_up_waiting_stays_without_a_name(feed: Feed) -> None:
    """All parts of a transaction are attributed alike, also when the sample comes too late."""
    feed(transaction(10, xid=77, last=False))
    (first,) = feed(tick(3))
    feed(sample(77, at_s=3))
    (second,) = feed(transaction(10, xid=77, part=1, first=1, at_s=3))
    assert first.principal is None
    assert second.principal is None


def test_sessions_are_events_but_samples_are_not(feed: Feed) -> None:
    """A session that came is an event, exactly its own; its samples only help others."""
    came = Session(
        captured_at_us=START_US,
        operation="connect",
        occurred_at_us=BACKEND_US,
        pid=41,
        backend_start_us=BACKEND_US,
        role="app",
        database="shop",
        application="bot-7",
        client_addr="10.0.0.9",
    )
    (event,) = feed(came)
    assert (event.kind, event.operation, event.binding, event.certainty) == ("session", "connect", "activity", "exact")
    assert (event.principal, event.client_addr, event.occurred_at_us) == ("billing-bot", "10.0.0.9", BACKEND_US)
    assert feed(sample(5)) == []


def test_statistics_are_weak_and_parsed(feed: Feed) -> None:
    """Statistics name a role's principal weakly, and the parser says what the statement does."""
    (event,) = feed(
        QueryStats(
            captured_at_us=START_US,
            window_start_us=START_US - SECOND_US,
            window_end_us=START_US,
            database="shop",
            role="p_ann",
            query_id=-5,
            statement="DELETE FROM public.orders",
            calls=2,
            rows=40,
            total_ms=1.5,
        )
    )
    assert (event.principal, event.binding, event.certainty) == ("p_ann", "stats", "weak")
    assert (event.operation, event.relations, event.detail["where"]) == ("delete", ["public.orders"], "none")
    assert (event.calls, event.row_count, event.duration_ms, event.query_id) == (2, 40, 1.5, -5)
    assert event.fingerprint


def test_posture_gaps_and_control_pass(feed: Feed) -> None:
    """What is found, missing or done by pgwitness is landed with its detail, naming nobody."""
    events = feed(
        Posture(captured_at_us=START_US, object_type="role", name="eve", change="added", after={"rolsuper": True}),
        Gap(captured_at_us=START_US, reason="slot_lost", database="shop", detail={"slot": "pgwitness"}),
        Control(captured_at_us=START_US, operation="pause", detail={"by": "ann"}),
    )
    assert [(event.kind, event.operation) for event in events] == [
        ("posture", "added"),
        ("gap", "slot_lost"),
        ("control", "pause"),
    ]
    assert events[0].detail["after"] == {"rolsuper": True}
    assert events[1].detail == {"reason": "slot_lost", "slot": "pgwitness"}
    assert [event.at.index for event in events] == [0, 1, 2]


def test_who_paused_the_beacon_is_named(feed: Feed) -> None:
    """The announcement in the WAL is authenticated, so its role is named; anything else that says a role is not."""
    told, other = feed(
        Control(captured_at_us=START_US, operation="beacon_pause", database="shop", detail={"role": "p_ann", "xid": 7}),
        Control(captured_at_us=START_US, operation="query", database="shop", detail={"role": "p_ann"}),
    )
    assert (told.principal, told.role, told.binding, told.certainty) == ("p_ann", "p_ann", "beacon", "exact")
    assert told.detail == {"role": "p_ann", "xid": 7}
    assert (other.principal, other.role, other.certainty) == (None, None, "none")


@pytest.mark.parametrize(
    ("operation", "said", "outcome"),
    [
        ("slot_made", None, "success"),
        ("policies_refused", None, "failure"),
        ("query", "failure", "failure"),
        ("query", "success", "success"),
        ("backend_ending", "", "unknown"),
        ("backend_ended", "done", "success"),
        ("backend_ended", "gone", "failure"),
    ],
)
def test_acts_of_pgwitness_say_what_came_of_them(feed: Feed, operation: str, said: str | None, outcome: str) -> None:
    """The column is filled for them as for everybody's."""
    detail: dict[str, object] = {} if said is None else {"outcome": said}
    (told,) = feed(Control(captured_at_us=START_US, operation=operation, detail=detail))
    assert told.outcome == outcome


def test_identities_change_from_their_record_on(feed: Feed) -> None:
    """A changed file names what comes after it, and the change is evidence for each cluster that is watched."""
    feed(Control(captured_at_us=START_US, operation="query", detail={}), cluster=OURSELVES)
    (before,) = feed(transaction(10, beacons=[beacon()]))
    text = "rules: [{match: {role: app}, principal: renamed}]"
    record = Identities(captured_at_us=START_US, sha256=Rules.parse(text).sha256, content=text)
    (told,) = feed(record, cluster="")
    (after,) = feed(transaction(11, beacons=[beacon()]))
    assert (before.principal, after.principal) == ("app", "renamed")
    assert (told.operation, told.cluster) == ("identities_changed", "shop")
    assert feed(record, cluster="") == []


def test_identities_that_cannot_be_used_change_nothing(feed: Feed) -> None:
    """A broken file in a record is told and the last good one holds."""
    feed(transaction(10, beacons=[beacon()]))
    (told,) = feed(Identities(captured_at_us=START_US, sha256="0", content="rules: 3"), cluster="")
    (after,) = feed(transaction(11, beacons=[beacon()]))
    assert (told.operation, told.outcome, after.principal) == ("identities_refused", "failure", "app")


def test_records_that_are_gone_are_a_gap(feed: Feed) -> None:
    """When retention was faster than the worker, that is told where the next record stands."""
    feed(transaction(10, beacons=[beacon()]))
    events = feed.fold.apply(9, read(batch(transaction(11, beacons=[beacon()]))))
    assert [(event.kind, event.operation) for event in events] == [("gap", "raw_lost"), ("change", "insert")]
    assert events[0].detail == {"reason": "raw_lost", "partition": 3, "first_offset": 1, "next_offset": 9}


def test_a_record_from_before_is_nothing(feed: Feed) -> None:
    """A record below the fold's offset gives nothing and changes nothing."""
    sent = read(batch(transaction(10, beacons=[beacon()])))
    assert len(feed.fold.apply(0, sent)) == 1
    state = feed.fold.snapshot()
    assert feed.fold.apply(0, sent) == []
    assert feed.fold.snapshot() == state


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions and transaction ids are forgotten oldest first."""
    monkeypatch.setattr("streams.fold.sessions.activity.SESSIONS_MAX", 5)
    monkeypatch.setattr("streams.fold.sessions.activity.XIDS_MAX", 5)
    feed = Feed()
    for number in range(20):
        feed(sample(number, pid=number))
    (forgotten,) = [*feed(transaction(10, xid=3)), *feed(tick(9))]
    (known,) = feed(transaction(11, xid=19))
    assert (forgotten.certainty, known.certainty) == ("none", "strong")
    assert len(feed.fold.snapshot()) < 2_200


@pytest.mark.parametrize(
    "nonsense",
    [
        {"xid": 2**70},
        {"lsn": -1},
        {"captured_at_us": 2**64},
        {"n_rows": -5},
        {"first_ordinal": 0, "n_rows": 9, "rows": msgspec.Raw(b'{"not": "rows"}'), "lsn": 10},
        {"first_ordinal": 0, "n_rows": 9, "rows": msgspec.Raw(b'[["x"]]'), "lsn": 10},
    ],
)
def test_nonsense_of_the_right_shape_is_left_out(feed: Feed, nonsense: dict[str, object]) -> None:
    """One event with impossible content does not stop the stream, nor the events beside it; the record is told."""
    feed(transaction(10, last=False, beacons=[beacon()]))
    events = feed(
        transaction(**{"lsn": 11, "beacons": [beacon()]} | nonsense),  # type: ignore[arg-type]
        transaction(20, beacons=[beacon()]),
    )
    assert [event.lsn for event in events] == [20]
    assert [problem.index for problem in feed.fold.refused] == [0]
    Fold.restore(feed.fold.snapshot(), 0)
    feed(tick(1))
    assert feed.fold.refused == []
