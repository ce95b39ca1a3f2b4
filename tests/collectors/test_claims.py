"""Tokens on transactions: what is believed, what is refused, what never goes on."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg import errors as pg

from collectors.beacon import mac
from collectors.daemon import run_collectors
from collectors.tokens import Verifier, read_keys
from pgwitness.core.config import File
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Token
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime.health import Health
from tests.collectors.beacon_wal import Connection, Source, opened
from tests.conftest import write_config

pytestmark = pytest.mark.every_postgres

NOW = 1_800_000_000
AUDIENCE = "prod/shop"
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(*keys: Private) -> str:
    """Write public keys."""
    parts = [key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys]
    return b"".join(parts).decode()


def token(key: Any = ED, algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign a token that is in order but for what a test changes; a claim of None is left out."""
    given = {"sub": "maria", "aud": AUDIENCE, "exp": NOW + 60, "jti": "t-1", "iss": "https://idp"} | claims
    return jwt.encode({k: v for k, v in given.items() if v is not None}, key, algorithm=algorithm, headers=headers)


def verifier(text: str, issuer: str | None = None) -> Verifier:
    """Make a verifier of keys."""
    return Verifier(lambda: read_keys(text, "keys"), AUDIENCE, issuer)


def judged(said: str, keys: str | None = None, at_s: float = NOW, issuer: str | None = None) -> Token:
    """Judge a token."""
    return verifier(keys or pem(ED, P256, RSA), issuer).judge(said, int(at_s * 1e6))


@pytest.mark.parametrize(("key", "algorithm"), [(ED, "EdDSA"), (P256, "ES256"), (RSA, "RS256")])
def test_every_algorithm_is_believed(key: Private, algorithm: str) -> None:
    """EdDSA, ES256 and RS256 verify, from PEM and from a JWKS with key ids; the id and the claims go on."""
    found = judged(token(key, algorithm))
    assert (found.verdict, found.token_id, found.claims["sub"]) == ("verified", "t-1", "maria")
    made = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))  # type: ignore[arg-type]
    jwks = json.dumps({"keys": [made | {"kid": "a", "use": "sig"}]})
    assert judged(token(key, algorithm, {"kid": "a"}), jwks).verdict == "verified"
    assert judged(token(key, algorithm, {"kid": "b"}), jwks).verdict == "unknown_key"


def unsigned() -> str:
    """Make a token that says that it needs no signature."""
    return jwt.encode({"sub": "cfo", "aud": AUDIENCE, "exp": NOW + 60}, None, algorithm="none")


def confused() -> str:
    """Sign with HMAC and a public key as its secret, by hand: the library refuses to."""
    import hashlib
    import hmac

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    body = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps({"sub": "cfo", "exp": NOW + 60}).encode())
    return body + "." + part(hmac.new(pem(ED).encode(), body.encode(), hashlib.sha256).digest())


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (token(OTHER), "signature"),
        (token(ED)[:-8] + "AAAAAAAA", "signature"),
        (token(exp=NOW - 60), "expired"),
        (token(exp=None), "no_expiry"),
        (token(exp="soon"), "malformed"),
        (token(nbf=NOW + 60), "not_yet"),
        (token(aud="prod/billing"), "audience"),
        (token(aud=["a", "b"]), "audience"),
        (token(aud=None), "audience"),
        (token(sub=None), "no_subject"),
        (token(sub=""), "no_subject"),
        (token(exp=NOW + 2**53), "malformed"),
        (unsigned(), "unsigned"),
        (confused(), "algorithm"),
        ("", "malformed"),
        ("ticket 7", "malformed"),
        ("a.b.c", "malformed"),
        ("\ud800" * 5, "malformed"),
    ],
)
def test_what_is_refused(said: str, verdict: str) -> None:
    """A forged, expired, early, unsigned or misdirected token is told apart by its verdict, and never verified."""
    assert judged(said).verdict == verdict


def test_expiry_is_as_of_the_commit() -> None:
    """A token that has expired since counts for a transaction that was committed before."""
    assert judged(token(exp=NOW + 60), at_s=NOW + 60).verdict == "verified"
    assert judged(token(exp=NOW + 60), at_s=NOW + 66).verdict == "expired"


def test_the_issuers_clock_may_differ_by_seconds() -> None:
    """Both ends of a token hold five seconds longer than they say, and not a moment more."""
    for at_s, verdict in ((-5.001, "not_yet"), (-5, "verified"), (65, "verified"), (65.001, "expired")):
        assert judged(token(nbf=NOW, exp=NOW + 60), at_s=NOW + at_s).verdict == verdict


@pytest.mark.parametrize(("use", "verdict"), [(None, "verified"), ("sig", "verified"), ("enc", "unknown_key")])
def test_a_key_for_something_else_signs_nothing(use: str | None, verdict: str) -> None:
    """A key that its owner made for encryption is not asked; one that does not say what it is for is."""
    found = []
    for key, said in ((ED, use), (OTHER, "sig")):
        made = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key()))  # type: ignore[arg-type]
        found.append(made | {"kid": str(len(found))} | ({"use": said} if said else {}))
    assert judged(token(headers={"kid": "0"}), json.dumps({"keys": found})).verdict == verdict


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())], ids=["RSA-1024", "P-384"]
)
def test_keys_of_another_size_are_not_used(key: Private) -> None:
    """A short RSA key can be found by others; a curve of another size is another algorithm than ES256."""
    with pytest.raises(ConfigurationError, match="no usable key"):
        read_keys(pem(key), "keys")
    assert [found.algorithm for found in read_keys(pem(key, ED), "keys")] == ["EdDSA"]


def test_issuer_counts_where_one_is_configured() -> None:
    """A token of another issuer is refused even when its key is known."""
    assert judged(token(), issuer="https://idp").verdict == "verified"
    assert judged(token(iss="https://else"), issuer="https://idp").verdict == "issuer"


def test_without_keys_nothing_is_judged() -> None:
    """Where no keys are configured a token is neither believed nor refused."""
    assert Verifier.of(File(), "prod", "shop").judge(token(), 0).verdict == "no_keys"


def test_what_goes_on_is_bounded() -> None:
    """Only known claims go on, each cut: not the rest, and never the token."""
    act: dict[str, Any] = {"sub": "deep"}
    for n in range(40):
        act = {"sub": f"actor {n}", "act": act}
    said = token(secret="x", act=act, agent={"model": "m" * 1000, "other": 1}, scope=["a"])
    found = judged(said)
    assert set(found.claims) == {"sub", "aud", "exp", "jti", "iss", "actors", "agent"}
    assert found.claims["actors"] == [f"actor {n}" for n in range(39, 31, -1)]
    assert found.claims["agent"] == {"model": "m" * 200}
    assert said.rsplit(".", 1)[1] not in msgspec.json.encode(found).decode()


def test_further_claims_go_on_as_configured() -> None:
    """Fields are chosen by name or path, bounded, and masked where it says so; what is no plain value is left out."""
    settings = File(claims_fields={
        **dict.fromkeys(("ticket", "agent.intent", "roles", "level", "nested", "gone", "agent.name.x"), "clear"),
        **dict.fromkeys(("dept", "groups"), "token"),
    })  # fmt: skip
    said = token(
        ticket="CHG-" + "1" * 500, agent={"intent": "refund", "name": "bot"}, roles=["a", 1, {"x": 1}, None] * 20,
        level=3, nested={"a": 1}, dept="payments", groups=["x", "y"], secret="s",
    )  # fmt: skip
    masked = Verifier.of(settings, "prod", "shop", tokenizer(b"k" * 32)).judge(said, 0).claims["fields"]
    assert isinstance(masked, dict)
    assert masked["ticket"] == "CHG-" + "1" * 196
    assert (masked["agent.intent"], masked["level"]) == ("refund", 3)
    assert masked["roles"] == ["a", 1] * 4
    assert set(masked) == {"ticket", "agent.intent", "roles", "level", "dept", "groups"}
    assert "payments" not in str(masked)
    assert masked["dept"] == tokenizer(b"k" * 32)(b"payments").decode()
    assert len(masked["groups"]) == 2
    without = Verifier.of(settings, "prod", "shop").judge(said, 0).claims["fields"]
    assert isinstance(without, dict)
    assert set(without) == {"ticket", "agent.intent", "roles", "level"}
    assert "fields" not in judged(said).claims


@pytest.mark.parametrize("names", [["a."], [".a"], [""], ["x" * 101], [f"f{n}" for n in range(17)]])
def test_fields_that_cannot_be_are_refused(names: list[str]) -> None:
    """Names that are no path, and more than travel."""
    with pytest.raises(ValueError, match="claims_fields"):
        File(claims_fields=dict.fromkeys(names, "clear"))


def test_rotated_keys_are_read_again(tmp_path: Path) -> None:
    """A key that comes into the file later is found without a restart; a broken file leaves the last good one."""
    path = tmp_path / "keys.pem"
    path.write_text(pem(P256))
    made = Verifier.of(File(claims_keys=path, claims_audience="{cluster}/{database}"), "prod", "shop")
    assert made.judge(token(), NOW * 10**6).verdict == "unknown_key"
    path.write_text(pem(P256, ED))
    os.utime(path, (NOW, NOW))
    assert made.judge(token(), NOW * 10**6).verdict == "verified"
    path.write_text("broken")
    assert made.judge(token(RSA, "RS256"), NOW * 10**6).verdict == "unknown_key"
    assert made.judge(token(), NOW * 10**6).verdict == "verified"
    # Nor does a collector stop that begins anew after it lost its server.
    again = Verifier.of(File(claims_keys=path, claims_audience="{cluster}/{database}"), "prod", "shop")
    assert again.judge(token(), NOW * 10**6).verdict == "verified"


def test_a_key_in_the_place_of_another_is_read_again(tmp_path: Path) -> None:
    """A key of the same algorithm and without an id, which took the other's place, is found without a restart."""
    path, other = tmp_path / "keys.pem", ed25519.Ed25519PrivateKey.generate()
    path.write_text(pem(other))
    made = Verifier.of(File(claims_keys=path, claims_audience="{cluster}/{database}"), "prod", "shop")
    assert made.judge(token(), NOW * 10**6).verdict == "signature"
    path.write_text(pem(ED))
    os.utime(path, (NOW, NOW))
    assert made.judge(token(), NOW * 10**6).verdict == "verified"
    assert made.judge(token(other), NOW * 10**6).verdict == "signature"


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "x", "{"])
def test_unusable_keys_are_a_configuration_error(tmp_path: Path, text: str) -> None:
    """No key, a symmetric one or no file at all is said at the start, by the file's name."""
    path = tmp_path / "keys"
    with pytest.raises(ConfigurationError, match="keys"):
        Verifier.of(File(claims_keys=path), "prod", "shop")
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="keys"):
        Verifier.of(File(claims_keys=path), "prod", "shop")


def test_collectors_do_not_start_with_unusable_keys(tmp_path: Path) -> None:
    """Like the masking key: better no start, with a sentence, than changes whose tokens nobody can judge."""
    path = tmp_path / "claims.pem"
    path.write_text("nothing")
    extra = f'[identities]\nclaims_keys = "{path}"\n'
    config = write_config(tmp_path, "127.0.0.1:1", "postgresql://127.0.0.1:1/shop", prefix="", extra=extra)
    with pytest.raises(ConfigurationError, match=r"identities\.claims_keys: .*claims\.pem: no usable key"):
        run_collectors(config, ["wal"], threading.Event(), Health())


@pytest.fixture
def shop(database: str) -> Iterator[Source]:
    """A small shop with the beacon, on each PostgreSQL in turn."""
    with opened(database) as made:
        yield made


def carried(shop: Source) -> list[str | None]:
    """Read which token each beacon carries."""
    verifier = shop.verifier()
    found: list[str | None] = []
    for message in shop.messages():
        if message.prefix == mac.PREFIX:
            tokens: list[str] = []

            def judge(said: str, tokens: list[str] = tokens) -> Token:
                tokens.append(said)
                return Token("no_keys", "")

            verifier.verify(message.content, xid32=message.xid & 0xFFFFFFFF, judge=judge)
            found.append(tokens[0] if tokens else None)
    return found


def claim(connection: Connection, said: str | None) -> None:
    """Call the function as an application does."""
    connection.execute("SELECT pgwitness.claim(%s)", [said])


def test_claim_is_for_its_transaction_only(shop: Source) -> None:
    """A token goes with the transaction it was given in, by whatever role, and with no other of the session."""
    app = shop.client()
    with app.transaction():
        claim(app, "one")
        app.execute("INSERT INTO orders VALUES (1)")
    app.execute("INSERT INTO orders VALUES (2)")
    claim(app, "for nothing")
    app.execute("INSERT INTO orders VALUES (3)")
    with app.transaction():
        claim(app, "first")
        claim(app, "second: with a colon")
        app.execute("INSERT INTO orders VALUES (4)")
    assert carried(shop) == ["one", None, None, "second: with a colon"]


def test_what_an_earlier_transaction_left_over_is_ignored(shop: Source) -> None:
    """A pooled session in which somebody set the token for good names nobody in the transactions after it."""
    app = shop.client()
    with app.transaction():
        claim(app, "maria's")
        app.execute("SELECT set_config('pgwitness.token', current_setting('pgwitness.token'), false)")
        app.execute("INSERT INTO orders VALUES (1)")
    app.execute("INSERT INTO orders VALUES (2)")
    app.execute("SET pgwitness.token = 'no stamp'")
    app.execute("INSERT INTO orders VALUES (3)")
    assert carried(shop) == ["maria's", None, None]


def test_claim_under_a_savepoint_and_odd_ones(shop: Source) -> None:
    """A token given under a savepoint that is rolled back is none; an empty one is none; a huge one is cut."""
    app = shop.client()
    with app.transaction():
        app.execute("SAVEPOINT a")
        claim(app, "undone")
        app.execute("ROLLBACK TO a")
        app.execute("INSERT INTO orders VALUES (1)")
    for said in ("", None, "x" * 100_000):
        with app.transaction():
            claim(app, said)
            app.execute("INSERT INTO notes VALUES ('a')")
    assert carried(shop) == [None, None, None, "x" * 8192]


def test_ddl_carries_the_token(shop: Source) -> None:
    """A transaction of nothing but DDL has its token, too."""
    app = shop.client()
    with app.transaction():
        claim(app, "migration")
        app.execute("CREATE VIEW v AS SELECT 1")
    assert [payload.token for payload in shop.ddl()] == ["migration"]


def test_claim_opens_nothing_else(shop: Source) -> None:
    """Everybody may call pgwitness.claim, and nothing else in the schema."""
    app = shop.client()
    for statement in (
        "SELECT * FROM pgwitness.key",
        "SELECT * FROM pgwitness.covered",
        "SELECT pgwitness.control('pause')",
        "SELECT setval('pgwitness.session_secret_1', 10)",
        "CREATE TABLE pgwitness.mine (id int)",
        "CREATE OR REPLACE FUNCTION pgwitness.claim(token text) RETURNS void LANGUAGE sql AS ''",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            app.execute(statement.encode())
