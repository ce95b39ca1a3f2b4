"""Limits that only execution reveals: how many rows a statement changed, counted before anything is committed.

A limited statement stands between two of ours in one pipeline, and no Sync is between them: the first keeps what the
server has counted of the session's transaction so far (`pg_stat_xact_user_tables`), the second fails where more rows
were inserted, or updated and deleted, since than may be. Its failure undoes everything as any error would. The
server's own counters know what CTEs, DO blocks, functions, triggers and cascades did; a command tag does not.

No name of ours can be guessed, for what runs in between must not reach it: the nonce is in Bind, never in a text that
others see. Operators and functions are named in full: the session's search path is not ours.
"""

from __future__ import annotations

import secrets
from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.session.refusing import SQLSTATE
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import frame
from collectors.guard.names import MARK, OWNER, SCHEMA
from detectors.gatekeeper import Verdict
from pgwitness.core.events import Ran

_COUNTED: Final = (
    "SELECT coalesce(pg_catalog.sum(n_tup_upd OPERATOR(pg_catalog.+) n_tup_del), 0) AS n"
    ", coalesce(pg_catalog.sum(n_tup_ins), 0) AS i"
    f" FROM pg_catalog.pg_stat_xact_user_tables WHERE NOT (schemaname OPERATOR(pg_catalog.=) '{SCHEMA}' AND"
    " (SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class AS c"
    f" WHERE c.oid OPERATOR(pg_catalog.=) relid) OPERATOR(pg_catalog.=) '{OWNER}')"
)
"""Without what the guard notes of a statement that it judges, which only its role can write.

Its schema's name alone would let who owns a table move it there for as long as a DELETE takes. Inserts apart: a trigger
that writes down each change inserts a row for it, which is not another change.
"""
_BEGIN: Final = (
    f"SELECT FROM ({_COUNTED}) AS counted WHERE pg_catalog.set_config($1::pg_catalog.text,"
    " pg_catalog.concat(counted.n, ' ', counted.i), true) IS NULL"
)
_KEPT: Final = (
    "coalesce(pg_catalog.split_part(pg_catalog.current_setting($1::pg_catalog.text, true), ' ', {}),"
    " '-1000000000000')::pg_catalog.numeric"
)
_CHANGED: Final = (
    f"SELECT GREATEST(counted.n OPERATOR(pg_catalog.-) {_KEPT.format(1)},"
    f" counted.i OPERATOR(pg_catalog.-) {_KEPT.format(2)}) AS rows FROM ({_COUNTED}) AS counted"
)
_BEGIN_MARKED: Final = f"{_BEGIN} OR pg_catalog.set_config('{MARK}', $2::pg_catalog.text, true) IS NULL"
"""The same, and what the guard in the database lets an approved statement pass by, until the transaction's end."""
_CHECK: Final = (
    f"SELECT FROM ({_CHANGED}) AS changed WHERE CASE"
    " WHEN changed.rows OPERATOR(pg_catalog.>) $2::pg_catalog.text::pg_catalog.numeric"
    " THEN pg_catalog.concat($1::pg_catalog.text, ' ', changed.rows)::pg_catalog.int4 IS NULL ELSE false END"
)
"""A text that is no number: the error quotes it, and with it the nonce and how many rows there were."""
_TOLD: Final = _CHECK.replace(
    "SELECT FROM",
    "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, changed.rows::pg_catalog.text FROM",
).replace("ELSE false END", "ELSE true END")
"""The same, of what was approved: it says which transaction it was, and how many rows."""
_MANY: Final = "1000000000000"


class Limit:
    """The limit of one statement."""

    __slots__ = ("mark", "nonce", "ran", "rows", "stopped", "verdict")

    def __init__(self, verdict: Verdict, mark: str = "") -> None:
        """`mark` is what the guard in the database believes, of what was approved."""
        self.verdict = verdict
        self.mark = mark
        self.rows = verdict.rows
        self.stopped = False
        """Whether it was not run at all, for it came with other statements in one text."""
        self.ran: Ran | None = None
        """What was counted, of what was approved."""
        self.nonce = f"pgwitness.n{secrets.token_hex(8)}"

    def before(self) -> list[bytes]:
        """Return the messages that keep what was counted so far; none where no changes are limited."""
        if self.rows is None:
            return []
        if self.mark:
            return self._statement(_BEGIN_MARKED, self.nonce, self.mark)
        return self._statement(_BEGIN, self.nonce)

    def behind(self) -> list[bytes]:
        """Return the messages that fail where it was too much."""
        if self.rows is None:
            return []
        return self._statement(_TOLD if self.verdict.approval else _CHECK, self.nonce, str(self.rows))

    def _statement(self, text: str, *values: str) -> list[bytes]:
        name = b"pgwitness " + self.nonce.encode()
        bound = b"".join(len(value).to_bytes(4, "big") + value.encode() for value in values)
        count = len(values).to_bytes(2, "big")
        return [
            frontend.parse_of(name, text.encode()),
            frame(b"B", name + b"\0" + name + b"\0" + b"\0\0" + count + bound + b"\0\0"),
            frontend.execute_of(name),
            frame(b"C", b"S" + name + b"\0"),
            frame(b"C", b"P" + name + b"\0"),
        ]

    def told(self, row: bytes) -> None:
        """Take the row that says what was counted."""
        values = backend.first_row(row)
        if len(values) == 2 and (rows := values[1]) is not None:
            xid = values[0]
            self.ran = Ran(int(rows), int(xid) if xid is not None else None)

    def exceeded(self, said: dict[str, str]) -> str | None:
        """Return by how many rows an error of the server says that the limit was exceeded; None where it does not."""
        message = said.get("M", "")
        if said.get("C") != "22P02" or self.nonce not in message:
            return None
        number = message.partition(self.nonce)[2].split('"')[0].strip(" '»«")
        return number if number.isdigit() and len(number) < len(_MANY) else "an unknown number of"

    def answer(self, rows: str, encoding: str) -> bytes:
        """Return what the client reads when the limit was exceeded."""
        verdict = self.verdict
        message = f"undone by {verdict.message}; it changed {rows} rows, and {self.rows} is the most"
        return backend.error("ERROR", SQLSTATE, message, verdict.hint, why=verdict.why, codec=codec_of(encoding))

    def alone(self, encoding: str) -> bytes:
        """Return what the client reads of a text of several statements: which one did what would not be known."""
        verdict = self.verdict
        message = f"refused: a limited statement has to be sent alone ({verdict.message})"
        return backend.error(
            "ERROR", SQLSTATE, message, self.verdict.hint, why=self.verdict.why, codec=codec_of(encoding)
        )


def as_one(text: bytes) -> list[bytes]:
    """Return the messages by which a simple query of one statement runs without its end."""
    return [
        frontend.parse_of(b"", text),
        frame(b"B", b"\0\0" + b"\0\0" * 3),
        frame(b"D", b"P\0"),
        frontend.execute_of(b""),
    ]


def closing() -> bytes:
    """Return the message that forgets the unnamed statement, as a simple query does."""
    return frame(b"C", b"S\0")


SYNC: Final = frame(b"S")
