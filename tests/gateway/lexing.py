r"""Texts at random, under every setting that changes how the server reads them: what it ran against what was judged.

`python -m tests.gateway.lexing 100000` runs so many on PostgreSQL 15 and 18 each. A text is made of constants in every
form, with backslashes, quotes and characters whose second byte is one of ASCII, each hashed by the server, so that
what it took for a constant comes back whatever the encoding. Its twin in a session with the settings that the
judge reads by runs what was judged, and has to give the same. Half of the texts are read as `unsure`, by other settings
than the server has. With them goes a look at every character of two bytes: none may be one of ASCII to the server.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import pq

from collectors.gateway.wire.lexing import Settings, read

ENCODINGS = (
    "UTF8", "SQL_ASCII", "LATIN1", "WIN1252", "KOI8R",
    "GBK", "SJIS", "BIG5", "UHC", "JOHAB", "GB18030", "SHIFT_JIS_2004",
    "EUC_JP", "EUC_CN", "EUC_KR", "EUC_TW", "EUC_JIS_2004",
)  # fmt: skip
QUOTING = ("on", "off", "safe_encoding")
CHARACTERS = (
    b"a", b"\\", b"\\\\", b"'", b"''", b"\\'", b"\\n", b"\\x41", b"\\u0041", b'"', b"$", b"$$", b"--", b"/*", b"*/",
    b";", b"\n", b" ", "é".encode(), "縗".encode("gbk"), "表".encode("sjis"), "功".encode("big5"),
    "日本".encode("euc_jp"), b"\xbf\\", b"\x81\x5c", b"\xe9", b"\x8e\xa1", b"\x8f\xa1\xa1", b"\xa1", b"\xbf'", b"\x81|",
    b",'[^ -~]+','?','g')) ; select md5('x'", b"\\','[^ -~]+','?','g')) ; select md5('y') --",
)  # fmt: skip
ASKED = b"md5(regexp_replace(%s, '[^ -~]+', '?', 'g'))"
"""What is not ASCII may be another character here: Python and PostgreSQL have tables of their own."""
FORMS = ((b"'", b"'"), (b"E'", b"'"), (b"e'", b"'"), (b"N'", b"'"), (b"U&'", b"'"), (b"$$", b"$$"), (b"$t$", b"$t$"))
BETWEEN = (b" ", b" -- \\' c\n", b" /* ' \\ */ ", b"\n", b" || '\\' || ", b" 'x\\'\n'y' ")


class Ran(NamedTuple):
    """What came of a text: the rows of each statement, or an error."""

    rows: tuple[tuple[bytes, ...], ...]
    sqlstate: str | None


def constant(chance: random.Random) -> bytes:
    """Make a constant."""
    begin, end = chance.choice(FORMS)
    inside = b"".join(chance.choices(CHARACTERS, k=chance.randrange(4)))
    more = b""
    if end == b"'" and chance.random() < 0.15:
        more = chance.choice((b"\n'", b" --\\\n '")) + b"".join(chance.choices(CHARACTERS, k=2)) + b"'"
    return begin + inside + end + more


def text(chance: random.Random) -> bytes:
    """Make a text of one or two statements."""
    statements = []
    for _ in range(chance.choice((1, 1, 2))):
        wanted = [ASKED % constant(chance) for _ in range(chance.choice((1, 1, 2)))]
        statements.append(b"SELECT " + b",".join(wanted) + chance.choice(BETWEEN))
    return b";".join(statements)


class Session:
    """A session by libpq, which sends bytes as they are."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._libpq = self._connection.pgconn

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def set(self, encoding: str, standard: bool, quoting: str) -> bool:
        """Change the settings; return whether the server can: it converts not between all encodings."""
        for name, value in (
            ("client_encoding", encoding), ("standard_conforming_strings", "on" if standard else "off"),
            ("backslash_quote", quoting), ("escape_string_warning", "off"),
        ):  # fmt: skip
            if self._libpq.exec_(f"SET {name} = {value}".encode()).status != pq.ExecStatus.COMMAND_OK:
                return False
        return True

    def run(self, said: bytes) -> Ran:
        """Run a text, and read all that comes of it."""
        self._libpq.send_query(said)
        rows: list[tuple[bytes, ...]] = []
        sqlstate = None
        while (result := self._libpq.get_result()) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            rows.append(tuple(result.get_value(0, at) or b"" for at in range(result.nfields)))
        return Ran(tuple(rows), sqlstate)


def settings(chance: random.Random) -> tuple[str, bool, str]:
    """Choose settings."""
    return chance.choice(ENCODINGS), chance.random() < 0.5, chance.choice(QUOTING)


def compare(dsn: str, times: int, seed: int = 0, server_encoding: str = "UTF8") -> Counter[str]:
    """Run so many texts; return how many ran, were refused or failed. Raise `AssertionError` for a difference."""
    chance = random.Random(seed)
    counted: Counter[str] = Counter()
    there, judge = Session(dsn), Session(dsn)
    try:
        judge.set("UTF8", True, "on")
        for number in range(times):
            if number % 20 == 0:
                encoding, standard, quoting = settings(chance)
                while not there.set(encoding, standard, quoting):
                    encoding = chance.choice(ENCODINGS)
            known = Settings(encoding, standard, "sure", server_encoding)
            if chance.random() < 0.5:
                other = settings(chance)
                known = Settings(other[0], other[1], "unsure", server_encoding)
            said = text(chance)
            lexed = read(said, known)
            if lexed.doubt is not None:
                counted["refused"] += 1
                continue
            forward = lexed.forward if lexed.forward is not None else said
            ran = there.run(forward)
            counted["ran" if ran.sqlstate is None else "failed"] += 1
            counted["rewritten"] += lexed.forward is not None
            if ran.sqlstate is None:
                judged = judge.run(_known(lexed.text, server_encoding))
                assert ran == judged, (said, known, encoding, standard, quoting, lexed, ran, judged)
    finally:
        there.close()
        judge.close()
    return counted


def _known(text: str, server_encoding: str) -> bytes:
    """Put one character that the database has in the place of each beyond ASCII."""
    instead = "é" if server_encoding == "LATIN1" else "日"
    return "".join(char if char.isascii() else instead for char in text).encode()


def naive(dsn: str, times: int) -> int:
    """Return how many texts do another thing than a judge saw that reads each as UTF-8 with the setting on."""
    chance = random.Random(1)
    there, judge = Session(dsn), Session(dsn)
    different = 0
    try:
        judge.set("UTF8", True, "on")
        for _ in range(times):
            there.set(*settings(chance))
            said = text(chance)
            ran = there.run(said)
            different += ran.sqlstate is None and ran != judge.run(said.decode("utf-8", "replace").encode())
    finally:
        there.close()
        judge.close()
    return different


_READ = """
CREATE OR REPLACE FUNCTION pg_temp.read(encoding text) RETURNS TABLE (piece bytea, made text) LANGUAGE plpgsql AS $$
BEGIN
  FOR lead IN 128..255 LOOP
    FOR trail IN 1..255 LOOP
      piece := set_byte(set_byte('\\x0000'::bytea, 0, lead), 1, trail);
      BEGIN
        made := convert_from(piece, encoding);
        RETURN NEXT;
      EXCEPTION WHEN OTHERS THEN NULL;
      END;
    END LOOP;
  END LOOP;
END $$;
"""


def divided_otherwise(dsn: str) -> Iterator[tuple[str, bytes, str]]:
    """Find pairs of bytes in which the server sees other characters of ASCII than are judged."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_READ)
        for encoding in ENCODINGS[2:]:
            query = "SELECT piece, made FROM pg_temp.read(%s)"
            for piece, made in connection.execute(query, (encoding,)).fetchall():
                lexed = read(bytes(piece) + b" \\", Settings(encoding))
                if lexed.doubt is None and _of_ascii(lexed.text[:-2]) != _of_ascii(made):
                    yield encoding, bytes(piece), made


def _of_ascii(text: str) -> str:
    return "".join(char for char in text if char.isascii())


def main(times: int) -> None:
    """Run on both servers."""
    from pgwitness.demo.servers import Postgres
    from tests.conftest import DEBIAN_BIN

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for version, place in ((18, None), (15, DEBIAN_BIN)):
            server = Postgres(Path(folder) / str(version), bin=place)
            server.start()
            stack.callback(server.stop, "immediate")
            for encoding in ("UTF8", "EUC_JP", "LATIN1", "SQL_ASCII"):
                dsn = made(server.dsn(), encoding, server.dsn(dbname=f"lex_{encoding.lower()}"))
                share = times * 7 // 10 if encoding == "UTF8" else times // 10
                print(version, encoding, dict(compare(dsn, share, version, encoding)), flush=True)
            dsn = server.dsn(dbname="lex_utf8")
            print(version, "pairs of bytes that are divided otherwise:", list(divided_otherwise(dsn)), flush=True)
            print(version, "of 2000 texts that a judge of UTF-8 would misread:", naive(dsn, 2_000), flush=True)


def made(admin: str, encoding: str, dsn: str) -> str:
    """Make a database of an encoding; `dsn` is how it is connected to."""
    name = dsn.rpartition("/")[2]
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    return dsn


if __name__ == "__main__":
    main(int(sys.argv[1]))
