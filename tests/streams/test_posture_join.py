"""What snapshots found different: named by the statement of the log that says just that, else not at all."""

from __future__ import annotations

from typing import Any

import pytest

from pgwitness.core.events import Event, Gap, LogPlace, Posture, RawEvent, Session, Statement, Tick
from streams.fold.fold import Fold
from streams.fold.joins import log_wait, posture_join
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import SESSION_US, statement
from tests.streams.records import SECOND_US, START_US, batch, read, tick

GRACE_US = 2 * SECOND_US
IDENTITIES = """\
rules:
  - match: {role: "p_*"}
    principal: "{role}"
    kind: human
"""
ADA: dict[str, Any] = {"role": "p_ada", "pid": 41}
BOB: dict[str, Any] = {"role": "p_bob", "pid": 42}
WINDOW = (10.0, 15.0)
SUPERUSER = {"superuser": True, "login": True}
MEMBER = {"role": "g", "member": "m", "admin": False}


def us(at_s: float) -> int:
    """Return a time of the tests' clock."""
    return START_US + int(at_s * SECOND_US)


def found(object_type: str, name: str, change: str = "added", **fields: Any) -> Posture:
    """What two snapshots found different, between the tenth second and the fifteenth."""
    window = fields.pop("window", WINDOW)
    return Posture(
        captured_at_us=us(window[1]), object_type=object_type, name=name, change=change,  # type: ignore[arg-type]
        window_start_us=us(window[0]), window_end_us=us(window[1]), **fields,
    )  # fmt: skip


def setting(name: str, value: str, **fields: Any) -> Posture:
    """What the first snapshot found of a setting."""
    given: dict[str, Any] = {"object_type": "setting", "change": "found", "after": {"value": value}}
    return Posture(captured_at_us=us(0), name=name, **(given | fields))


class Feed:
    """A fold that follows a log from the first second on, and the places of its lines."""

    def __init__(self, fold: Fold | None = None) -> None:
        self.fold = fold or Fold(0, Rules.parse(IDENTITIES), GRACE_US)
        self.place = 0
        if fold is None:
            self.log(self.did("SELECT 1", 1, **BOB))
            self(setting("log_min_duration_statement", "0"))

    def __call__(self, *events: RawEvent, source: str = "posture") -> list[Event]:
        return self.fold.apply(self.fold.next_offset, read(batch(*events, source=source)))

    def log(self, *events: RawEvent) -> list[Event]:
        """Take lines of the log."""
        return self(*events, source="log")

    def did(self, text: str, at_s: float, **fields: Any) -> Statement:
        """A line of the log: a statement that has ended."""
        self.place += 1
        return statement(self.place, statement=text, at_s=at_s, source=fields.pop("source", "duration"), **fields)

    def said(self, *texts: str, at_s: float = 12, **fields: Any) -> None:
        """Let a session run statements."""
        self.log(*(self.did(text, at_s, **(ADA | fields)) for text in texts))

    def reads(self, at_s: float = 20) -> list[Event]:
        """The log was read up to a moment."""
        return self.log(tick(at_s))

    def tells(self, *events: RawEvent) -> Event:
        """Take what was found and then the log's end; gives the one event of posture that came of it."""
        told = [event for event in [*self(*events), *self.reads()] if event.kind == "posture"]
        assert len(told) == 1
        return told[0]


def who(event: Event) -> tuple[str | None, str, str]:
    """Return whom an event names, by what, and how surely."""
    return event.principal, event.binding, event.certainty


STRONG = ("p_ada", "log", "strong")
WEAK = ("p_ada", "log", "weak")
NOBODY = (None, "none", "none")

ACL = {"acl": ["postgres=arwdDxt/postgres"], "owner": "postgres"}
OPEN = {"acl": ["=r/postgres", "postgres=arwdDxt/postgres"], "owner": "postgres"}
TRIGGER = {"relation": "public.t", "enabled": "always", "active": True, "function_md5": "a"}
OFF = TRIGGER | {"enabled": "disabled", "active": False}
EVENT_TRIGGER = {"enabled": "always", "active": True, "function_md5": "a"}
SHOP: dict[str, Any] = {"database": "shop"}

NAMED: list[tuple[str, Posture]] = [
    ("CREATE ROLE x", found("role", "x", after={"login": False})),
    ("CREATE ROLE x LOGIN SUPERUSER", found("role", "x", after=SUPERUSER)),
    ("ALTER ROLE x SUPERUSER", found("role", "x", "changed", before={"superuser": False}, after=SUPERUSER)),
    ("ALTER ROLE x NOSUPERUSER", found("role", "x", "changed", before=SUPERUSER, after={"superuser": False})),
    ("ALTER ROLE x RENAME TO y", found("role", "y", after=SUPERUSER)),
    ("ALTER ROLE x RENAME TO y", found("role", "x", "removed", before=SUPERUSER)),
    ("DROP ROLE x, y", found("role", "y", "removed", before=SUPERUSER)),
    ('CREATE USER "Odd Name"', found("role", "Odd Name", after={"login": True})),
    ("GRANT g TO m", found("membership", "m IN g", after=MEMBER)),
    ("GRANT g TO m WITH ADMIN OPTION", found("membership", "m IN g", after=MEMBER | {"admin": True})),
    ("REVOKE g FROM m", found("membership", "m IN g", "removed", before=MEMBER)),
    ("CREATE ROLE m IN ROLE g", found("membership", "m IN g", after=MEMBER)),
    ("CREATE ROLE g ROLE m", found("membership", "m IN g", after=MEMBER)),
    ("ALTER GROUP g ADD USER m", found("membership", "m IN g", after=MEMBER)),
    ("DROP ROLE g", found("membership", "m IN g", "removed", before=MEMBER)),
    ("ALTER ROLE x SET log_statement = 'none'", found("role_setting", "x IN ALL", after={"log_statement": "none"})),
    ("ALTER ROLE x IN DATABASE shop SET a.b = $1", found("role_setting", "x IN shop", after={"a.b": "t"})),
    ("ALTER ROLE ALL SET work_mem = $1", found("role_setting", "ALL IN ALL", after={"work_mem": "1MB"})),
    ("ALTER DATABASE shop SET work_mem = $1", found("role_setting", "ALL IN shop", after={"work_mem": "1MB"})),
    ("ALTER ROLE x RESET ALL", found("role_setting", "x IN ALL", "removed", before={"work_mem": "1MB"})),
    ("ALTER SYSTEM SET log_statement = none",
     found("setting", "log_statement", "changed", before={"value": "ddl"}, after={"value": "none"})),
    ("ALTER SYSTEM SET fsync = off", found("setting", "fsync", after={"value": "off"})),
    ("ALTER SYSTEM SET work_mem = $1", found("setting", "work_mem", after={"value": "4096"})),
    ("ALTER SYSTEM RESET ALL", found("setting", "work_mem", "removed", before={"value": "4096"})),
    ("CREATE DATABASE d", found("database", "d", after={"owner": "p_ada"})),
    ("DROP DATABASE d", found("database", "d", "removed", before={"owner": "p_ada"})),
    ("ALTER DATABASE d CONNECTION LIMIT 1", found("database", "d", "changed", before={"a": 1}, after={"a": 2})),
    ("GRANT SELECT ON public.t TO PUBLIC", found("grant", "public.t", "changed", before=ACL, after=OPEN, **SHOP)),
    ("REVOKE ALL ON public.t FROM PUBLIC", found("grant", "public.t", "changed", before=OPEN, after=ACL, **SHOP)),
    ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
     found("grant", "public.t", "changed", before=ACL, after=OPEN, **SHOP)),
    ("GRANT CONNECT ON DATABASE d TO m", found("grant", "database d", after={"acl": ["m=c/x", "=T/x"], "owner": "x"})),
    ("GRANT SET ON PARAMETER log_statement TO m", found("grant", "parameter log_statement", after={"acl": ["m=s/x"]})),
    ("GRANT USAGE ON SCHEMA s TO m", found("grant", "schema s", after={"acl": ["m=U/x"], "owner": "x"}, **SHOP)),
    ("ALTER TABLE public.t DISABLE TRIGGER tr",
     found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF, **SHOP)),
    ("ALTER TABLE public.t DISABLE TRIGGER ALL",
     found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF, **SHOP)),
    ("DROP TRIGGER tr ON public.t", found("trigger", "public.t.tr", "removed", before=TRIGGER, **SHOP)),
    ("DROP TABLE public.t",
     found("trigger", "public.t.tr", "removed", before=TRIGGER, dropped_with="public.t", **SHOP)),
    ("DROP TABLE public.t", found("table", "public.t", "removed", before={"owner": "x"}, **SHOP)),
    ("ALTER TABLE public.t OWNER TO m",
     found("table", "public.t", "changed", before={"owner": "x"}, after={"owner": "m"}, **SHOP)),
    ("ALTER EVENT TRIGGER e DISABLE",
     found("event_trigger", "e", "changed", before=EVENT_TRIGGER, after=EVENT_TRIGGER | {"active": False}, **SHOP)),
    ("DROP EVENT TRIGGER e", found("event_trigger", "e", "removed", before=EVENT_TRIGGER, **SHOP)),
    ("CREATE EXTENSION dblink", found("extension", "dblink", after={"version": "1.2"}, **SHOP)),
    ("DROP PUBLICATION p", found("publication", "p", "removed", before={"insert": True}, **SHOP)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "change"), NAMED, ids=[f"{text} / {change.object_type}" for text, change in NAMED])
def test_the_statement_that_says_it_names_who_did_it(text: str, change: Posture) -> None:
    """One session's statement that says just what was found names that session; before and after it nobody's."""
    feed = Feed()
    feed.said(text)
    event = feed.tells(change)
    assert who(event) == STRONG
    assert (event.pid, event.role, event.detail["join"]) == (41, "p_ada", "statement")
    assert len(event.detail["statements"]) == 1
    for at_s in (9, 16):
        late = Feed()
        late.said(text, at_s=at_s)
        assert who(late.tells(change)) == NOBODY


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("CREATE ROLE y", found("role", "x", after=SUPERUSER)),
        ("CREATE ROLE x", found("role", "x", after=SUPERUSER)),
        ("ALTER ROLE x NOSUPERUSER", found("role", "x", "changed", before={"superuser": False}, after=SUPERUSER)),
        ("DROP ROLE x", found("role", "x", after={})),
        ("GRANT g TO n", found("membership", "m IN g", after=MEMBER)),
        ("REVOKE g FROM m", found("membership", "m IN g", after=MEMBER)),
        ("GRANT g TO m", found("membership", "m IN g", after=MEMBER | {"admin": True})),
        ("ALTER ROLE x SET work_mem = $1", found("role_setting", "x IN ALL", after={"log_statement": "none"})),
        ("ALTER ROLE x SET work_mem = $1", found("role_setting", "x IN shop", after={"work_mem": "1MB"})),
        ("ALTER SYSTEM SET log_statement = all", found("setting", "log_statement", after={"value": "none"})),
        ("ALTER SYSTEM SET work_mem = $1", found("setting", "fsync", after={"value": "off"})),
        ("GRANT SELECT ON public.t TO m", found("grant", "public.t", "changed", before=ACL, after=OPEN, **SHOP)),
        ("GRANT SELECT ON public.u TO PUBLIC", found("grant", "public.t", "changed", before=ACL, after=OPEN, **SHOP)),
        ("GRANT CONNECT ON DATABASE e TO m", found("grant", "database d", after={"acl": ["m=c/x"]})),
        ("ALTER TABLE public.t DISABLE TRIGGER other",
         found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF, **SHOP)),
        ("ALTER TABLE public.t DISABLE TRIGGER tr",
         found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF | {"function_md5": "b"}, **SHOP)),
        ("ALTER TABLE public.t ADD COLUMN a int",
         found("table", "public.t", "changed", before={"owner": "x"}, after={"owner": "m"}, **SHOP)),
        ("ALTER EVENT TRIGGER e DISABLE", found("event_trigger", "e", "changed", database="billing")),
        ("SELECT make_role()", found("role", "x", after={})),
        ("CREATE ROLE x; ROLLBACK", found("role", "x", after={})),
        ("CREATE ROLE x", found("beacon", "public.t", "removed", **SHOP)),
    ],
)  # fmt: skip
def test_what_a_statement_does_not_say_it_did_not_do(text: str, change: Posture) -> None:
    """Another object, another way round, or a part that it leaves unsaid: nobody is named."""
    feed = Feed()
    feed.said(text)
    assert who(feed.tells(change)) == NOBODY


@pytest.mark.parametrize(
    "other", ["ALTER ROLE x LOGIN", "CREATE ROLE x", "ALTER ROLE CURRENT_USER CREATEDB", "DO $$ BEGIN ROLLBACK; EXECUTE"
              " format('ALTER ROLE %I LOGIN', 'x'); END $$"],
)  # fmt: skip
@pytest.mark.parametrize("at_s", [10.5, 14])
def test_two_who_may_have_done_it_are_none(other: str, at_s: float) -> None:
    """Who else touched the object meanwhile may have done a part of it; the event says who comes into question."""
    feed = Feed()
    feed.said("CREATE ROLE x SUPERUSER")
    feed.said(other, at_s=at_s, **BOB)
    event = feed.tells(found("role", "x", after=SUPERUSER))
    assert who(event) == NOBODY
    assert (event.detail["unnamed"], event.detail["candidates"]) == ("several", ["p_ada", "p_bob"])


def test_what_others_do_elsewhere_disturbs_nobody() -> None:
    """Another object, or the same one at another time or in another database, is no part of it."""
    feed = Feed()
    feed.said("ALTER TABLE public.t DISABLE TRIGGER tr")
    feed.said("CREATE ROLE y", "ALTER TABLE public.u DISABLE TRIGGER tr", "INSERT INTO public.t VALUES ($1)", **BOB)
    feed.said("ALTER TABLE public.t ENABLE TRIGGER tr", at_s=9, **BOB)
    feed.said("ALTER TABLE public.t ENABLE TRIGGER tr", database="billing", **BOB)
    change = found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF, **SHOP)
    assert who(feed.tells(change)) == STRONG


def test_several_sessions_of_one_principal_are_weak_and_no_session() -> None:
    """Who it was is known, from which of its sessions is not."""
    feed = Feed()
    feed.said("CREATE ROLE x")
    feed.said("ALTER ROLE x SUPERUSER", pid=43)
    feed.said("CREATE ROLE x SUPERUSER", pid=43)
    event = feed.tells(found("role", "x", after=SUPERUSER))
    assert who(event) == WEAK
    assert (event.pid, event.session_id, event.role) == (None, None, "p_ada")
    assert len(event.detail["statements"]) == 2


def test_one_session_in_several_statements_is_that_session() -> None:
    """Made, then changed, by the same session: it is that one's."""
    feed = Feed()
    feed.said("CREATE ROLE x", "ALTER ROLE x RENAME TO z", "CREATE ROLE x SUPERUSER")
    assert who(feed.tells(found("role", "x", after=SUPERUSER))) == STRONG


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ALTER TABLE t DISABLE TRIGGER tr", {}),
        ("ALTER TABLE public.t DISABLE TRIGGER tr", {"format": "stderr"}),
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE public.t DISABLE TRIGGER tr'; END $$", {}),
    ],
)
def test_what_leaves_a_doubt_is_weak(text: str, fields: dict[str, Any]) -> None:
    """A table in whatever schema comes first, a log that can be forged, code that may not have run."""
    feed = Feed()
    feed.said(text, **fields)
    change = found("trigger", "public.t.tr", "changed", before=TRIGGER, after=OFF, **SHOP)
    assert who(feed.tells(change)) == WEAK


OVERRIDE: dict[str, Any] = {"object_type": "role_setting", "after": {"log_min_duration_statement": "100"}}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([setting("log_min_duration_statement", "100")], WEAK),
        ([setting("log_min_duration_statement", "-1"), setting("log_statement", "ddl")], WEAK),
        ([setting("log_min_duration_statement", "-1"), setting("log_statement", "all")], STRONG),
        ([setting("p_bob IN ALL", "", **OVERRIDE)], WEAK),
        ([setting("p_bob IN ALL", "", **(OVERRIDE | {"after": {"log_statement": "none"}}))], WEAK),
        ([setting("p_bob IN ALL", "", **OVERRIDE), setting("p_bob IN ALL", "", **(OVERRIDE | {"after": {}}))], STRONG),
    ],
)
def test_a_log_without_every_rollback_is_weak(settings: list[RawEvent], named: tuple[str | None, str, str]) -> None:
    """Where a ROLLBACK may not be told, a statement may not have been committed."""
    feed = Feed()
    feed(*settings)
    feed.said("CREATE ROLE x")
    assert who(feed.tells(found("role", "x", after={}))) == named


def test_who_turns_the_log_down_is_named_by_how_it_was() -> None:
    """The settings until then count for the change of the settings."""
    feed = Feed()
    feed.said("ALTER SYSTEM SET log_min_duration_statement = -1")
    change = found("setting", "log_min_duration_statement", "changed", before={"value": "0"}, after={"value": "-1"})
    assert who(feed.tells(change)) == STRONG
    feed.said("CREATE ROLE x", at_s=16)
    assert who(feed.tells(found("role", "x", after={}, window=(15.5, 17)))) == WEAK


def test_a_role_without_a_rule_is_named_as_far_as_it_is_known() -> None:
    """Nobody has a rule for the session: its role and process are still known, and so is that another one differs."""
    feed = Feed()
    feed.said("CREATE ROLE x", role="stranger")
    event = feed.tells(found("role", "x", after={}))
    assert (event.principal, event.role, event.certainty, event.assurance) == (None, "stranger", "strong", "none")
    other = Feed()
    other.said("CREATE ROLE x", role="stranger")
    other.said("DROP ROLE x", role="other", pid=42)
    event = other.tells(found("role", "x", after={}))
    assert event.detail["candidates"] == ["role other", "role stranger"]


# -- transactions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["BEGIN", "CREATE ROLE x", "COMMIT"], STRONG),
        (["START TRANSACTION; CREATE ROLE x", "COMMIT"], STRONG),
        (["BEGIN", "CREATE ROLE x", "ROLLBACK"], NOBODY),
        (["BEGIN", "SAVEPOINT s", "CREATE ROLE x", "ROLLBACK TO s", "COMMIT"], NOBODY),
        (["BEGIN", "CREATE ROLE x", "PREPARE TRANSACTION 'a'"], NOBODY),
        (["BEGIN", "CREATE ROLE x"], NOBODY),
        (["BEGIN", "ROLLBACK", "CREATE ROLE x"], STRONG),
    ],
)
def test_only_what_was_committed_counts(texts: list[str], named: tuple[str | None, str, str]) -> None:
    """What was rolled back, or may have been, names nobody."""
    feed = Feed()
    feed.said(*texts)
    assert who(feed.tells(found("role", "x", after={}))) == named


def test_a_commit_counts_when_it_was_made() -> None:
    """A transaction that began before the first snapshot and was committed after it is what the second one saw."""
    feed = Feed()
    feed.said("BEGIN", "CREATE ROLE x", at_s=5)
    feed.said("COMMIT", at_s=14)
    assert who(feed.tells(found("role", "x", after={}))) == STRONG
    feed = Feed()
    feed.said("BEGIN", "CREATE ROLE x", "COMMIT", at_s=5)
    assert who(feed.tells(found("role", "x", after={}))) == NOBODY


def test_what_is_open_may_yet_have_done_it() -> None:
    """Somebody else's transaction that touched the object and has not ended leaves nobody named, until he leaves."""
    for gone, named in ((False, NOBODY), (True, STRONG)):
        feed = Feed()
        feed.said("BEGIN", "ALTER ROLE x LOGIN", at_s=5, **BOB)
        if gone:
            feed.log(session_end(6))
        feed.said("CREATE ROLE x")
        assert who(feed.tells(found("role", "x", after={}))) == named


def session_end(at_s: float) -> Session:
    """Bob's session ends."""
    return Session(
        captured_at_us=us(at_s), operation="disconnect", occurred_at_us=us(at_s), pid=42, backend_start_us=SESSION_US,
        role="p_bob", place=LogPlace("b-1", int(at_s)),
    )  # fmt: skip


def test_a_failure_takes_back_what_was_announced() -> None:
    """log_statement tells of a statement before it runs; that it failed comes later."""
    announced: dict[str, Any] = {"source": "statement", "outcome": "unknown", "duration_ms": None}
    feed = Feed()
    feed.said("CREATE ROLE x", **announced)
    assert who(feed.tells(found("role", "x", after={}))) == STRONG
    feed = Feed()
    feed.said("CREATE ROLE x", **announced)
    feed.said("CREATE ROLE x", at_s=13, source="error", outcome="failure")
    assert who(feed.tells(found("role", "x", after={}))) == NOBODY
    feed = Feed()
    feed.said("BEGIN", "CREATE ROLE x")
    feed.said("SELECT 1/0", source="error", outcome="failure")
    feed.said("COMMIT", at_s=13)
    assert who(feed.tells(found("role", "x", after={}))) == NOBODY


def test_what_was_announced_and_may_still_run_is_no_ones_proof_but_a_doubt() -> None:
    """Announced before the first snapshot it may have taken effect after it: it names nobody, and nobody beside it."""
    announced: dict[str, Any] = {"source": "statement", "outcome": "unknown", "duration_ms": None}
    feed = Feed()
    feed.said("ALTER ROLE x SUPERUSER", at_s=8, **announced, **BOB)
    feed.said("CREATE ROLE x")
    assert feed.tells(found("role", "x", after={})).detail["unnamed"] == "several"


def test_what_was_announced_is_over_when_its_session_goes_on() -> None:
    """Its next line, or its end, says that it does not run any more: then it disturbs nobody later."""
    announced: dict[str, Any] = {"source": "statement", "outcome": "unknown", "duration_ms": None}
    for end in (False, True):
        feed = Feed()
        feed.said("ALTER ROLE x SUPERUSER", at_s=8, **announced, **BOB)
        if end:
            feed.log(session_end(9))
        else:
            feed.said("SELECT 1", at_s=9, **announced, **BOB)
        feed.said("CREATE ROLE x")
        assert who(feed.tells(found("role", "x", after={}))) == STRONG


def test_a_statement_that_waits_for_its_outcome_names_who_did_it_and_comes_later() -> None:
    """While its outcome is open the change is told first; the statement that it refers to comes as pending."""
    feed = Feed()
    feed.said("CREATE ROLE x", at_s=14, vxid="4/7", source="statement", outcome="unknown", duration_ms=None)
    told = [*feed(found("role", "x", after={})), *feed.reads(17)]
    assert [(event.kind, who(event)) for event in told] == [("posture", STRONG)]
    later = feed.reads(20)
    assert [(event.kind, event.outcome, event.principal) for event in later] == [("statement", "pending", "p_ada")]
    assert told[0].detail["statements"] == [later[0].event_id]


def test_what_was_announced_has_its_effect_once() -> None:
    """Announced before the first look it may have taken until after it; what one change has, another has not."""
    announced: dict[str, Any] = {"source": "statement", "outcome": "unknown", "duration_ms": None}
    feed = Feed()
    feed.said("CREATE ROLE x", at_s=9, **announced)
    first, again = (found("role", "x", after={}, window=window) for window in ((10, 11), (12, 13)))
    assert who(feed.tells(first)) == STRONG
    assert who(feed.tells(again)) == NOBODY
    late = Feed()
    late.said("CREATE ROLE x", at_s=2, **announced)
    assert who(late.tells(found("role", "x", after={}, window=(14, 15)))) == NOBODY


# -- time and memory -----------------------------------------------------------------------------------------------


def test_it_waits_for_the_log_and_no_longer() -> None:
    """A change waits until the log was read past it; lines that come in between count."""
    feed = Feed()
    change = found("role", "x", after={})
    assert feed(change) == []
    assert [event.kind for event in feed.log(feed.did("CREATE ROLE x", 12, **ADA))] == ["statement"]
    assert feed.reads(15.9) == []
    (told,) = feed.reads(16.1)
    assert who(told) == STRONG


def test_a_later_line_shows_that_the_log_was_read() -> None:
    """A busy log needs no word of its collector: lines of later times say that nothing from before is missing."""
    feed = Feed()
    feed.said("CREATE ROLE x")
    assert feed(found("role", "x", after={})) == []
    told = [event for event in feed.log(feed.did("SELECT 1", 17, **BOB)) if event.kind == "posture"]
    assert [who(event) for event in told] == [STRONG]


def test_a_log_that_stands_still_holds_nothing_up() -> None:
    """After its time a change goes on without a name, by the clock of the records alone, and says why."""
    feed = Feed()
    feed.said("CREATE ROLE x")
    feed(found("role", "x", after={}))
    due_s = 15 + (GRACE_US + log_wait.PATIENCE_US) / SECOND_US
    assert feed(tick(due_s - 0.001)) == []
    (told,) = feed(tick(due_s))
    assert (who(told), told.detail["unnamed"]) == (NOBODY, "log_late")


def test_another_instances_log_names_nobody() -> None:
    """A replica's log is read, the primary's is not: neither its lines nor its end count."""
    feed = Feed()
    fold, offset = feed.fold, feed.fold.next_offset
    line = feed.did("CREATE ROLE x", 12, log="r-1", **ADA)
    fold.apply(offset, read(batch(line, tick(17), source="log", instance="replica:5432")))
    assert feed(found("role", "x", after={}), Tick(captured_at_us=us(16))) == []
    (told,) = [event for event in feed(tick(40)) if event.kind == "posture"]
    assert who(told) == NOBODY


@pytest.mark.parametrize("when", [11, 14])
def test_a_gap_in_the_log_names_nobody(when: float) -> None:
    """Lines that are missing may have been somebody else's; what happened after the gap is named again."""
    feed = Feed()
    feed.said("CREATE ROLE x")
    feed.log(Gap(captured_at_us=us(when), reason="log_rotated_away"))
    event = feed.tells(found("role", "x", after={}))
    assert (who(event), event.detail["unnamed"]) == (NOBODY, "log_incomplete")
    feed.said("CREATE ROLE y", at_s=16)
    assert who(feed.tells(found("role", "y", after={}, window=(15.5, 17)))) == STRONG


def test_before_the_log_was_followed_nobody_is_named() -> None:
    """The first snapshot of a change lies before the first line: who else was there nobody knows."""
    feed = Feed(Fold(0, Rules.parse(IDENTITIES), GRACE_US))
    feed(setting("log_statement", "all"))
    feed.said("CREATE ROLE x")
    assert feed.tells(found("role", "x", after={})).detail["unnamed"] == "log_incomplete"


def test_without_a_log_nothing_waits() -> None:
    """As found, without a window, without a grace period or without a log, posture goes on at once."""
    fold = Fold(0, Rules.parse(IDENTITIES), GRACE_US)
    assert len(Feed(fold)(found("role", "x"))) == 1
    feed = Feed()
    assert (
        len(
            feed(
                found("role", "x", "found"),
                Posture(captured_at_us=us(15), object_type="role", name="y", change="added"),
            )
        )
        == 2
    )
    hasty = Fold(0, Rules.parse(IDENTITIES), 0)
    feed = Feed(hasty)
    feed.log(feed.did("SELECT 1", 1, **BOB))
    assert len(feed(found("role", "z"))) == 1


def test_memory_is_bounded_and_what_is_forgotten_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither statements nor changes that wait grow without end."""
    monkeypatch.setattr(posture_join, "DID_MAX", 3)
    monkeypatch.setattr(log_wait, "HELD_MAX", 2)
    feed = Feed()
    feed.said("BEGIN", "CREATE ROLE x", "CREATE ROLE y", "CREATE ROLE z", "CREATE ROLE v", "COMMIT")
    changes = [found("role", name, after={}) for name in ("v", "z", "y")]
    assert [who(event) for event in feed(*changes)] == [NOBODY]
    assert [event.detail["unnamed"] for event in feed.reads()] == ["log_incomplete"] * 2


def test_a_restored_fold_names_the_same() -> None:
    """Statements, transactions that are open and changes that wait come through a checkpoint; a repeat is dropped."""
    feed = Feed()
    feed.said("BEGIN", "CREATE ROLE x", at_s=11)
    change = found("role", "x", after={})
    feed(change)
    again = Feed(Fold.restore(feed.fold.snapshot(), GRACE_US))
    again.place = feed.place
    assert again.fold.snapshot() == feed.fold.snapshot()
    for each in (feed, again):
        each.said("COMMIT", at_s=13)
        assert each(change) == []
        assert [who(event) for event in each.reads()] == [STRONG]
    assert again.fold.snapshot() == feed.fold.snapshot()
