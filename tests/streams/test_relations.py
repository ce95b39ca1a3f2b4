"""A relation has one name in every source, and what cannot be told stays as the statement wrote it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pgwitness.core.events import DdlObject, Event, Posture, RawEvent, Relation
from streams.fold.fold import Fold
from streams.fold.schema import relations
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement
from tests.streams.records import IDENTITIES, START_US, batch, read, transaction
from tests.streams.test_fold_ddl import command, statistics


class Cluster:
    """A fold of one cluster, to which records of any source come."""

    def __init__(self, *events: RawEvent) -> None:
        self.fold = Fold(3, Rules.parse(IDENTITIES), 0)
        self._offsets = itertools.count(1)
        for event in events:
            self.take(event)

    def take(self, event: RawEvent, source: str = "posture") -> list[Event]:
        """Fold one record."""
        return self.fold.apply(self.fold.next_offset, read(batch(event, source=source)))

    def __call__(self, text: str, **fields: Any) -> list[str]:
        """Fold a statement of the log and give its relations."""
        return self.event(text, **fields).relations

    def event(self, text: str, **fields: Any) -> Event:
        """Fold a statement of the log."""
        given = {"statement": text, "outcome": "success"} | fields
        (event,) = self.take(statement(next(self._offsets), **given), "log")
        return event


def listed(*names: str, path: str | None = None, part: int = 1, parts: int = 1) -> Posture:
    """A list of the relations of a database."""
    after: dict[str, object] = {"relations": list(names), "part": part, "parts": parts, "search_path": path}
    return Posture(
        captured_at_us=START_US, object_type="catalogue", name="relations", change="found", database="shop", after=after
    )


def role_setting(name: str, path: str) -> Posture:
    """What a role has for itself."""
    after: dict[str, object] = {"search_path": path}
    return Posture(captured_at_us=START_US, object_type="role_setting", name=name, change="found", after=after)


def wal(lsn: int, *names: str) -> RawEvent:
    """A transaction on tables."""
    return transaction(lsn, relations=[Relation(name, ["id"]) for name in names])


def test_who_reads_a_table_is_found_under_the_name_it_has_in_the_wal() -> None:
    """The log and the statistics say `"Customer"`, the WAL says in which schema that is."""
    cluster = Cluster(wal(10, 'public."Customer"'))
    event = cluster.event('SELECT "Name", c."Email" FROM "Customer" c')
    assert event.relations == ['public."Customer"']
    assert event.columns == ['public."Customer"."Name"', 'public."Customer"."Email"']
    assert event.detail["whole"] == ['public."Customer"']
    filled = cluster.event('INSERT INTO "Customer" ("Name") VALUES ($1)')
    assert filled.detail["assigned"] == ['public."Customer"."Name"']
    (counted,) = cluster.take(statistics(3, statement='SELECT "Name" FROM "Customer"'), "stats")
    assert counted.relations == ['public."Customer"']
    assert relations.UNRESOLVED not in event.detail


def test_what_nothing_has_named_stays_and_says_so() -> None:
    """Nobody knows of which schema it is; tables of the system have no schema in statements."""
    event = Cluster(wal(10, "app.orders")).event("SELECT 1 FROM orders, pg_class", role="web")
    assert event.relations == ["orders", "pg_class"]
    assert event.detail[relations.UNRESOLVED] == ["orders"]


@pytest.mark.parametrize(
    ("known", "settings", "role", "full"),
    [
        (["public.t", "app.t"], [], "app", "app.t"),  # "$user" comes first
        (["public.t", "other.t"], [], "app", "public.t"),
        (["sales.t", "public.t"], [role_setting("app IN ALL", "sales, public")], "app", "sales.t"),
        (["sales.t", "public.t"], [role_setting("app IN shop", "public"), role_setting("app IN ALL", "sales")], "app",
         "public.t"),
        (["sales.t", "public.t"], [role_setting("ALL IN shop", "sales")], "app", "sales.t"),
        (["sales.t", "public.t"], [role_setting("ALL IN elsewhere", "sales")], "app", "public.t"),
        (['"Sales".t', "public.t"], [role_setting("ALL IN ALL", '"Sales", public')], "app", '"Sales".t'),
        (["only.t"], [], "app", "only.t"),  # all are known, and one has the name
        (["a.t", "b.t"], [], "app", "t"),
    ],
)  # fmt: skip
def test_a_name_is_looked_up_as_the_server_does(
    known: list[str], settings: list[Posture], role: str, full: str
) -> None:
    """In the schemas of the role's path, of those that are there."""
    assert Cluster(listed(*known), *settings)("SELECT 1 FROM t", role=role) == [full]


def test_the_server_may_have_a_path_of_its_own() -> None:
    """As its configuration file says, which the list tells."""
    assert Cluster(listed("public.t", "sales.t", path="sales, public"))("SELECT 1 FROM t") == ["sales.t"]


def test_a_session_may_change_its_path() -> None:
    """Its own SET counts; one that nobody can read leaves names as they are, but for those that are the only ones."""
    cluster = Cluster(listed("public.t", "sales.t", "sales.once"))
    cluster("SET search_path = sales, public")
    assert cluster("SELECT 1 FROM t") == ["sales.t"]
    assert cluster("SELECT 1 FROM t", pid=99) == ["public.t"]
    cluster('SET search_path = "$user", "Sales"')
    assert cluster("SELECT 1 FROM t") == ["t"]
    assert cluster("SELECT 1 FROM once") == ["sales.once"]
    cluster("RESET search_path")
    assert cluster("SELECT 1 FROM t") == ["public.t"]
    assert cluster("SET search_path = sales; SELECT 1 FROM t") == ["t"]
    assert cluster("SELECT 1 FROM t") == ["sales.t"]
    cluster("SET LOCAL search_path = public")
    assert cluster("SELECT 1 FROM t") == ["t"]
    cluster("DISCARD ALL")
    assert cluster("SELECT 1 FROM t") == ["public.t"]


def test_temporary_tables_and_ctes_are_no_relations_of_a_schema() -> None:
    """A temporary table hides the real one, in its session only, until it is gone."""
    cluster = Cluster(listed("public.t", "public.big"))
    assert cluster("CREATE TEMP TABLE t (a int)") == ["pg_temp.t"]
    assert cluster("INSERT INTO t VALUES (1)") == ["pg_temp.t"]
    assert cluster("SELECT 1 FROM t", pid=99) == ["public.t"]
    assert cluster("WITH big AS (SELECT 1) SELECT 1 FROM big") == []
    assert cluster("DROP TABLE t") == ["pg_temp.t"]
    assert cluster("SELECT 1 FROM t") == ["public.t"]
    cluster("BEGIN")
    cluster("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 FROM big")
    cluster("COMMIT")
    assert cluster("SELECT 1 FROM t") == ["t"]


def test_ddl_and_snapshots_keep_it_up_to_date() -> None:
    """What is made, moved, renamed and dropped."""
    cluster = Cluster(listed("public.t"))
    made = command(tag="CREATE TABLE", objects=[DdlObject("table", "app.t", "app.t")], objects_total=1)
    cluster.take(transaction(10, n_rows=0, ddl=[made]), "wal")
    assert cluster("SELECT 1 FROM t", role="app") == ["app.t"]
    gone = command(tag="DROP TABLE", dropped=[DdlObject("table", "app.t", "app.t")], dropped_total=1)
    cluster.take(transaction(11, n_rows=0, ddl=[gone]), "wal")
    assert cluster("SELECT 1 FROM t", role="app") == ["public.t"]
    moved = command(
        objects=[DdlObject("table", "sales.t", "sales.t")], objects_total=1, relations=["t"],
        statement="ALTER TABLE t SET SCHEMA sales",
    )  # fmt: skip
    cluster.take(transaction(12, n_rows=0, ddl=[moved]), "wal")
    assert cluster("SELECT 1 FROM t") == ["sales.t"]
    for change in ("removed", "added"):
        cluster.take(
            Posture(captured_at_us=START_US, object_type="table", name="sales.t", change=change, database="shop")
        )
        assert cluster("SELECT 1 FROM t") == (["sales.t"] if change == "added" else ["t"])


def altered(text: str, now: str, *names: str, path: tuple[str, ...] = ()) -> Any:
    """An ALTER TABLE, after which the table is called so; `names` are those of its text."""
    return command(
        tag="ALTER TABLE", objects=[DdlObject("table", now, now)], objects_total=1, relations=list(names),
        statement=text, path=list(path),
    )  # fmt: skip


def test_the_path_of_a_command_shows_which_table_moved() -> None:
    """The first schema that has one of the name, as the server looks."""
    for path, means in ((("app", "public"), ["public.t"]), (("nowhere", "public", "app"), ["app.t"])):
        cluster = Cluster(listed("public.t", "app.t"))
        made = altered("ALTER TABLE t SET SCHEMA old", "old.t", "t", path=path)
        cluster.take(transaction(10, n_rows=0, ddl=[made]), "wal")
        assert cluster("SELECT 1 FROM t", role="app") == means


@pytest.mark.parametrize(
    ("text", "now", "named", "means"),
    [
        ("ALTER TABLE t RENAME TO x", "app.x", ["t"], ["public.t", "app.x", "public.u"]),
        ("ALTER TABLE app.t RENAME TO x", "app.x", ["app.t"], ["public.t", "app.x", "public.u"]),
        ("ALTER TABLE t RENAME COLUMN a TO b", "app.t", ["t"], ["app.t", "x", "public.u"]),
        ("ALTER TABLE t RENAME CONSTRAINT a TO b", "app.t", ["t"], ["app.t", "x", "public.u"]),
        ("ALTER TABLE app.t SET SCHEMA old", "old.t", ["app.t"], ["public.t", "x", "public.u"]),
        ("ALTER TABLE t SET SCHEMA old", "old.t", ["t"], ["t", "x", "public.u"]),
        ("ALTER TABLE t RENAME TO x; SELECT 1 FROM u", "app.x", ["t", "u"], ["public.t", "app.x", "public.u"]),
        ("DO $1", "app.x", ["app.t"], ["public.t", "app.x", "public.u"]),
    ],
)
def test_what_moves_takes_no_other_name_along(text: str, now: str, named: list[str], means: list[str]) -> None:
    """Tables of that name elsewhere keep theirs; where nobody can tell which one moved, nothing is told."""
    cluster = Cluster(listed("public.t", "app.t", "public.u", "old.v"))
    cluster.take(transaction(10, n_rows=0, ddl=[altered(text, now, *named)]), "wal")
    assert cluster("SELECT 1 FROM t, x, u", role="app") == means
    cluster.fold = Fold.restore(cluster.fold.snapshot(), 0)
    assert cluster("SELECT 1 FROM t, x, u", role="app") == means


def test_a_schema_that_is_renamed_takes_its_tables_along() -> None:
    """Where the text does not tell its name before, nothing is known until the next list; an owner changes nothing."""

    def schema(text: str, *operations: str) -> Any:
        now = [DdlObject("schema", "app2")]
        return command(tag="ALTER SCHEMA", objects=now, objects_total=1, statement=text, operations=list(operations))

    cluster = Cluster(listed("public.t", "app.t", "app.u"))
    cluster.take(
        transaction(9, n_rows=0, ddl=[schema("ALTER SCHEMA app OWNER TO x", "alter_schema", "change_owner")]), "wal"
    )
    assert cluster("SELECT 1 FROM t, u", role="app") == ["app.t", "app.u"]
    cluster.take(transaction(10, n_rows=0, ddl=[schema("ALTER SCHEMA app RENAME TO app2", "rename_schema")]), "wal")
    assert cluster("SELECT 1 FROM t, u", role="app2") == ["app2.t", "app2.u"]
    assert cluster("SELECT 1 FROM t, u", role="app") == ["public.t", "app2.u"]
    cluster.take(transaction(11, n_rows=0, ddl=[schema("DO $1", "do")]), "wal")
    assert cluster("SELECT 1 FROM t, u", role="app2") == ["t", "u"]


def test_a_snapshot_ends_the_doubt_which_table_moved() -> None:
    """It knows tables by what stays the same when they are called something else."""
    cluster = Cluster(listed("public.t", "app.t"))
    cluster.take(transaction(10, n_rows=0, ddl=[altered("ALTER TABLE t SET SCHEMA old", "old.t", "t")]), "wal")
    assert cluster("SELECT 1 FROM t", role="app") == ["t"]
    after: dict[str, object] = {"renamed_from": "app.t"}
    cluster.take(
        Posture(
            captured_at_us=START_US, object_type="table", name="old.t", change="changed", database="shop", after=after
        )
    )
    assert cluster("SELECT 1 FROM t", role="app") == ["public.t"]


def test_words_of_other_commands_move_nothing() -> None:
    """Nobody's `t` becomes somebody else's because a foreign schema is imported, or a publication names schemas."""
    for tag, text in (
        ("IMPORT FOREIGN SCHEMA", "IMPORT FOREIGN SCHEMA public LIMIT TO (t) FROM SERVER s INTO app"),
        ("ALTER PUBLICATION", "ALTER PUBLICATION p ADD TABLE t, TABLES IN SCHEMA app"),
    ):
        cluster = Cluster(listed("public.t", "app.u"))
        made = command(tag=tag, objects=[DdlObject("foreign table", "app.t", "app.t")], relations=["t"], statement=text)
        cluster.take(transaction(10, n_rows=0, ddl=[made]), "wal")
        assert cluster("SELECT 1 FROM t", role="other") == ["public.t"]
        assert cluster("SELECT 1 FROM t", role="app") == ["app.t"]


def test_of_too_many_doubts_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the next list, which ends doubts."""
    monkeypatch.setattr(relations, "DOUBTFUL_MAX", 1)
    names = ["a.t", "b.t", "c.t", "a.u", "b.u", "c.u"]
    cluster = Cluster(listed(*names))
    moves = [altered(f"ALTER TABLE {name} SET SCHEMA d", f"d.{name}", name) for name in ("t", "u")]
    cluster.take(transaction(10, n_rows=0, ddl=moves), "wal")
    assert cluster("SELECT 1 FROM t, u", role="a") == ["t", "u"]
    cluster.take(listed(*names))
    assert cluster("SELECT 1 FROM t, u", role="a") == ["a.t", "a.u"]


def test_a_list_comes_in_parts_and_is_no_event() -> None:
    """It counts when it is whole, in the place of the one before."""
    cluster = Cluster(listed("public.old"))
    assert cluster.take(listed("a.t", part=1, parts=2)) == []
    assert cluster("SELECT 1 FROM t") == ["t"]
    assert cluster.take(listed("b.u", part=2, parts=2)) == []
    assert cluster("SELECT 1 FROM t, u, old") == ["a.t", "b.u", "old"]


def test_it_is_bounded_and_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many relations the oldest are forgotten, and then not all are known."""
    cluster = Cluster(listed("a.t", "public.u"))
    cluster("SET search_path = a", pid=7)
    cluster.fold = Fold.restore(cluster.fold.snapshot(), 0)
    assert cluster("SELECT 1 FROM t, u") == ["a.t", "public.u"]
    assert cluster("SELECT 1 FROM v", pid=7) == ["v"]
    monkeypatch.setattr(relations, "RELATIONS_MAX", 2)
    cluster.take(wal(10, "public.w"), "wal")
    assert cluster("SELECT 1 FROM t, u") == ["t", "public.u"]
