"""`pgwitness policy`: check what policies say, run their tests, try them, and run them over past evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import Row, console, emit, say
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.moments import when
from pgwitness.core.printable import visible

if TYPE_CHECKING:
    from detectors.policy.policies import Bundle
    from detectors.replay import Difference
    from pgwitness.core.config import Config

FOLDER = click.Path(path_type=Path)
policies_option = click.option(
    "--policies", "path", type=FOLDER, metavar="PATH", help="Other policies than policies.path."
)


@click.group(short_help="Check, test, try, replay and draft policies.")
def policy() -> None:
    """Check what policies say, run the tests beside them, try them, run them over past evidence, and draft one."""


@policy.command(short_help="Say what is wrong with policies.")
@policies_option
@json_option
@common
def check(path: Path | None, as_json: bool, config_path: Path) -> None:
    """Check every policy, and say what is wrong with each as FILE: POLICY: REASON.

    Names, functions, types, and values that cannot occur are checked. Exits 1 when anything is wrong.
    """
    from msgspec.structs import asdict

    from detectors.policy.files import lint

    config = configuration(config_path)
    policies, problems = lint(path or config.policies.path)
    if as_json:
        emit([asdict(problem) for problem in problems], as_json=True)
    else:
        for problem in problems:
            click.echo(": ".join(part for part in (problem.file, problem.policy, problem.reason) if part))
        say(f"{len(policies)} policies are in order, {len(problems)} are not")
    if problems:
        raise SystemExit(1)


@policy.command(short_help="Run the tests beside the policies.")
@policies_option
@json_option
@common
def test(path: Path | None, as_json: bool, config_path: Path) -> None:
    """Run the tests that stand beside the policies, and show how each policy came out. Exits 1 when one fails."""
    config = configuration(config_path)

    from detectors.policy.policies import Bundle

    bundle = Bundle.load(path or config.policies.path)
    failures: dict[str, list[str]] = {}
    for failure in bundle.run_tests():
        failures.setdefault(failure.policy, []).append(f"{failure.test}: {failure.problem}")
    rows: list[Row] = [
        {
            "policy": name,
            "severity": found.document.severity,
            "effect": found.document.effect,
            "mode": found.document.mode,
            "tests": len(found.document.tests),
            "failed": len(failures.get(name, [])),
            "failures": failures.get(name, []),
        }
        for name, found in bundle.policies.items()
    ]
    columns = ["policy", "severity", "effect", "mode", "tests", "failed", *(["failures"] if failures else [])]
    emit(rows, as_json=as_json, columns=columns, empty="no policies")
    if not as_json:
        tests = sum(len(found.document.tests) for found in bundle.policies.values())
        say(f"{tests} tests of {len(bundle.policies)} policies; bundle {bundle.sha256}")
    if failures:
        raise SystemExit(1)


@policy.command("try", short_help="Say what policies would decide on a statement, and why.")
@click.argument("sql")
@click.option("--as", "principal", metavar="PRINCIPAL", help="Who runs it, by a name that identities.yaml gives.")
@click.option("--for", "on_behalf_of", metavar="PERSON", help="For whom an agent or service acts.")
@click.option("--role", metavar="ROLE", help="The login role; else the one that the principal's rule asks for.")
@click.option("--cluster", metavar="NAME", help="Where it runs; else the only cluster there is.")
@click.option("--database", metavar="NAME", help="In which database; else the cluster's only one.")
@click.option("--rows", type=click.IntRange(0), metavar="N", help="How many rows it reads or changes.")
@click.option("--outcome", metavar="WORD", help="What comes of it: success, failure, denied, rolled_back, pending.")
@click.option("--at", metavar="TIME", help="When, such as 2026-03-29T01:30:00Z; else now.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only as seen so: statement, change, ddl …")
@click.option("--with", "fields", multiple=True, metavar="NAME=VALUE", help="Any field, such as new.client_addr=true.")
@policies_option
@click.option("--identities", type=FOLDER, metavar="FILE", help="Another file than identities.file.")
@click.option("--all", "every", is_flag=True, help="Show also the policies that do not nearly match.")
@json_option
@common
def try_(
    sql: str, path: Path | None, identities: Path | None, every: bool, as_json: bool, config_path: Path, **stated: Any
) -> None:
    """Say what the policies would decide on SQL, and why: what is seen of each statement, which policies match, part by
    part, and which lack one part only. Asks no server; what only a server knows is assumed, and said.

    Several statements run one after the other. Exits 1 when an active policy matches, or one cannot be evaluated.
    """
    from pgwitness.cli import policy_try

    config = configuration(config_path)
    given = policy_try.given(config, stated)
    tried = policy_try.run(config, given, sql, path, identities)
    policy_try.show(tried, every=every, as_json=as_json)
    if any(each.decided for each in tried):
        raise SystemExit(1)


@policy.command(short_help="Run policies over past evidence.")
@click.option("--since", metavar="WHEN", help="From when on: 2026-03-01, 2026-03-01T08:00:00Z, or 24h ago. Needed.")
@click.option("--until", metavar="WHEN", help="Up to when, exclusive; everything there is otherwise.")
@policies_option
@json_option
@common
def replay(since: str | None, until: str | None, path: Path | None, as_json: bool, config_path: Path) -> None:
    """Run policies over the evidence in the lake and show, policy by policy, what they find that was not found when it
    happened (added), what they do not find any more (removed), and what stays the same.

    Asks nothing but the lake: no database, no clock but for a WHEN such as `24h`, and the broker only to write down
    that the evidence was read.
    """
    import time

    config = configuration(config_path)
    if since is None:
        raise click.UsageError("--since WHEN is needed, such as --since 24h")

    from detectors.policy.policies import Bundle
    from pgwitness.cli.evidence import recorded

    bundle = Bundle.load(path or config.policies.path)
    now_us = time.time_ns() // 1000
    since_us = when(since, now_us)
    until_us = when(until, now_us) if until is not None else None
    if until_us is not None and until_us <= since_us:
        raise ConfigurationError("--until must be later than --since")
    with recorded(config, "replay", since=since, until=until, policies=str(path or config.policies.path)):
        difference = _replay(config, bundle, since_us, until_us)
    _show(difference, as_json)


@policy.command(short_help="Write the policy that would have refused what an alert told.")
@click.argument("uid")
@click.option("--out", type=FOLDER, metavar="FILE", help="Write it there, a new file; else it is printed.")
@click.option("--active", is_flag=True, help="Let it refuse at once; else it is staged, and only counts.")
@click.option("--since", default="30d", show_default=True, metavar="WHEN", help="From when on it is replayed.")
@common
def draft(uid: str, out: Path | None, active: bool, since: str, config_path: Path) -> None:
    """Write the policy, with its tests, that would have refused what the alert UID (or the beginning of its uid) told,
    and show what it would have stopped since.

    It is as narrow as what was told: this principal, these relations and operations, so many rows. Exits 1 where the
    alert is of something that nobody could have refused before it was done.
    """
    import time

    from detectors.policy import draft as drafting
    from detectors.policy.files import parse
    from detectors.policy.policies import Bundle
    from pgwitness.cli.alerts_triage import find
    from pgwitness.cli.evidence import recorded

    config = configuration(config_path)
    since_us = when(since, time.time_ns() // 1000)
    with recorded(config, "draft", uid=uid, since=since):
        alert = find(config, uid)
        try:
            text = drafting.draft(drafting.told(alert), active=active)
        except ValueError as error:
            raise NotInOrder(f"alert {uid}: {error}") from error
        bundle = Bundle(parse(text, "draft"))
        difference = _replay(config, bundle, since_us, None)
    if out is None:
        click.echo(text, nl=False)
    else:
        _written(out, text)
    _stopped(difference, bundle, since)


def _written(out: Path, text: str) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{out} is there already; --out names a new file") from None
    except OSError as error:
        raise ConfigurationError(f"{out}: cannot be written: {error}") from error
    say(f"written to {out}")


def _stopped(difference: Difference, bundle: Bundle, since: str) -> None:
    """Say what a draft would have stopped: what was found then and what was not is the same to it."""
    (name,) = bundle.policies
    found = next((one for one in difference.policies if one.policy == name), None)
    count = found.added + found.same if found is not None else 0
    say(f"{name} would have stopped {count:,} of {difference.actions:,} actions since {since}")
    for sample in found.samples_added if found is not None else ():
        say(visible(f"  {sample.event_id}  {sample.at}  {sample.sentence}"))


def _replay(config: Config, bundle: Bundle, since_us: int, until_us: int | None) -> Difference:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from detectors.replay import Replay
    from sinks.lake.opening import lake_store
    from sinks.sql.evidence import Evidence

    run = Replay(bundle, config, since_us, until_us)
    with Evidence(lake_store(config), run.from_us, until_us) as evidence:
        run.remember(evidence.last_seen())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(stderr=True), transient=True) as progress:
            task = progress.add_task("replaying", total=evidence.total())
            for past in evidence:
                run.take(past)
                progress.advance(task)
    return run.difference()


def _show(difference: Difference, as_json: bool) -> None:
    from msgspec import to_builtins

    if as_json:
        bundle = {"bundle_sha256": difference.bundle_sha256}
        emit([{**to_builtins(found), **bundle} for found in difference.policies], as_json=True)
        say(f"{difference.actions:,} actions judged by bundle {difference.bundle_sha256}")
        return
    rows: list[Row] = [
        {
            "policy": found.policy,
            "severity": found.severity,
            "added": found.added,
            "removed": found.removed,
            "same": found.same,
            "note": found.note,
        }
        for found in difference.policies
        if found.added or found.removed or found.same
    ]
    emit(rows, as_json=False, empty="no policy found anything, then or now")
    for found in difference.policies:
        for mark, samples, total in (
            ("+", found.samples_added, found.added),
            ("-", found.samples_removed, found.removed),
        ):
            for sample in samples:
                click.echo(visible(f"{mark} {found.policy}  {sample.event_id}  {sample.at}  {sample.sentence}"))
            if total > len(samples):
                click.echo(f"{mark} {found.policy}  and {total - len(samples):,} more")
    say(f"{difference.actions:,} actions judged by bundle {difference.bundle_sha256}")
