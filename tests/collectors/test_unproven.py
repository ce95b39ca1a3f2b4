"""What is said without a proof: taken for a claim where the database can have said it, for a forgery where not."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import msgspec
import pytest

from collectors.beacon import mac
from collectors.beacon.keyring import UNDER_WAY_US, Key, Keyring
from collectors.beacon.verifier import BeaconVerifier, claimed
from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.keyreads import KeyReads
from collectors.wal.beacons.messages import Messages, Unsigned
from collectors.wal.decoding.pgoutput import LogicalMessage
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from pgwitness.core.config import Privacy
from pgwitness.core.events import Beacon, Ddl, Forgery
from pgwitness.core.privacy import tokenizer
from tests.collectors import wal_messages as write
from tests.collectors.test_wal_transaction import TABLE, Judge, Output

KEY, OTHER = b"k" * 32, b"o" * 32
DDL = [
    "ddl/1",
    "",
    "shop",
    7,
    12,
    1,
    "ann",
    "ann",
    "psql",
    None,
    None,
    None,
    None,
    "ddl_command_end",
    "CREATE TABLE",
    1,
]


def session(database: str = "shop", user: str = "ann") -> bytes:
    """Write a session's introduction without its code."""
    return msgspec.json.encode(["session/1", "77", database, 12, 1, user, None, None, None, None])


def signed(key: bytes, *, xid: int = 7, application: bytes = b"psql", intro: bytes | None = None) -> bytes:
    """Write a beacon as the database does."""
    intro = intro or session()
    tag = mac.mac(key, intro)
    one, other = struct.unpack(">qq", mac.mac(key, b"secret/1" + tag)[:16])
    said = b"\x1f".join([b"%d" % xid, b"ann", b"none", application, b"", b""])
    code = hashlib.sha256(b"\x1f".join([b"%d" % one, said, b"%d" % other])).hexdigest()
    return code.encode() + said + tag.hex().encode() + intro


def unsigned(xid: int = 7, user: str = "ann", database: str = "shop") -> bytes:
    """Write a beacon as the database does without a key."""
    fields = [b"%d" % xid, user.encode(), b"none", b"psql", b"", b"0" * 64 + session(database, user)]
    return b"0" * 64 + b"\x1f".join(fields)


class Database:
    """Judges messages while a test changes the keys."""

    def __init__(self, *keys: Key, known: Keyring | None = None) -> None:
        self.keys = list(keys)
        self.now = 0.0
        self.judge = Messages(
            "77", "shop", KeyReads(lambda: self.keys, known or Keyring(), lambda: self.now), lambda *_: None,
            lambda: None, lambda: self.now,
        )  # fmt: skip

    def hears(self, content: bytes, *, lsn: int = 500, at_us: int = 0, prefix: str = mac.PREFIX) -> object:
        self.now += 2
        said = self.judge.message(LogicalMessage(True, lsn, prefix, content), 7, at_us)
        return (self.judge.claimed(said) or Forgery(reason="malformed")) if isinstance(said, Unsigned) else said


def proven(said: object) -> bool | None:
    """Say whether what was heard is a beacon, and proven; None for anything else."""
    return said.authenticated if isinstance(said, Beacon) else None


FIRST, SECOND = Key(key=KEY, number=1, made_lsn=100), Key(key=OTHER, number=2, made_lsn=400, made_xid=100)


def test_both_forms_of_the_code_verify() -> None:
    """The code in digits and, as the release before wrote it, in bytes."""
    verifier = BeaconVerifier(KEY, system_id="77", database="shop")
    new = signed(KEY)
    old = bytes.fromhex(new[:64].decode()) + new[64:]
    assert verifier.verify(new, xid32=7) == verifier.verify(old, xid32=7)


@pytest.mark.parametrize(
    ("codec", "application", "right"),
    [
        ("utf-8", "caf\u00e9".encode(), "caf\u00e9"),
        ("latin-1", b"caf\xe9", "caf\u00e9"),
        ("utf-8", b"caf\xe9", "caf\\xe9"),
    ],
)
def test_texts_of_every_encoding_are_read(codec: str, application: bytes, right: str) -> None:
    """In the database's encoding, and in one without encoding as well as can be; the code is over the bytes."""
    name = b'["session/1","77","shop",12,1,"' + application + b'",null,null,null,null]'
    verifier = BeaconVerifier(KEY, system_id="77", database="shop", codec=codec)
    said = verifier.verify(signed(KEY, application=application, intro=name), xid32=7)
    assert (said.application, said.session_user) == (right, right)


def test_after_a_rotation_the_key_before_holds_for_a_while() -> None:
    """Beacons of before and shortly after verify; later ones under the old key are forgeries, wherever it leaked to."""
    database = Database(SECOND, FIRST)
    assert proven(database.hears(signed(KEY), lsn=300)) is True
    assert proven(database.hears(signed(KEY), at_us=UNDER_WAY_US)) is True
    assert proven(database.hears(signed(OTHER))) is True
    late = Database(SECOND, Key(key=KEY, number=1, made_lsn=100)).hears(signed(KEY), at_us=10**12 * 9)
    assert isinstance(late, Forgery)


def test_what_a_lost_key_signed_verifies_while_it_is_remembered() -> None:
    """The collector that has seen the key verifies what is still unread; one that has not takes it for a claim."""
    renewed = Key(key=OTHER, number=1, made_lsn=400)
    assert proven(Database(renewed, known=Keyring([FIRST])).hears(signed(KEY), lsn=300)) is True
    assert proven(Database(renewed).hears(signed(KEY), lsn=300)) is False
    assert isinstance(Database(renewed).hears(signed(KEY), lsn=500), Forgery)


def test_an_unsigned_beacon_is_a_claim() -> None:
    """It names its session; one for another database or transaction is forged."""
    database = Database(FIRST)
    said = database.hears(unsigned())
    assert isinstance(said, Beacon)
    assert (said.session_user, said.pid, said.authenticated) == ("ann", 12, False)
    assert isinstance(database.hears(unsigned(xid=8)), Forgery)
    assert isinstance(database.hears(unsigned(database="other")), Forgery)
    assert claimed(b"0" * 64 + b"nonsense", xid32=7, database="shop") is None


def test_unsigned_ddl_counts_only_while_the_key_is_lost() -> None:
    """With the key in place nobody makes DDL up; without it the command is told, and not proven."""
    content = b"0" * 64 + msgspec.json.encode(DDL)
    assert isinstance(Database(FIRST).hears(content, prefix=mac.DDL_PREFIX), Forgery)
    told = Database(Key(key=OTHER, number=1, made_lsn=600), known=Keyring([FIRST])).hears(
        content, prefix=mac.DDL_PREFIX
    )
    assert isinstance(told, Ddl)
    assert (told.tag, told.beacon.session_user, told.beacon.authenticated) == ("CREATE TABLE", "ann", False)


@pytest.mark.parametrize(
    ("said", "covered", "lost", "right"),
    [
        (["?ann:app"], True, False, (["ann"], [False], [])),
        (["?ann:app"], False, False, ([], [], ["unsigned"])),
        (["?ann:app"], False, True, ([], [], [])),
        (["?cfo:app", "ann:app"], True, False, (["ann"], [True], ["unsigned"])),
        (["?cfo:app", "ann:app"], True, True, (["ann"], [True], ["unsigned"])),
        (["?ann:app", "ann:app"], True, True, (["ann"], [True], [])),
        (["?ann:app", "?cfo:app"], True, False, (["ann", "cfo"], [False, False], [])),
    ],
)
def test_a_claim_never_outranks_a_proof(
    tmp_path: Path, said: list[str], covered: bool, lost: bool, right: tuple[list[str], list[bool], list[str]]
) -> None:
    """It speaks only for a covered table where nothing proven speaks; else it is nothing, or somebody's invention."""
    output, judge = Output(), Judge(lost=lost)
    assembler = Assembler(
        Place("77", 3, "shop"), Masking(Privacy(), tokenizer(b"k" * 32)), judge,
        lambda *_: TableFacts(("id",), beacon=covered), output, Held(tmp_path, 1 << 20, 1 << 20), Xids(10), lambda: 42,
    )  # fmt: skip
    spoken = [write.message("b", one.encode()) for one in said]
    for message in [TABLE, write.begin(300, 12), write.insert(1, [b"1", b"x"]), *spoken, write.commit(300)]:
        assembler.feed(message)
    (part,) = output.parts
    found = [b.session_user for b in part.beacons], [b.authenticated for b in part.beacons]
    assert (*found, [forged.reason for forged in part.forged]) == right
    # A gap tells of those that spoke, or may have been the beacon's.
    assert judge.unproven.number == (right[1].count(False) or (lost and not right[1]))
