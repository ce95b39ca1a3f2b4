"""The doctor on what runs beside the databases: broker, topics, lake, masking key and policies."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, attempt, line
from pgwitness.core.errors import NotInOrder, PgwitnessError, Stop, Unreachable
from sinks.lake.storage.refusals import Refused

if TYPE_CHECKING:
    from pgwitness.core.config import Config
    from sinks.lake.storage.store import Store

LOST_SHARE_MAX = 0.01
"""Calls that may be missing in the log before it is said: a text that holds several statements is one line of it."""
LOST_LINES = """
SELECT cluster, instance, CAST(sum(calls) AS BIGINT), CAST(sum(missing) AS BIGINT)
FROM statements_covered(CAST(now() AS DATE) - 1, CAST(now() AS DATE)) WHERE status = 'logged' GROUP BY ALL ORDER BY ALL
"""


def kafka(config: Config, findings: list[Line]) -> None:
    """Reach the broker and hold the topics against what they should be."""
    from pgwitness.cli import kafka as client
    from streams.kafka import admin

    try:
        client.reach(config)
        found = admin.check(config)
    except Unreachable as error:
        findings.append(line("kafka", "broker", "unreachable", str(error)))
        return
    findings.append(line("kafka", "broker", "ok", config.kafka.bootstrap))
    wrong = [item for item in found if not item.in_order]
    findings += [
        line("kafka", item.topic, "error", f"{item.state}: {item.detail}", "pgwitness topics apply") for item in wrong
    ]
    if not wrong:
        findings.append(line("kafka", "topics", "ok", f"{len(found)} topics"))
    _rights(config, findings)


def _rights(config: Config, findings: list[Line]) -> None:
    """Say what this account may not do, where it has the name of one that must."""
    from streams.kafka.acls import acls, lacking

    account = config.kafka.settings.get("sasl.username", "")
    try:
        missing = lacking(config)
    except PgwitnessError as error:
        findings.append(line("kafka", "rights", "warning", str(error)))
        return
    able = sorted({acl.account for acl in acls(config)} - missing.keys())
    for name, what in missing.items():
        if name == account:
            fix = "give it what `pgwitness topics apply --print` lists"
            findings.append(line("kafka", f"rights of {name}", "error", f"not allowed: {'; '.join(what)}", fix))
    if missing:
        who = account or "this account"
        findings.append(line("kafka", "rights", "info", f"{who} may do the work of: {', '.join(able) or 'none'}"))


def lake(config: Config, findings: list[Line]) -> None:
    """Say what is in the lake, and whether the worker may write to it."""
    from sinks.lake.opening import lake_store

    store = lake_store(config)

    def check() -> str:
        from sinks.sql.catalogue import connect

        path = store.path
        if not _there(store):
            return f"{path}: none yet, the worker makes it"
        connection = connect(store)
        try:
            row = connection.execute("SELECT count(*), max(captured_at) FROM events").fetchone()
        finally:
            connection.close()
        assert row is not None
        return f"{path}: {row[0]:,} events, the last of {row[1]}" if row[0] else f"{path}: empty"

    attempt("lake", "lake", findings, check)
    try:
        there = _there(store)
    except (NotInOrder, Unreachable):
        return
    findings += _listed(store)
    if there:
        findings += _cut_off(config, store)
        findings += lost_lines(config)


SMALL_FILES_MAX = 1_000
"""What a compactor leaves of a lake that is written every minute is far below."""


def _there(store: Store) -> bool:
    """Say whether a worker has made the lake. Raise `NotInOrder` where its storage does not answer."""
    try:
        return store.has("views.sql")
    except Refused as error:
        raise (Unreachable if error.unreachable else NotInOrder)(f"{error}: {error.advice}") from error


def _listed(store: Store) -> list[Line]:
    """Say what the lake's log names and the lake does not have, and what the lake has and its log does not name."""
    from sinks.lake.compaction.plan import is_small
    from sinks.lake.views.listing import Listing

    listing = Listing(store)
    try:
        listing.refresh()
    except Stop as error:
        return [line("lake", "log", "error", str(error), "restore it from a copy; nothing can be asked until then")]
    found = []
    restore = "restore from a copy of the lake; queries that need them fail until then"
    stop = "stop the worker of version 0.1 that wrote them, and start one of this version on another lake.path"
    remove = (
        "nobody reads them: a crash left them, somebody put them there, or the log was put back from a copy and has "
    )
    remove += "forgotten them; look which, and delete what a crash left by `pgwitness lake compact --orphans`"
    small = [file.path for file in listing.live() if is_small(file)]
    if len(small) > SMALL_FILES_MAX:
        fix = "run `pgwitness lake compact --every 10m` beside the worker, as its user; or look why it does not come on"
        found.append(line("lake", "compaction", "warning", f"{len(small):,} small files: questions get slow", fix))
    for state, what, names, fix in (
        ("error", "files missing", listing.missing(), restore),
        ("error", "partitions landed by an older worker after the lake was taken over", listing.late(), stop),
        ("warning", "files are in no entry", listing.strange(), remove),
    ):
        if names:
            found.append(line("lake", "log", state, f"{len(names)} {what}, such as {names[0]}", fix))
    return found


def _cut_off(config: Config, store: Store) -> list[Line]:
    """Say when the lake's log was longer once, as its snapshots or its seal know."""
    from sinks.lake.compaction import whole
    from sinks.lake.log.on_store import Reader, newest_entry, newest_snapshot
    from sinks.seal.opening import is_sealed, sealed_to

    fix = "restore the folder _log from a newer copy of the lake; until then nothing is compacted or retired"
    try:
        if newest_entry(store) < 0 and newest_snapshot(store) < 0:
            return []  # of version 0.1, and no worker has taken it over
        whole.refresh(store.path, store, Reader(store), lambda: sealed_to(config) if is_sealed(config) else None)
    except NotInOrder as error:
        return [line("lake", "log", "error", str(error), fix)]
    except (ValueError, OSError) as error:
        fix = "give this user the right to read the seal, or look what the sealer says"
        return [line("lake", "seal", "warning", f"the seal could not be read: {error}", fix)]
    except Stop:
        pass  # `_listed` says so
    return []


def lost_lines(config: Config) -> list[Line]:
    """Say of each server that logs its statements how much of what statistics counted is missing from its log."""
    from sinks.lake.opening import lake_store
    from sinks.sql.catalogue import connect

    try:
        connection = connect(lake_store(config))
    except PgwitnessError:
        return []  # the check of the lake says so
    try:
        rows = connection.execute(LOST_LINES).fetchall()
    finally:
        connection.close()
    lines = []
    for cluster, instance, calls, missing in rows:
        lost = missing > LOST_SHARE_MAX * calls
        found = f"{missing:,} of {calls:,} calls since yesterday ({missing / calls:.1%}) are not in the log"
        fix = "see the view statement_coverage for which; look for gaps of the log, settings of sessions, sampling"
        lines.append(
            line(f"{cluster} {instance}", "server log", "warning" if lost else "ok", found, fix if lost else "")
        )
    return lines


def files(config: Config, findings: list[Line]) -> None:
    """Read the masking key, the keys that tokens are believed by, and the policies, and run the policies' tests."""

    def key() -> str:
        from pgwitness.core.privacy import load_key

        load_key(config.privacy.key_file)
        return str(config.privacy.key_file)

    def policies() -> str:
        from detectors.policy.policies import Bundle

        bundle = Bundle.load(config.policies.path)
        failures = bundle.run_tests()
        if failures:
            first = failures[0]
            raise NotInOrder(f"{first.policy}: test {first.test!r} {first.problem}; correct the policy or its test")
        return f"{len(bundle.policies)} policies, their tests hold"

    def claims(path: Path) -> str:
        from collectors.tokens import load_keys

        keys = load_keys(path)
        return f"{path}: {len(keys)} for {', '.join(sorted({key.algorithm for key in keys}))}"

    def subjects() -> str:
        from pgwitness.core.subjects import load

        load(config.privacy.subject_key_file)
        return f"{config.privacy.subject_key_file}: keys of those whom {', '.join(config.privacy.subjects)} name"

    attempt("files", "masking key", findings, key)
    if config.privacy.subjects:
        attempt("files", "keys of data subjects", findings, subjects)
    if config.identities.claims_keys is not None:
        attempt("files", "claims keys", findings, partial(claims, config.identities.claims_keys))
    attempt("files", "policies", findings, policies)
