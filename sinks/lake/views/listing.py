"""Which files of a lake count: those that are live by its chain, and no other.

A file that somebody puts beside them, a copy under another name, or one that was never committed is in no entry and is
never read. `Listing` follows the chain to its end; `variables_sql` reads the newest snapshot in SQL, for a DuckDB that
has only `views.sql`. A file that should be there and is not is never passed over: the query fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from sinks.lake import manifest
from sinks.lake.log import layout, snapshots
from sinks.lake.log.chain import File, State
from sinks.lake.log.on_store import Reader
from sinks.lake.log.removed import taken_out
from sinks.lake.rows.schema import SCHEMA_VERSION, TABLES
from sinks.lake.storage.store import Folder, Store, at

EMPTY_DAY = "0001-01-01"
"""The day of the files without rows: none that an event can have, so that no row in them is believed."""
NOT_WHOLE = "the snapshot of head.json is missing or not whole, run the last part of views.sql again"
"""In the place of a file's name, so that a query fails by it."""
STANDING = "pgwitness_standing"
"""The variable that holds, as JSON, what the log says besides files: `retired` and `holds`, as a snapshot has them."""
NOTHING_STANDS = '{"retired":[],"holds":[]}'


def empty_file(table: str) -> str:
    """Name the file without rows that every table has: it carries the columns where no other file does yet."""
    return f"{table}/dt={EMPTY_DAY}/empty.parquet"


def old_empty_file(table: str) -> str:
    """Name it as versions before did: in the day of events that came before any record had a time."""
    return f"{table}/dt=1970-01-01/empty.parquet"


class Part(NamedTuple):
    """The files of a table that are read in one way: with today's columns or older ones, of days or of months."""

    table: str
    older: bool = False
    months: bool = False

    @property
    def variable(self) -> str:
        """The variable of DuckDB that holds their list."""
        return f"pgwitness_{self.table}{'_months' * self.months}{'_older' * self.older}"

    def takes(self, file: File) -> bool:
        """Say whether a file is one of them."""
        return (
            file.table == self.table
            and self.older == (file.schema_version < SCHEMA_VERSION)
            and self.months == layout.is_month(file.path)
        )

    def listed(self, paths: list[str]) -> list[str]:
        """Give the list that reads these files: never an empty one, and first the file that says the columns."""
        return paths if paths and self.months else [empty_file(self.table), *paths]


PARTS = [Part(table, older, months) for table in TABLES for months in (False, True) for older in (False, True)]
BY_BUCKET = {Part("events", older, months=True): f"pgwitness_buckets{'_older' * older}" for older in (False, True)}
"""The variables that hold, for each of `layout.BUCKETS_MAX` buckets, the files of months that may have a principal."""


class Listing:
    """The files of a lake, as its chain grows. Not for several threads.

    A lake that version 0.1 wrote and no worker has taken over is read by its manifest, each time anew.
    """

    def __init__(self, lake: Path | Store) -> None:
        self.store = at(lake.resolve() if isinstance(lake, Path) else lake)
        self._reader = Reader(self.store)
        self._old: list[File] = []

    def refresh(self) -> bool:
        """Read what has come; gives whether any table has other files than before.

        Raises `Stop` when an entry is damaged, missing, or does not follow the one before it.
        """
        changed = self._reader.refresh()
        if self._reader.state.number >= 0:
            return changed
        before = self._old
        if isinstance(self.store, Folder):
            gathered = manifest.gather(self.store.path)
            self._old = [
                file
                for file, (named, _) in zip(manifest.as_files(gathered), gathered.files, strict=True)
                if self.store.has(file.path) or not manifest.is_there(self.store.path, named)
            ]
        return before != self._old

    @property
    def state(self) -> State:
        """What the log amounts to as of the last `refresh`."""
        return self._reader.state

    def live(self) -> list[File]:
        """List the files that count."""
        return list(self._reader.state.live.values()) if self._reader.state.number >= 0 else self._old

    def lists(self) -> dict[str, list[str]]:
        """Give the lists of files, relative to the lake, by the names of the variables that hold them."""
        live = self.live()
        return {part.variable: part.listed(_paths(part, live)) for part in PARTS}

    def standing(self) -> str:
        """Give what the variable `STANDING` holds."""
        state = self._reader.state
        said = {
            "retired": [state.retired[key] for key in sorted(state.retired)],
            "holds": [state.holds[name] for name in sorted(state.holds)],
        }
        return msgspec.json.encode(said).decode()

    def lists_by_bucket(self) -> dict[str, list[list[str]]]:
        """Give, by the names of variables, a list of the files of months that may hold principals of each bucket."""
        found = {}
        for part, name in BY_BUCKET.items():
            named = [(path, layout.bucket_in(path)) for path in _paths(part, self.live())]
            found[name] = [
                part.listed([path for path, its in named if layout.may_hold(its, bucket)])
                for bucket in range(layout.BUCKETS_MAX)
            ]
        return found

    def missing(self) -> list[str]:
        """List files that should be there and are not."""
        there = {name for table in TABLES for name, _ in self.store.walk(table)}
        return sorted(file.path for file in self.live() if file.path not in there)

    def strange(self) -> list[str]:
        """List Parquet files that no entry names: planted, copied, or left by a commit that never was."""
        known = {file.path for file in self.live()} | {empty_file(table) for table in TABLES}
        if not self.store.has(empty_file("events")):  # a worker of before made the lake
            known |= {old_empty_file(table) for table in TABLES}
        found = {
            name: written_us
            for table in TABLES
            for name, written_us in self.store.walk(table)
            if name.endswith(".parquet") and name not in known
        }
        taken = taken_out(self.store, self._reader.state.number, found) or {}
        return sorted(found.keys() - taken.keys())

    def late(self) -> list[str]:
        """List entries of the old manifest that came after the lake was taken over: what they land is not read."""
        if self._reader.state.number < 0 or not isinstance(self.store, Folder):
            return []
        gathered = manifest.gather(self.store.path)
        ends = self._reader.state.ends
        return sorted(
            f"{topic}-{partition}"
            for (topic, partition), (entry, _) in gathered.ends.items()
            if (topic, partition) not in ends or ends[topic, partition].end < entry.end
        )


def _paths(part: Part, live: list[File]) -> list[str]:
    return sorted(file.path for file in live if part.takes(file))


def variables_sql(root: str = "") -> str:
    """Write the statements that list the files of all tables; names begin with `root`, empty in the lake's folder.

    They are all `SET VARIABLE`, so that whoever reads only, or keeps a connection, runs them again to see what is new.
    They must not leave an older list, an empty one or a part: DuckDB reads a text that is not there as no row, and goes
    on behind an error. Until a snapshot has proved whole the variables name a file that says so and that nobody has.
    """
    number, whole = "getvariable('pgwitness_number')", "getvariable('pgwitness_whole')"
    files = '[{"table":"VARCHAR","path":"VARCHAR","schema_version":"INTEGER"}]'
    tables = ", ".join(f"'{table}'" for table in TABLES)
    lines = [
        "SET VARIABLE pgwitness_number = -1;",
        "SET VARIABLE pgwitness_whole = false;",
        "SET VARIABLE pgwitness_snapshot = NULL;",
        "SET VARIABLE pgwitness_live = NULL;",
        f"SET VARIABLE {STANDING} = '{NOT_WHOLE}';",
        *(f"SET VARIABLE {part.variable} = ['{NOT_WHOLE}'];" for part in PARTS),
        *(f"SET VARIABLE {name} = [['{NOT_WHOLE}']];" for name in BY_BUCKET.values()),
        "SET VARIABLE pgwitness_number = (SELECT (content ->> 'number')::BIGINT "
        f"FROM read_text('{root}{snapshots.HEAD}'));",
        f"SET VARIABLE pgwitness_base_number = {number} - {number} % {snapshots.BASE_EVERY};",
        f"SET VARIABLE pgwitness_base = printf('{root}{snapshots.FOLDER}/base-%012d.json', "
        "getvariable('pgwitness_base_number')::BIGINT);",
        f"SET VARIABLE pgwitness_tail = printf('{root}{snapshots.FOLDER}/tail-%012d.json', {number}::BIGINT);",
        "SET VARIABLE pgwitness_snapshot = (SELECT list({'tail': t.content, 'base': b.content})\n"
        "    FROM read_text(getvariable('pgwitness_tail')) AS t, read_text(getvariable('pgwitness_base')) AS b);",
        "SET VARIABLE pgwitness_live = (\n"
        "    WITH snapshot AS (SELECT unnest(getvariable('pgwitness_snapshot'), recursive := true)),\n"
        "    removed AS (SELECT unnest(from_json(tail -> 'removes', '[\"VARCHAR\"]')) AS path FROM snapshot),\n"
        f"    below AS (SELECT unnest(from_json(base -> 'files', '{files}')) AS file FROM snapshot),\n"
        f"    above AS (SELECT unnest(from_json(tail -> 'files', '{files}')) AS file FROM snapshot)\n"
        "    SELECT coalesce(list(file), []) FROM (\n"
        "        FROM above UNION ALL SELECT file FROM below ANTI JOIN removed ON file.path = removed.path));",
        "SET VARIABLE pgwitness_whole = (\n"
        f"    SELECT count(*) = 1 AND bool_and((tail ->> 'number')::BIGINT = {number}\n"
        "        AND (tail ->> 'base')::BIGINT = getvariable('pgwitness_base_number')\n"
        "        AND (base ->> 'number')::BIGINT = getvariable('pgwitness_base_number'))\n"
        "    FROM (SELECT unnest(getvariable('pgwitness_snapshot'), recursive := true))\n"
        ") AND (\n"
        "    SELECT count(*) = count(DISTINCT path) AND count(*) = count(schema_version)\n"
        f'        AND count(*) = count(*) FILTER ("table" IN ({tables}) AND regexp_full_match(path,\n'
        "         \"table\" || '/(dt=[0-9]{4}-[0-9]{2}-[0-9]{2}|month=[0-9]{4}-[0-9]{2})/[A-Za-z0-9_.-]+[.]parquet'))\n"
        "    FROM (SELECT unnest(getvariable('pgwitness_live'), recursive := true)));",
        *(_one_list(part, whole) for part in PARTS),
        *(_lists_by_bucket(part, name, whole) for part, name in BY_BUCKET.items()),
        f"SET VARIABLE {STANDING} = CASE WHEN {whole} THEN (\n"
        "    SELECT json_object('retired', coalesce(tail -> 'retired', '[]'::JSON),\n"
        "        'holds', tail -> 'holds')::VARCHAR\n"
        "    FROM (SELECT unnest(getvariable('pgwitness_snapshot'), recursive := true)))\n"
        f"    ELSE '{NOT_WHOLE}' END;",
        *_rooted(root),
    ]
    return "\n".join(lines) + "\n"


def _one_list(part: Part, whole: str) -> str:
    listed = "coalesce(list(path ORDER BY path), [])"
    nothing = f"['{empty_file(part.table)}']"
    several = f"coalesce(list(path ORDER BY path), {nothing})" if part.months else f"{nothing} || {listed}"
    return (
        f"SET VARIABLE {part.variable} = CASE WHEN {whole} THEN (\n"
        f"    SELECT {several} FROM (SELECT unnest(getvariable('pgwitness_live'), recursive := true))\n"
        f"    WHERE \"table\" = '{part.table}' AND schema_version {'<' if part.older else '>='} {SCHEMA_VERSION}\n"
        f"        AND {'' if part.months else 'NOT '}contains(path, '/month='))\n"
        f"    ELSE ['{NOT_WHOLE}'] END;"
    )


def _lists_by_bucket(part: Part, name: str, whole: str) -> str:
    return (
        f"SET VARIABLE {name} = CASE WHEN {whole} THEN (\n"
        "    SELECT list(files ORDER BY bucket) FROM (\n"
        f"        SELECT bucket, coalesce(list(path ORDER BY path) FILTER (path IS NOT NULL), "
        f"['{empty_file(part.table)}']) AS files\n"
        f"        FROM range({layout.BUCKETS_MAX}) AS of(bucket) LEFT JOIN (\n"
        f"            SELECT path, regexp_extract(path, '/{layout.BUCKET_NAME}$', ['own', 'count']) AS named\n"
        f"            FROM (SELECT unnest(getvariable('{part.variable}')) AS path)\n"
        "        ) ON named.own = '' OR bucket % named.count::BIGINT = named.own::BIGINT\n"
        "        GROUP BY bucket))\n"
        f"    ELSE [['{NOT_WHOLE}']] END;"
    )


def _rooted(root: str) -> list[str]:
    """Write the statements that put `root` before all names."""
    if not root:
        return []
    one, several = f"lambda f: '{root}' || f", f"lambda l: list_transform(l, lambda f: '{root}' || f)"
    named = {part.variable: one for part in PARTS} | dict.fromkeys(BY_BUCKET.values(), several)
    return [
        f"SET VARIABLE {name} = list_transform(getvariable('{name}'), {prefixed});" for name, prefixed in named.items()
    ]


def variables_empty(root: str = "") -> str:
    """Write the statements that name only the files without rows: while views are made, nothing is opened for them."""
    nothing = {part.variable: f"['{empty_file(part.table)}']" for part in PARTS}
    nothing |= {name: f"[['{empty_file(part.table)}']]" for part, name in BY_BUCKET.items()}
    nothing[STANDING] = f"'{NOTHING_STANDS}'"
    return "".join(
        f"{line}\n"
        for line in (*(f"SET VARIABLE {name} = {value};" for name, value in nothing.items()), *_rooted(root))
    )
