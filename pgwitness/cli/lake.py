"""`pgwitness lake`: what keeps a lake fast and small, once or as daemons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.lake_export import export
from pgwitness.cli.options import common, configuration, http_options, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgwitness.core.config import Config
    from sinks.lake.compaction.compactor import Compactor, Done
    from sinks.lake.compaction.retainer import Retainer


@click.group()
def lake() -> None:
    """Maintain the evidence lake, and take evidence out of it."""


lake.add_command(export)


@lake.command(short_help="Put small files together; delete what they were put together from.")
@click.option("--every", metavar="DURATION", help="Go on as a daemon, a round every so often, such as 10m.")
@click.option("--print", "only_print", is_flag=True, help="Only say what would be done first.")
@click.option("--orphans", is_flag=True, help="Delete files older than a day that no entry names, too; once.")
@http_options
@json_option
@common
def compact(
    every: str | None,
    only_print: bool,
    orphans: bool,
    as_json: bool,
    host: str | None,
    port: int | None,
    config_path: Path,
) -> None:
    """Let commits become days, and days months: fewer and larger files, sorted, with the same rows.

    Files that were replaced are deleted after lake.grace and, where the lake is sealed, once a checkpoint covers that.
    Exits 1 when a file is missing or is not what its entry says: it is left as it is; and when the log was longer once:
    then nothing is done.
    """
    config = configuration(config_path)
    every_s = _duration(every)
    if orphans and every_s is not None:
        raise ConfigurationError("--orphans with --every: a daemon deletes nothing that no entry names; run it once")
    compactor = _compactor(config, orphans)
    if only_print:
        _show(compactor, as_json)
        return
    if every_s is None:
        done = compactor.run()
        _tell(done, compactor, as_json, orphans)
        if done.refused:
            raise click.exceptions.Exit(1)
        return

    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.lake.compaction.daemon import compacting, run

    bind = config.http.compact_port if port is None else port
    with daemon("compact", host or config.http.host, bind) as (stop, health):
        run("compact", compacting(compactor), every_s, health, stop)
    finish(0)


@lake.command(short_help="Retire what [retention] keeps no longer.")
@click.option("--every", metavar="DURATION", help="Go on as a daemon, a round every so often, such as 1h.")
@click.option("--print", "only_print", is_flag=True, help="Only say what would be retired.")
@http_options
@json_option
@common
def retain(
    every: str | None, only_print: bool, as_json: bool, host: str | None, port: int | None, config_path: Path
) -> None:
    """Take files out of the lake whose rows are all older than [retention] keeps them, unless they are held.

    The lake's log keeps path, hash, number of rows and the reason for ever; the files are deleted after lake.grace and,
    where the lake is sealed, once a checkpoint covers that.
    """
    config = configuration(config_path)
    every_s = _duration(every)
    retainer = _retainer(config)
    if only_print:
        rows = [
            {"path": file.path, "rows": file.rows, "bytes": file.bytes, "reason": reason}
            for reason, files in retainer.due().items()
            for file in files
        ]
        emit(rows, as_json=as_json, empty="nothing to retire")
        return
    if every_s is None:
        done = retainer.run()
        if as_json:
            import msgspec

            emit([msgspec.structs.asdict(done)], as_json=True)
        else:
            say(f"{done.retired} files with {done.rows} rows retired; {done.removed} files deleted")
        return

    from pgwitness.cli.daemon import daemon
    from pgwitness.cli.signals import finish
    from sinks.lake.compaction.daemon import retaining, run

    bind = config.http.retain_port if port is None else port
    with daemon("retain", host or config.http.host, bind) as (stop, health):
        run("retain", retaining(retainer), every_s, health, stop)
    finish(0)


_by = click.option("--by", metavar="NAME", help="Who says so; by default this user and host.")


@lake.command(short_help="Hold evidence: nothing of it goes until it is released.")
@click.option("--why", required=True, metavar="TEXT", help="Why; it stands in the lake for ever.")
@_by
@click.option("--from", "first_day", metavar="DAY", help="The first day of capture (UTC), such as 2026-09-22.")
@click.option("--to", "last_day", metavar="DAY", help="The last day of capture.")
@click.option("--principal", metavar="NAME", help="Whatever may have events of this principal, or on their behalf.")
@click.option("--relation", metavar="NAME", help="Whatever may have rows of this relation, as schema.table.")
@common
def hold(
    why: str,
    by: str | None,
    first_day: str | None,
    last_day: str | None,
    principal: str | None,
    relation: str | None,
    config_path: Path,
) -> None:
    """Hold days, or what may hold rows of a principal or relation, and print the id of the hold.

    Files are held as a whole. A principal stands in the lake's log by its token, never by its name.
    """
    config = configuration(config_path)
    token = None
    if principal is not None:
        from pgwitness.core.privacy import load_key, tokenizer

        token = tokenizer(load_key(config.privacy.key_file))(principal.encode()).decode()
    name = _retainer(config).hold(
        by or _somebody(), why, first_day=first_day, last_day=last_day, principal=token, relation=relation
    )
    click.echo(name)


@lake.command(short_help="End a hold.")
@click.argument("name", metavar="ID")
@click.option("--why", required=True, metavar="TEXT", help="Why; it stands in the lake for ever.")
@_by
@common
def release(name: str, why: str, by: str | None, config_path: Path) -> None:
    """End the hold ID: what it held may be compacted and retired again."""
    _retainer(configuration(config_path)).release(name, by or _somebody(), why)
    say(f"{name} is released")


@lake.command(short_help="List the holds that stand.")
@json_option
@common
def holds(as_json: bool, config_path: Path) -> None:
    """List what is held, by whom and why; of a principal its token."""
    rows = [
        {
            "id": one.id,
            "by": one.by,
            "why": one.why,
            "from": one.first_day,
            "to": one.last_day,
            "principal": one.principal,
            "relation": one.relation,
        }
        for one in _retainer(configuration(config_path)).holds()
    ]
    emit(rows, as_json=as_json, empty="nothing is held")


def _somebody() -> str:
    import getpass
    import os
    import socket

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _retainer(config: Config) -> Retainer:
    from sinks.lake.compaction.retainer import Retainer
    from sinks.lake.compaction.retention import Terms
    from sinks.lake.opening import open_lake

    kept = config.retention
    tables = {"events": kept.events, "rows": kept.rows, "alerts": kept.alerts}
    terms = Terms({name: seconds for name, seconds in tables.items() if seconds is not None}, kept.kinds)
    return Retainer(
        config.lake.path,
        open_lake(config).store,
        terms=terms,
        grace_s=config.lake.grace,
        sealed=_sealed(config),
    )


def _duration(text: str | None) -> float | None:
    from pgwitness.core.units import Duration

    try:
        return None if text is None else Duration.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--every: {error}") from error


def _compactor(config: Config, orphans: bool) -> Compactor:
    from sinks.lake.compaction.compactor import Compactor
    from sinks.lake.compaction.plan import Sizes
    from sinks.lake.opening import open_lake

    opened = open_lake(config)
    sizes = Sizes(apart=tuple(sorted(config.retention.kinds)))
    return Compactor(
        config.lake.path,
        opened.store,
        grace_s=config.lake.grace,
        sizes=sizes,
        sealed=_sealed(config),
        orphans=orphans,
    )


def _sealed(config: Config) -> Callable[[], int | None]:
    """Say how far the lake is sealed, None where it is not to be."""
    from pgwitness.core.errors import NotInOrder
    from sinks.seal.opening import is_sealed, sealed_to

    def sealed() -> int | None:
        try:
            return sealed_to(config) if is_sealed(config) else None
        except (ValueError, OSError) as error:
            raise NotInOrder(
                f"the lake's seal could not be read ({error}): nothing is replaced, retired or deleted until it can"
            ) from error

    return sealed


def _show(compactor: Compactor, as_json: bool) -> None:
    rows = [
        {
            "table": job.table,
            "place": job.place,
            "becomes": job.level.name.lower(),
            "files": len(job.inputs),
            "rows": job.rows,
            "bytes": sum(file.bytes for file in job.inputs),
            "buckets": job.buckets,
        }
        for job in compactor.planned()
    ]
    emit(rows, as_json=as_json, empty="nothing to compact")


def _tell(done: Done, compactor: Compactor, as_json: bool, orphans: bool) -> None:
    import msgspec

    if as_json:
        emit([{**msgspec.structs.asdict(done), "live": compactor.live}], as_json=True)
        return
    what = f"{done.replaced} files became {done.made} ({done.rows} rows)" if done.jobs else "nothing to compact"
    say(f"{what}, {compactor.live} count now; {done.removed} replaced files deleted")
    if done.orphans and orphans:
        say(f"{done.orphans} files that no entry names and that were older than a day are deleted")
    elif done.orphans:
        say(
            f"{done.orphans} files older than a day are in no entry: `pgwitness doctor` names one. What a crash left "
            "can be deleted (--orphans); if the log was put back from a copy they may be evidence, so look first"
        )
    for why in done.refused:
        say(f"left as it is: {why}")
