"""Masks as the owner of a database installs them where nobody is a superuser."""

from __future__ import annotations

import psycopg
import pytest

from collectors.masking import install
from collectors.masking.treatment import Kind
from pgwitness.core.privacy import tokenizer
from tests.collectors.masking.conftest import KEY, Masked


def test_an_owner_with_createrole_installs_masks(masked: Masked) -> None:
    """All but the event triggers is there, which is said; without them PostgreSQL refuses a migration until the masks
    are suspended."""
    masked.admin.execute(
        "CREATE ROLE dba LOGIN CREATEROLE; CREATE TABLE t (id int, email text); ALTER TABLE t OWNER TO dba;"
        " INSERT INTO t VALUES (1, 'ann@x.example')"
    )
    masked.admin.execute(f"ALTER DATABASE {masked.admin.info.dbname} OWNER TO dba".encode())
    masks = masked.masks({"*.id": "clear"})
    with psycopg.connect(masked.dsn, user="dba") as owner:
        report = install.install(owner, masks)
        assert not report.left, report.left
        assert any("event triggers" in note for note in report.notes)
        assert install.install(owner, masks).done == ()
        assert masked.sees("SELECT * FROM t") == [(1, tokenizer(KEY)(b"ann@x.example").decode())]
        masked.denied("SELECT * FROM public.t")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            owner.execute("ALTER TABLE t DROP COLUMN email")
        assert [one.state for one in install.status(owner, masks)][:1] == ["ok"]
        assert install.suspend(owner, masks).left == ()
        owner.execute("ALTER TABLE t DROP COLUMN email")
        assert install.status(owner, masks)[0].state == "differs"
        assert not install.install(owner, masks).left
        assert masked.sees("SELECT * FROM t") == [(1,)]
        assert install.uninstall(owner, masks).left == ()
    found = masked.admin.execute("SELECT FROM pg_roles WHERE rolname IN ('support', 'pgwitness_masks')").fetchall()
    assert found == []
    masked.admin.execute("DROP TABLE t")


def test_the_collectors_role_can_say_how_masks_stand(masked: Masked) -> None:
    """Who may read neither tables nor key shows the same as an administrator: views, ways round them, what is away."""
    masked.admin.execute(
        "CREATE TABLE t (id int, email text, status text); CREATE ROLE looker LOGIN;"
        " INSERT INTO t SELECT n, 'ann' || n, 'gold' FROM generate_series(1, 50) AS n; ANALYZE t"
    )
    masks = masked.masks({"*.id": "clear"})
    masked.install(masks)
    masked.admin.execute("GRANT SELECT ON t TO PUBLIC")
    with psycopg.connect(masked.dsn, user="looker") as looker:
        seen = install.status(looker, masks)
        assert seen == masked.status(masks)
        assert [one.state for one in seen if not one.subject.startswith("database")] == ["ok", "leak"]
        masked.admin.execute("DROP VIEW mask_public.t")
        assert install.status(looker, masks)[0].state == "differs"


def test_who_may_not_is_told_so(masked18: Masked) -> None:
    """A role without the rights changes nothing, and hears whose they are."""
    masked18.admin.execute("CREATE ROLE nobody LOGIN; CREATE TABLE t (id int); CREATE TABLE u (a text)")
    with psycopg.connect(masked18.dsn, user="nobody") as nobody:
        tries: tuple[dict[str, Kind], ...] = ({"*.id": "clear", "*.a": "null"}, {"*.id": "clear"})
        for rules in tries:
            report = install.install(nobody, masked18.masks(rules))
            assert "superuser" in report.left[0].fix
    assert masked18.admin.execute("SELECT FROM pg_roles WHERE rolname = 'support'").fetchall() == []
