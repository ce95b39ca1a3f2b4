"""The log: trees, notes, checkpoints and tiles, held against Go's own (`golang.org/x/mod/sumdb`) and pymerkle's."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from sinks.seal.tlog import checkpoint, merkle, note, tiles
from sinks.seal.tlog.checkpoint import Checkpoint
from sinks.seal.tlog.merkle import leaf_hash
from sinks.seal.tlog.note import NotSigned
from sinks.seal.tlog.tiles import Edge, Tiles

GO: dict[str, Any] = json.loads((Path(__file__).parent / "go-vectors.json").read_text())
"""What x/mod v0.43.0 makes of the entries `entry 0` to `entry 599`."""


def entry(number: int) -> bytes:
    """Give an entry."""
    return f"entry {number}".encode()


def log_of(size: int, *, steps: int = 1) -> dict[str, bytes]:
    """Write a log in so many rounds."""
    files: dict[str, bytes] = {}
    edge, kept = Edge(), list[bytes]()
    cuts = [size * step // steps for step in range(steps + 1)]
    for start, end in itertools.pairwise(cuts):
        files |= dict(tiles.grown(edge, kept, [entry(number) for number in range(start, end)]))
    return files


def test_roots_are_those_of_go() -> None:
    """A tree of any size has the root that RFC 6962 gives it."""
    files = log_of(600)
    for size, root in GO["roots"].items():
        edge = Edge()
        for number in range(int(size)):
            list(edge.add(leaf_hash(entry(number))))
        assert edge.root().hex() == root
        assert Edge().root() == merkle.EMPTY_ROOT
        known = Tiles(600, files.get)
        assert merkle.root(int(size), known.subtree).hex() == root


def test_proofs_are_those_of_go_and_show_what_they_say() -> None:
    """Proofs are made as Go makes them, and hold for nothing else."""
    known = Tiles(600, log_of(600).get)
    for index, size, expected in GO["inclusion"]:
        proof = merkle.inclusion(index, size, known.subtree)
        assert [one.hex() for one in proof] == expected
        root = bytes.fromhex(GO["roots"][str(size)])
        assert merkle.includes(leaf_hash(entry(index)), index, size, proof, root)
        assert not merkle.includes(leaf_hash(b"other"), index, size, proof, root)
        assert not merkle.includes(leaf_hash(entry(index)), size, size, proof, root)
        assert not merkle.includes(leaf_hash(entry(index)), index, size, [*proof, root], root)
        if proof:
            assert not merkle.includes(leaf_hash(entry(index)), index, size, proof[:-1], root)
    for older, newer, expected in GO["consistency"]:
        proof = merkle.consistency(older, newer, known.subtree)
        assert [one.hex() for one in proof] == expected
        before, after = merkle.root(older, known.subtree), merkle.root(newer, known.subtree)
        assert merkle.continues(older, before, newer, after, proof)
        assert not merkle.continues(older, after, newer, after, proof)
        assert not merkle.continues(older, before, newer, before, proof)
        assert not merkle.continues(older, before, newer, after, proof[:-1])


def test_tiles_are_those_of_go() -> None:
    """Tiles have the names and the content that Go gives them, in one round or in many."""
    files = log_of(257) | log_of(600, steps=7)
    for path, sha256 in GO["tiles"].items():
        assert hashlib.sha256(files[path.replace("tile/8/", "tile/")]).hexdigest() == sha256
    for index, path in GO["paths"].items():
        assert tiles.tile_path(0, int(index)) == path.replace("tile/8/", "tile/")


def test_a_note_is_the_one_of_go() -> None:
    """Keys and notes are written as Go writes them, and open there and here."""
    key = note.private_key(GO["skey"])
    assert (key.text(), key.public().text()) == (GO["skey"], GO["vkey"])
    assert note.public_key(GO["vkey"]) == key.public()
    made = Checkpoint("example.com/lake", 600, bytes.fromhex(GO["roots"]["600"]))
    assert note.signed(made.text(), key.public(), key.sign(made.text())).decode() == GO["note"]
    assert checkpoint.opened(GO["note"].encode(), key.public()) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("600", "601"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("— example.com/lake", "— example.com/other"),
        lambda text: text[:-1],
        lambda text: text.replace("— example.com/lake ", "— example.com/lake A"),
        lambda text: text + "\n",
        lambda text: "",
    ],
)
def test_a_note_that_was_altered_does_not_open(change: Any) -> None:
    """Nothing is read of a note whose signature does not fit."""
    with pytest.raises(NotSigned):
        note.opened(change(GO["note"]).encode(), note.public_key(GO["vkey"]))


def test_a_second_signature_of_somebody_else_is_passed_over() -> None:
    """A witness may sign too; its line is not ours to judge."""
    witness = note.PrivateKey("witness.example", bytes(32))
    text = GO["note"].encode().partition(b"\n\n")[0] + b"\n"
    line = note.signed(text, witness.public(), witness.sign(text)).partition(b"\n\n")[2]
    assert note.opened(GO["note"].encode() + line, note.public_key(GO["vkey"])) == text


@pytest.mark.parametrize("size", ["01", "-1", "1.0", "", "99999999999999999999"])
def test_what_is_no_checkpoint_is_refused(size: str) -> None:
    """A number has one spelling."""
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.parsed(f"example.com/lake\n{size}\n{'A' * 43}=\n".encode())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=600), st.integers(1, 5))
def test_a_log_gives_back_what_it_was_given(entries: list[bytes], steps: int) -> None:
    """Bundles hold the entries, whatever the rounds were, and the root is pymerkle's."""
    files: dict[str, bytes] = {}
    edge, kept = Edge(), list[bytes]()
    for step in range(steps):
        part = entries[len(entries) * step // steps : len(entries) * (step + 1) // steps]
        files |= dict(tiles.grown(edge, kept, part))
        edge = Tiles(edge.size, files.get).edge()  # as a process that starts again
    assert list(tiles.entries(len(entries), files.get)) == entries
    oracle = InmemoryTree(algorithm="sha256")
    for one in entries:
        oracle.append_entry(one)
    assert edge.root() == (oracle.get_root() if entries else merkle.EMPTY_ROOT)


def test_a_torn_log_is_told() -> None:
    """A tile or bundle that is missing or too short is never read as a smaller log."""
    files = log_of(300)
    for name in list(files):
        short = {**files, name: files[name][:-1]}
        gone = {path: content for path, content in files.items() if path != name}
        for torn in (short, gone):
            with pytest.raises(tiles.Torn, match="tile/"):
                (Tiles(300, torn.get).edge(), list(tiles.entries(300, torn.get)), Tiles(300, torn.get).hashes(0, 0))
