"""Keys of data subjects: one that is deleted cannot be made again, and nobody else's changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core import subjects
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.privacy import Key, tokenizer
from pgwitness.core.subjects import DEPTH, FORGOTTEN, Subjects, parsed

STORE = Subjects(b"i" * 32, {(0, 0): b"r" * 32})
IDS = st.lists(st.binary(min_size=1, max_size=8), min_size=2, max_size=6, unique=True)


@given(IDS)
def test_forgetting_some_leaves_the_keys_of_the_others(ids: list[bytes]) -> None:
    """Whatever the order; what is left has no node from which a forgotten key could be computed."""
    kept, gone = ids[0], ids[1:]
    store = STORE
    for one in gone:
        less = store.without(one)
        assert less is not None
        store = less
    assert store.key(kept) == STORE.key(kept)
    for one in gone:
        assert store.key(one) is None
        assert store.without(one) is None
        leaf = store.leaf(one)
        assert not any((length, leaf >> (DEPTH - length)) in store.nodes for length in range(DEPTH + 1))
    assert parsed(store.text()).nodes == store.nodes


def test_tokens_of_one_subject_join_and_those_of_two_do_not() -> None:
    """Equal values of one person are equal, of two they tell nothing of each other, of a forgotten one nothing."""
    ada, eve = STORE.tokens(b"1"), STORE.tokens(b"2")
    assert ada(b"x") == ada(b"x")
    assert ada(b"x").startswith(b"tok_s_")
    assert len({ada(b"x"), ada(b"y"), eve(b"x")}) == 3
    less = STORE.without(b"1")
    assert less is not None
    assert {less.tokens(b"1")(b"x"), less.tokens(b"1")(b"y")} == {FORGOTTEN}
    assert less.tokens(b"2")(b"x") == eve(b"x")


def test_all_tokens_are_equally_long() -> None:
    """A transaction that is read again is cut into the same parts, whatever has become of keys meanwhile."""
    key = Key.of([b"k" * 32] * 12)
    made = [tokenizer(b"k" * 32), key.tokenizer(2), key.tokenizer(12), STORE.tokens(b"1"), lambda _: FORGOTTEN]
    assert {len(make(b"x")) for make in made} == {len("tok_") + 32}


def test_the_store_is_its_owners_and_never_written_over(tmp_path: Path) -> None:
    """A second one would make everybody somebody else; one that others can read is refused."""
    path = tmp_path / "subjects.key"
    with pytest.raises(ConfigurationError, match="privacy init"):
        subjects.load(path)
    subjects.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = subjects.load(path).key(b"7")
    with pytest.raises(NotInOrder, match="there already"):
        subjects.create(path)
    assert subjects.load(path).key(b"7") == known
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        subjects.load(path)


def test_forgetting_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full leaves the store as it was; done twice it says so."""
    path = tmp_path / "subjects.key"
    subjects.create(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotInOrder, match="nothing was forgotten"):
            subjects.forget(path, b"7")
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["subjects.key", "subjects.key.lock"]
    subjects.forget(path, b"7")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert subjects.load(path).key(b"7") is None
    with pytest.raises(NotInOrder, match="forgotten before"):
        subjects.forget(path, b"7")


@pytest.mark.parametrize("cut", [1, 20, 100, 160])
def test_a_store_that_is_not_whole_is_no_store(tmp_path: Path, cut: int) -> None:
    """A part of it would give nobody's key, and everybody would seem forgotten."""
    path = tmp_path / "subjects.key"
    text = STORE.text()
    path.write_text(text[: len(text) - cut])
    path.chmod(0o600)
    if cut == 1:  # the last line's end
        assert subjects.load(path).nodes == STORE.nodes
        return
    with pytest.raises(ConfigurationError, match="no store of keys"):
        subjects.load(path)


def test_what_is_left_of_a_store_is_what_lies_beside_the_way() -> None:
    """Down to the neighbour's own key: all keys but one can be computed."""
    less = STORE.without(b"7")
    assert less is not None
    leaf = less.leaf(b"7")
    assert less.nodes.keys() == {(length, leaf >> (DEPTH - length) ^ 1) for length in range(1, DEPTH + 1)}
