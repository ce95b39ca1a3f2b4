"""Random alterations of a sealed lake, each of which `verify` has to find; `make alterations` tries a thousand.

Whoever alters knows the format and can write everywhere, but has no key, and not what the auditor keeps: a public key
and a checkpoint.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.log import chain, snapshots
from sinks.lake.log.chain import Entry, Land, Replace, Retire, State
from sinks.lake.log.on_store import Log
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.seal.tlog.tiles import Edge, grown
from tests.sinks.seal.altered_world import Alteration, World, live
from tests.sinks.seal.material import OTHER_KEY, checkpoint, sealer, verified


def write(path: Path, content: bytes) -> None:
    """Write a file of a copy, whose files are links to the original's."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _some(lake: Path, chance: random.Random, *patterns: str) -> Path:
    found = sorted(path for pattern in patterns for path in lake.glob(pattern) if path.is_file())
    counted = {lake / file.path for file in live(lake)}
    return chance.choice([path for path in found if path.suffix != ".parquet" or path in counted])


EVERYTHING = (
    "_log/**/*.json", "_snapshots/*.json", "head.json", "views.sql", "seal/tile/**/*", "seal/checkpoint",
    "*/*/*.parquet",
)  # fmt: skip
DATA = ("*/dt=*/*.parquet",)


def flip_bit(world: World, lake: Path, chance: random.Random) -> str:
    """Flip a bit of any file."""
    path = _some(lake, chance, *EVERYTHING)
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    write(path, bytes(content))
    return f"{path.relative_to(lake)}: bit {place}"


def cut(world: World, lake: Path, chance: random.Random) -> str:
    """Cut the end off a file, or put something behind it."""
    path = _some(lake, chance, *EVERYTHING)
    content = path.read_bytes()
    write(path, content[: -chance.randint(1, len(content))] if chance.random() < 0.5 else content + b"\n")
    return str(path.relative_to(lake))


def drop(world: World, lake: Path, chance: random.Random) -> str:
    """Remove a file that readers or the log need."""
    path = _some(lake, chance, *DATA, "_log/**/*.json", "head.json", "views.sql", "seal/tile/**/*", "seal/checkpoint")
    if "seal/tile" in str(path) and not _needed(lake, path):
        path = lake / "seal" / "checkpoint"
    path.unlink()
    return str(path.relative_to(lake))


def _needed(lake: Path, path: Path) -> bool:
    """A partial file of an earlier checkpoint may go, once a later one is there."""
    size = int(checkpoint(lake).split(b"\n")[1])
    return ".p/" not in str(path) or path.name == str(size % 256) or path.parts[-3] == "1"


def rewrite_row(world: World, lake: Path, chance: random.Random) -> str:
    """Put another principal into a row, with everything else as it was."""
    path = _some(lake, chance, "events/dt=2*/*.parquet")
    table = pq.ParquetFile(path).read()
    at = table.column_names.index("role")
    table = table.set_column(at, table.schema.field(at), pa.array(["somebody"] * len(table), pa.string()))
    path.unlink()
    pq.write_table(table, path)
    return str(path.relative_to(lake))


def edit_entry(world: World, lake: Path, chance: random.Random) -> str:
    """Let an entry say something else."""
    number = chance.randrange(len(list(lake.glob("_log/0*/*/*.json"))))
    path = lake / chain.entry_name(number)
    entry = chain.decode(path.read_bytes(), number)
    edited = msgspec.structs.replace(entry, at_us=entry.at_us - chance.randint(1, 10**9))
    write(path, chain.encode(edited)[0])
    return f"entry {number}"


def swap_entries(world: World, lake: Path, chance: random.Random) -> str:
    """Let two entries change their places."""
    count = len(list(lake.glob("_log/0*/*/*.json")))
    one, two = (lake / chain.entry_name(number) for number in chance.sample(range(count), 2))
    first, second = one.read_bytes(), two.read_bytes()
    write(one, second)
    write(two, first)
    return f"{one.name} and {two.name}"


def rewrite_chain(world: World, lake: Path, chance: random.Random) -> str:
    """Take a commit out of the history: everything behind it written anew, snapshots included, but for the key."""
    entries = [chain.decode((lake / chain.entry_name(n)).read_bytes(), n) for n in range(_count(lake))]
    counted = {file.path for file in live(lake)}  # of the others, a later entry would not follow
    lands = [one.number for one in entries if isinstance(one, Land) and all(file.path in counted for file in one.files)]
    gone = chance.choice(lands)
    _write_chain(lake, entries, gone)
    how = chance.choice(["keep the seal", "seal again with another key", "no seal", "tiles made again"])
    if how == "seal again with another key":
        shutil.rmtree(lake / "seal")
        _own_seal(lake)
    elif how == "no seal":
        shutil.rmtree(lake / "seal")
    elif how == "tiles made again":
        shutil.rmtree(lake / "seal" / "tile")
        for name, content in grown(
            Edge(), [], [(lake / chain.entry_name(n)).read_bytes() for n in range(_count(lake))]
        ):
            write(lake / "seal" / name, content)
    return f"without entry {gone}, {how}"


def _own_seal(lake: Path) -> None:
    memory = lake.parent / "forger"
    shutil.rmtree(memory, ignore_errors=True)
    sealer(lake, memory, OTHER_KEY).round()


def _count(lake: Path) -> int:
    return len(list(lake.glob("_log/0*/*/*.json")))


def _write_chain(lake: Path, entries: list[Entry], gone: int) -> None:
    state, removed = State(), {file.path for file in getattr(entries[gone], "files", [])}
    for path in (*lake.glob("_log/0*/*/*.json"), *lake.glob("_snapshots/*"), lake / "head.json"):
        path.unlink()
    for old in entries:
        if old.number == gone:
            continue
        entry = msgspec.structs.replace(old, number=state.number + 1, predecessor=state.sha256)
        if isinstance(entry, Replace):
            entry = msgspec.structs.replace(entry, removes=[path for path in entry.removes if path not in removed])
        elif isinstance(entry, Retire):
            kept = [one for one in entry.removes if one.path not in removed]
            entry = msgspec.structs.replace(entry, removes=kept)
        elif isinstance(entry, Land):
            moved = [
                msgspec.structs.replace(one, start=state.end(one.source), end=state.end(one.source) + 1)
                for one in entry.ranges
            ]
            entry = msgspec.structs.replace(entry, ranges=moved)
        content = chain.encode(entry)[0]
        write(lake / chain.entry_name(entry.number), content)
        chain.apply(state, entry, chain.digest(content))
        snapshots.rebase(state)
    for path in removed:
        (lake / path).unlink(missing_ok=True)
    Log(Folder(lake, Files())).refresh()
    write(lake / snapshots.base_name(state.number), snapshots.encode_base(state))
    write(lake / snapshots.tail_name(state.number), snapshots.encode_tail(state))
    write(lake / "head.json", snapshots.encode_head(state.number))


def put_back(world: World, lake: Path, chance: random.Random) -> str:
    """Put an older copy back, whole or in part."""
    what = chance.choice(["whole", "without the seal", "_log", "_snapshots", "events", "seal"])
    keep = lake / "seal"
    aside = lake.parent / "aside"
    shutil.rmtree(aside, ignore_errors=True)
    if what in ("whole", "without the seal"):
        shutil.copytree(keep, aside)
        shutil.rmtree(lake)
        shutil.copytree(world.older, lake, ignore=shutil.ignore_patterns("seal" if what != "whole" else ""))
        if what != "whole":
            shutil.copytree(aside, keep)
    else:
        shutil.rmtree(lake / what)
        shutil.copytree(world.older / what, lake / what)
    if what == "_snapshots":
        write(lake / "head.json", (world.older / "head.json").read_bytes())
    return what


def swap_checkpoint(world: World, lake: Path, chance: random.Random) -> str:
    """Put another checkpoint in the place of the signed one."""
    how = chance.choice(["older", "another key", "size", "empty"])
    path = lake / "seal" / "checkpoint"
    if how == "older":
        write(path, checkpoint(world.older))
    elif how == "another key":
        shutil.rmtree(lake / "seal")
        _own_seal(lake)
    elif how == "size":
        lines = path.read_bytes().split(b"\n")
        lines[1] = str(int(lines[1]) - 1).encode()
        write(path, b"\n".join(lines))
    else:
        write(path, b"")
    return how


def plant(world: World, lake: Path, chance: random.Random) -> str:
    """Put a file where there was none: a copy of one that counts, an older one, or anything."""
    source = _some(lake, chance, "*/dt=2*/*.parquet")
    place = chance.choice(
        [source.with_name("planted.parquet"), lake / "events/dt=2026-09-23/x.parquet",
         lake / "_log/000000/000/900.json",
         lake / "_snapshots/tail-000000000999.json", lake / "seal/tile/0/007", lake / "notes.txt",
         lake / "_log/more" / f"{'0' * 64}.json", lake / "events/dt=2026-09-22/sub/y.parquet"]
    )  # fmt: skip
    write(place, source.read_bytes())
    return str(place.relative_to(lake))


def rename(world: World, lake: Path, chance: random.Random) -> str:
    """Give a file another name."""
    source = _some(lake, chance, "*/dt=2*/*.parquet")
    source.rename(source.with_name("renamed.parquet"))
    return str(source.relative_to(lake))


def link(world: World, lake: Path, chance: random.Random) -> str:
    """Put a link in the place of a file or a folder: what it leads to may change at any time."""
    source = _some(lake, chance, "*/dt=2*/*.parquet", "_log/0*/*/*.json", "_snapshots/*", "seal/checkpoint")
    if chance.random() < 0.3:
        source = source.parent
    outside = lake.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    shutil.move(source, outside / source.name)
    source.symlink_to(outside / source.name)
    return str(source.relative_to(lake))


def forge_snapshot(world: World, lake: Path, chance: random.Random) -> str:
    """Leave a file out of a snapshot that has the right entry hash, so that readers do not see it."""
    paths = sorted(path for path in lake.glob("_snapshots/*") if msgspec.json.decode(path.read_bytes()).get("files"))
    path = chance.choice(paths)
    found = msgspec.json.decode(path.read_bytes())
    how = chance.choice(["files", "principal", "ends"])
    if how == "ends" and found.get("ends"):
        found["ends"][0]["end"] += 1
    elif how == "files":
        found["files"] = found["files"][1:]
    else:
        found["files"][0]["sha256"] = "0" * 64
    write(path, msgspec.json.encode(found) + b"\n")
    return f"{path.name}: {how}"


def forge_head(world: World, lake: Path, chance: random.Random) -> str:
    """Let readers begin elsewhere."""
    number = chance.choice([0, 5, _count(lake) - 3, _count(lake) + 10, 10**11])
    write(lake / "head.json", snapshots.encode_head(number))
    return str(number)


def rewrite_views(world: World, lake: Path, chance: random.Random) -> str:
    """Let the views leave something out."""
    path = lake / "views.sql"
    write(path, path.read_bytes().replace(b"FROM events", b"FROM events WHERE false", 1))
    return "views.sql"


def alter_tile(world: World, lake: Path, chance: random.Random) -> str:
    """Put another hash or entry into the log."""
    path = _some(lake, chance, "seal/tile/**/*")
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content) - 2)
    content[at : at + 2] = bytes(value ^ 0x55 for value in content[at : at + 2])
    write(path, bytes(content))
    return str(path.relative_to(lake))


ALTERATIONS: list[Alteration] = [
    flip_bit, cut, drop, rewrite_row, edit_entry, swap_entries, rewrite_chain, put_back, swap_checkpoint, plant, rename,
    link, forge_snapshot, forge_head, rewrite_views, alter_tile,
]  # fmt: skip


def run(world: World, seeds: range) -> list[str]:
    """Try an alteration for each seed, all kinds in turn; gives those that were not found."""
    unseen = []
    for seed in seeds:
        alter = ALTERATIONS[seed % len(ALTERATIONS)]
        what, report = world.altered(alter, random.Random(seed))
        if not report.findings:
            unseen.append(f"{seed}: {alter.__name__}: {what}")
    return unseen


def main(arguments: list[str]) -> int:
    """Try so many, and say what was not found."""
    count = int(arguments[0]) if arguments else 1_000
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        assert verified(world.lake, world.kept).findings == []
        unseen = run(world, range(count))
    print(f"{count - len(unseen)} of {count} alterations were found")
    print("\n".join(unseen))
    return bool(unseen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
