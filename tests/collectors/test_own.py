"""How pgwitness knows what it did itself, on a real server: sessions by their code, triggers by what they run."""

from __future__ import annotations

import psycopg

from collectors.connection import connect
from collectors.installation.install import install
from collectors.own import COMMAND, OwnSessions
from collectors.posture.queries import TRIGGERS
from pgwitness.core.config import Cluster
from pgwitness.core.events import Beacon

KEY = bytes(range(32))


def test_a_command_is_known_by_its_session_and_nobody_who_copies_its_name(database: str) -> None:
    """What the server says of the session, in the log or in DDL, fits its code; of another session it does not."""
    cluster = Cluster(dsn=database)
    with (
        connect(cluster, application_name=COMMAND, key=KEY, command=True) as command,
        connect(cluster, application_name="pgwitness wal", key=KEY) as collector,
        connect(cluster) as other,
    ):
        found = []
        for connection in (command, collector, other):
            row = connection.execute(
                "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8, current_setting('application_name')"
                " FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            ).fetchone()
            assert row is not None
            found.append(Beacon("postgres", "postgres", row[0], row[1], 1, row[2]))
    own = OwnSessions(KEY)
    assert [own.wrote(beacon) for beacon in found] == [True, True, False]
    first, _, last = found
    copied = Beacon("postgres", "postgres", last.pid, last.backend_start_us, 1, first.application)
    unproven = Beacon("p", "p", first.pid, first.backend_start_us, 1, first.application, authenticated=False)
    assert not any(own.wrote(beacon) for beacon in (copied, unproven))
    assert not OwnSessions(bytes(32)).wrote(first)
    session = f"{first.backend_start_us // 1_000_000:x}.{first.pid:x}"
    assert own.commands(first.application, session)
    assert not own.has("postgres", first.application, session)


def test_a_job_changes_the_form_of_a_trigger_and_snapshots_see_the_same(database: str) -> None:
    """A new table runs another function than one that is published whole; to snapshots what either runs is one."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE plain (id int PRIMARY KEY)")
        assert install(connection).complete
        connection.execute("CREATE TABLE fresh (id int PRIMARY KEY)")

        def seen() -> dict[str, dict[str, object]]:
            return {str(table): what for _, table, _, what in connection.execute(TRIGGERS).fetchall()}

        before = seen()
        forms = connection.execute(
            "SELECT DISTINCT tgfoid FROM pg_trigger WHERE tgname = 'pgwitness_beacon'"
        ).fetchall()
        assert len(forms) == 2
        assert {key: value for key, value in before["plain"].items() if key != "relation"} == {
            key: value for key, value in before["fresh"].items() if key != "relation"
        }
        assert before["plain"]["function"] == "pgwitness.beacon"
        connection.execute("ALTER FUNCTION pgwitness.beacon_each() SET work_mem = '64kB'")
        assert seen()["plain"]["function_md5"] != before["plain"]["function_md5"], "either of them counts"
