"""Ways in which a statement is done or undone, each with what is right to say of it.

A way is a list of steps in one session. A step is a text for the simple protocol; `x:` sends one statement by the
extended protocol, `p:` several in one pipeline, split at `|`. `!close` ends the session as a client does, `!vanish`
closes its socket, `!killed` lets a superuser end it. Statements that make `{t}1`, `{t}2` and so on can be held against
what is there in the end. Outcomes are those of the statements that are no words about transactions, in their order:
**s**uccess, **r**olled back, **f**ailure, **d**enied, **p**ending, **u**nknown.
"""

from __future__ import annotations

from typing import NamedTuple

OUTCOMES = {"s": "success", "r": "rolled_back", "f": "failure", "d": "denied", "u": "unknown", "p": "pending"}


class Way(NamedTuple):
    """Steps of a session, the outcomes that are right, and the role that runs it."""

    steps: tuple[str, ...]
    outcomes: str
    role: str = "owner"


def way(outcomes: str, *steps: str, role: str = "owner") -> Way:
    """Write a way down."""
    return Way(steps, outcomes, role)


A, B, C = "CREATE TABLE {t}1(i int)", "CREATE TABLE {t}2(i int)", "CREATE TABLE {t}3(i int)"
BAD = "SELECT 1/0"

WAYS: dict[str, Way] = {
    "alone": way("s", A),
    "alone, extended, then something else": way("sf", "x:" + A, "SELECT 1 FROM nothing_there"),
    "alone, extended, then the end": way("u", "x:" + A, "!close"),
    "committed": way("ss", "BEGIN", A, B, "COMMIT"),
    "committed by END": way("s", "BEGIN", A, "END"),
    "committed, extended": way("s", "x:BEGIN", "x:" + A, "x:COMMIT"),
    "committed in START TRANSACTION": way("s", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", A, "COMMIT"),
    "rolled back": way("rr", "BEGIN", A, B, "ROLLBACK"),
    "rolled back by ABORT": way("r", "BEGIN", A, "ABORT"),
    "rolled back, extended": way("r", "x:BEGIN", "x:" + A, "x:ROLLBACK"),
    "failed later": way("rf", "BEGIN", A, BAD, "ROLLBACK"),
    "COMMIT of a failed transaction": way("rf", "BEGIN", A, BAD, "COMMIT"),
    "COMMIT of a failed transaction, extended": way("rf", "x:BEGIN", "x:" + A, "x:" + BAD, "x:COMMIT"),
    "tried again in a failed transaction": way("rfff", "BEGIN", A, BAD, B, C, "COMMIT"),
    "disconnect within a transaction": way("r", "BEGIN", A, "!close"),
    "the client vanishes within a transaction": way("r", "BEGIN", A, "!vanish"),
    "killed within a transaction": way("rf", "BEGIN", A, "!killed"),
    "killed after what was alone": way("sf", A, "!killed"),
    "savepoint kept": way("ss", "BEGIN", A, "SAVEPOINT a", B, "COMMIT"),
    "savepoint taken back": way("srs", "BEGIN", A, "SAVEPOINT a", B, "ROLLBACK TO a", C, "COMMIT"),
    "savepoint taken back, all of it": way("rr", "BEGIN", A, "SAVEPOINT a", B, "ROLLBACK TO a", "ROLLBACK"),
    "an error that a savepoint takes back": way(
        "sfs", "BEGIN", A, "SAVEPOINT a", BAD, "ROLLBACK TO SAVEPOINT a", B, "COMMIT"
    ),
    "an error after the savepoint's release": way("rrf", "BEGIN", A, "SAVEPOINT a", B, "RELEASE a", BAD, "COMMIT"),
    "nested savepoints, the outer taken back": way(
        "srr", "BEGIN", A, "SAVEPOINT a", B, "SAVEPOINT b", C, "ROLLBACK TO a", "COMMIT"
    ),
    "nested savepoints, the inner taken back": way(
        "ssr", "BEGIN", A, "SAVEPOINT a", B, "SAVEPOINT b", C, "ROLLBACK TO b", "COMMIT"
    ),
    "two savepoints of one name": way("ssr", "BEGIN", A, "SAVEPOINT a", B, "SAVEPOINT a", C, "ROLLBACK TO a", "COMMIT"),
    "a savepoint with a quoted name": way("sr", "BEGIN", A, 'SAVEPOINT "A b"', B, 'ROLLBACK TO "A b"', "COMMIT"),
    "released, then the outer taken back": way(
        "srr", "BEGIN", A, "SAVEPOINT a", B, "SAVEPOINT b", C, "RELEASE b", "ROLLBACK TO a", "COMMIT"
    ),
    "taken back twice": way(
        "srr", "BEGIN", A, "SAVEPOINT a", B, "ROLLBACK TO a", C, "ROLLBACK TO a", "COMMIT"
    ),
    "a savepoint that is not there": way("r", "BEGIN", A, "ROLLBACK TO nowhere", "COMMIT"),
    "AND CHAIN, both committed": way("ss", "BEGIN", A, "COMMIT AND CHAIN", B, "COMMIT"),
    "AND CHAIN, the second rolled back": way("sr", "BEGIN", A, "COMMIT AND CHAIN", B, "ROLLBACK"),
    "ROLLBACK AND CHAIN, the second committed": way("rs", "BEGIN", A, "ROLLBACK AND CHAIN", B, "COMMIT"),
    "one text, committed": way("s", f"BEGIN; {A}; COMMIT"),
    "one text, rolled back": way("r", f"BEGIN; {A}; ROLLBACK"),
    "one text without BEGIN": way("s", f"{A}; {B}"),
    "one text without BEGIN, rolled back": way("r", f"{A}; ROLLBACK"),
    "one text, first kept, second not": way("u", f"BEGIN; {A}; COMMIT; BEGIN; {B}; ROLLBACK"),
    "one text, the first part taken back": way("u", f"BEGIN; SAVEPOINT a; {A}; ROLLBACK TO a; {B}; COMMIT"),
    "one text that fails": way("f", f"{A}; {BAD}"),
    "one text that fails in its transaction": way("ff", f"BEGIN; {A}; {BAD}; COMMIT", f"{B}; ROLLBACK"),
    "one text that fails after an inner COMMIT": way("u", f"BEGIN; {A}; COMMIT; {BAD}"),
    "one text that fails after a COMMIT without BEGIN": way("u", f"{A}; COMMIT; {BAD}"),
    "a text begins, others go on": way("ss", f"BEGIN; {A}", B, "COMMIT"),
    "a text begins, a text rolls back and does more": way("ru", f"BEGIN; {A}", f"{B}; ROLLBACK; {C}"),
    "a text commits what came before and fails": way("su", "BEGIN", A, f"COMMIT; {BAD}"),
    "a pipeline": way("sss", f"p:{A}|{B}", "SELECT count(*) FROM {t}1, {t}2"),
    "a pipeline that fails": way("rfs", f"p:{A}|{BAD}", B),
    "a pipeline with its own transaction": way("r", f"p:BEGIN|{A}|ROLLBACK"),
    "a needless ROLLBACK behind it": way("s", A, "ROLLBACK"),
    "a needless ROLLBACK behind what was extended": way("su", "SELECT 1", "x:" + A, "ROLLBACK"),
    "a needless COMMIT behind what was extended": way("ss", "SELECT 1", "x:" + A, "COMMIT"),
    "BEGIN twice": way("r", "BEGIN", A, "BEGIN", "ROLLBACK"),
    "denied": way("d", "DROP TABLE kept", role="other"),
    "denied in a transaction": way("rd", "BEGIN", A, "DROP TABLE kept", "COMMIT", role="other"),
    "denied behind a savepoint": way(
        "sd", "BEGIN", A, "SAVEPOINT a", "DROP TABLE kept", "ROLLBACK TO a", "COMMIT", role="other"
    ),
    "denied schema": way("d", "DROP SCHEMA pg_catalog CASCADE", role="other"),
    "denied database": way("d", "DROP DATABASE postgres", role="other"),
    "denied rename": way("d", "ALTER TABLE kept RENAME TO taken", role="other"),
    "denied truncate": way("d", "TRUNCATE kept", role="other"),
    "denied delete": way("d", "DELETE FROM kept", role="other"),
    "absent": way("f", "DROP TABLE never_was"),
    "absent, if it is there": way("s", "DROP TABLE IF EXISTS never_was"),
    "dropped and rolled back": way("sr", A, "BEGIN", "DROP TABLE {t}1", "ROLLBACK"),
    "truncated and rolled back": way("sr", A, "BEGIN", "TRUNCATE {t}1", "ROLLBACK"),
    "deleted and rolled back": way(
        "ssr", A, "INSERT INTO {t}1 VALUES (1)", "BEGIN", "DELETE FROM {t}1", "ROLLBACK"
    ),
    "deferred constraint fails at COMMIT": way(
        "sr", "CREATE TABLE {t}1(i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN", "INSERT INTO {t}1 VALUES (1), (1)", "COMMIT",
    ),
    "deferred constraint fails alone": way(
        "sf", "CREATE TABLE {t}1(i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO {t}1 VALUES (1), (1)"
    ),
    "deferred constraint fails alone, extended": way(
        "srfs", "CREATE TABLE {t}1(i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)",
        "x:INSERT INTO {t}1 VALUES (1), (1)", "SELECT 1",
    ),
    "a block catches its error": way(
        "s", f"DO $$BEGIN {A}; BEGIN PERFORM 1/0; EXCEPTION WHEN others THEN NULL; END; END$$"
    ),
    "a block fails": way("f", "DO $$BEGIN CREATE TABLE {t}1(i int); PERFORM 1/0; END$$"),
    "a block in a transaction that is rolled back": way("r", "BEGIN", f"DO $$BEGIN {A}; END$$", "ROLLBACK"),
    "what was read is read": way("ss", "BEGIN", "SELECT i FROM kept", "SELECT i FROM kept", "ROLLBACK"),
    "read after a write that is rolled back": way("rs", "BEGIN", A, "SELECT i FROM kept", "ROLLBACK"),
    "prepared and committed": way("ps", "BEGIN", A, "PREPARE TRANSACTION '{t}'", "COMMIT PREPARED '{t}'"),
    "prepared and rolled back": way("ps", "BEGIN", A, "PREPARE TRANSACTION '{t}'", "ROLLBACK PREPARED '{t}'"),
    "temporary": way("sss", "CREATE TEMP TABLE z(i int)", "TRUNCATE z", "DROP TABLE z"),
    "a role is made and rolled back": way("r", "BEGIN", "CREATE ROLE {t}1", "ROLLBACK", role="postgres"),
    "read only": way("f", "SET default_transaction_read_only = on", A),
    "cancelled by its timeout": way("f", "SET statement_timeout = 50", "CREATE TABLE {t}1 AS SELECT pg_sleep(9)"),
    "errors are kept out of the log": way(
        "u", "SET log_min_messages = log", "BEGIN", A, BAD, "COMMIT", role="postgres"
    ),
}  # fmt: skip
"""Every way by what it is called."""
