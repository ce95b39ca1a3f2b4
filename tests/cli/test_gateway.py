"""Users of the gateway, and what the doctor says of it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from collectors.gateway.auth.scram import Verifier
from collectors.gateway.auth.users import users_of
from pgwitness.cli import main
from pgwitness.cli.doctor.gateway import Rule, gateway, round_it
from pgwitness.cli.doctor.lines import Line
from pgwitness.core.config import load
from tests.collectors.tls import Authority
from tests.gateway.oauth import Issuer

CONFIG = """
[clusters.shop]
dsn = "{dsn}"
[privacy]
key_file = "privacy.key"
[gateway.databases.shop]
cluster = "shop"
upstream = "host=localhost sslmode=disable"
users_file = "users"
"""
BY_TOKEN = """
auth = ["scram", "token"]
roles_file = "roles"
token = { issuer = "https://idp.example", keys = "jwks.json" }
logins = [{ role = "ROLE", claim = { actor = "triage" } }]
[gateway.tls]
cert_file = "gateway.crt"
key_file = "gateway.key"
"""


def written(folder: Path, dsn: str = "postgresql://db", more: str = "") -> Path:
    """Write a configuration."""
    path = folder / "pgwitness.toml"
    (folder / "privacy.key").write_text("aa" * 32)
    (folder / "privacy.key").chmod(0o600)
    path.write_text(CONFIG.format(dsn=dsn) + more)
    return path


def test_a_user_is_added_and_shown(tmp_path: Path) -> None:
    """By a verifier in the file, which is nobody else's to read; the same name again has another password."""
    path = written(tmp_path)
    users = tmp_path / "users"
    users.write_text("# people\n")
    for password in ("first", "second"):
        done = CliRunner().invoke(
            main, ["gateway", "users", "add", 'o"hara', "--config", str(path)], input=f"{password}\n"
        )
        assert done.exit_code == 0, done.output
        assert password not in done.output
        assert password not in users.read_text()
        verifier = users_of(users.read_text(), users)['o"hara']
        assert Verifier.of(password, verifier.salt) == verifier
        assert 'ALTER ROLE "o""hara" PASSWORD \'SCRAM-SHA-256$4096:' in done.output
    assert users.read_text().startswith("# people\n")
    assert users.stat().st_mode & 0o777 == 0o600
    shown = CliRunner().invoke(main, ["gateway", "users", "list", "--json", "--config", str(path)])
    assert [(row["user"], row["way"]) for row in json.loads(shown.output)] == [('o"hara', "scram")]


@pytest.mark.parametrize("given", ["\n", "pässword\n"])
def test_a_password_that_cannot_be_used_is_refused(tmp_path: Path, given: str) -> None:
    """And the file stays as it was."""
    path = written(tmp_path)
    done = CliRunner().invoke(main, ["gateway", "users", "add", "ada", "--config", str(path)], input=given)
    assert done.exit_code == 2
    assert "printable ASCII" in done.output
    assert not (tmp_path / "users").exists()


def rule(number: int, address: str | None, method: str = "scram-sha-256", **more: object) -> Rule:
    """A rule for everybody."""
    given = {"kind": "host", "databases": ("all",), "users": ("all",), "netmask": None, **more}
    return Rule(number=number, address=address, method=method, **given)  # type: ignore[arg-type]


def test_rules_that_let_clients_round_the_gateway() -> None:
    """Whole networks do, unless somebody rejects them first; single hosts, the socket and our own roles do not."""
    rules = [
        rule(1, None, kind="local"),
        rule(2, "127.0.0.1", netmask="255.255.255.255"),
        rule(3, "10.0.0.7", netmask="255.255.255.255"),
        rule(4, "10.1.0.0", netmask="255.255.0.0"),
        rule(5, "fd00::", netmask="ffff:ffff:ffff:ffff::"),
        rule(6, ".example.org"),
        rule(7, "gateway.example.org"),
        rule(8, "10.2.0.0", netmask="255.255.0.0", users=("pgwitness",)),
        rule(9, "10.3.0.0", netmask="255.255.0.0", databases=("replication",)),
        rule(10, "10.0.0.0", "reject", netmask="255.0.0.0"),
        rule(11, "10.4.0.0", netmask="255.255.0.0"),
        rule(12, "samenet"),
        rule(13, "all"),
        rule(14, "all", "reject", users=("bob",)),
        rule(15, "all", "reject"),
        rule(16, "0.0.0.0", netmask="0.0.0.0"),
    ]
    assert [one.number for one in round_it(rules, {"pgwitness"})] == [4, 5, 6, 12, 13]


def checked(path: Path) -> dict[str, Line]:
    """What the doctor says of a gateway, by what it is about."""
    findings: list[Line] = []
    gateway(load(path, {}), findings)
    return {str(one["what"]): one for one in findings}


def test_the_doctor_looks_at_the_gateway(tmp_path: Path, database18: str) -> None:
    """TLS, keys, users, roles that are not there or may too much, and the rules of a server that lets networks in."""
    role = f"agents_{secrets.token_hex(4)}"
    path = written(tmp_path, database18, BY_TOKEN.replace("ROLE", role))
    Authority(tmp_path).issue("gateway", "127.0.0.1")
    (tmp_path / "jwks.json").write_text(Issuer().jwks())
    (tmp_path / "users").touch()
    (tmp_path / "roles").touch(mode=0o600)
    (tmp_path / "roles").write_text(f'"{role}" "secret"\n')
    found = checked(path)
    assert {what: one["state"] for what, one in found.items()} == {
        "TLS": "ok", "logins": "ok", "users": "ok", "keys of tokens": "ok", "roles": "error", "pg_hba.conf": "ok",
    }, found  # fmt: skip
    assert "cannot log in at the server" in str(found["roles"]["found"])
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(role)))
        assert "superuser" in str(checked(path)["roles"]["found"])
        admin.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(sql.Identifier(role)))
        assert checked(path)["roles"]["state"] == "ok"
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_the_doctor_says_which_audience_cannot_log_in(tmp_path: Path, database18: str) -> None:
    """Whom it fits is refused until the role's password stands in the file."""
    path = written(tmp_path, database18, "[masks.analysts]\nmatch = { peer_group = 'analysts' }\n")
    (tmp_path / "users").touch()
    found = checked(path)
    assert (found["roles"]["state"], "analysts" in str(found["roles"]["found"])) == ("error", True)


def test_the_doctor_says_what_is_missing(tmp_path: Path, database18: str) -> None:
    """Without TLS clients come in the open; a file that is not there lets nobody in."""
    found = checked(written(tmp_path, database18))
    assert (found["TLS"]["state"], found["logins"]["state"]) == ("warning", "error")
    assert "users_file" in str(found["logins"]["found"])
