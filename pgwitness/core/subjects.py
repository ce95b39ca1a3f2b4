"""Keys of data subjects, each of which can be deleted: after that nobody makes, or recognises, the subject's tokens.

There is a key for every subject that may ever come, and none of them is stored: they are the 2^64 leaves of a tree of
which each node's children are hashes of it (Goldreich, Goldwasser and Micali, "How to construct random functions",
1986), and a subject's leaf is a keyed hash of its id. The store begins with the root. Deleting a leaf replaces the node
above it by the nodes beside the way down to it, from which the leaf cannot be computed (Boneh and Waters, "Constrained
pseudorandom functions and their applications", 2013). So collectors write nothing when somebody new comes, several
read one store, and only forgetting changes it: by some 50 nodes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pgwitness.core import secretfile
from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.privacy import DIGITS, KEY_BYTES, TOKEN_PREFIX, Tokenizer, tokenizer

FORMAT = "pgwitness-subjects/1"
DEPTH = 64
"""Of 10^6 subjects the chance that any two share a leaf, so that one is forgotten with the other, is 3 in 10^8."""
PREFIX = "tok_s_"
FORGOTTEN = b"tok_s_forgotten" + b"_" * (len(TOKEN_PREFIX) + DIGITS - len("tok_s_forgotten"))
"""What stands for every value of a subject that was forgotten and comes again: it tells nothing, not even apart."""
KEPT_MAX = 4_096
_DOMAIN = b"pgwitness subject "

Node = tuple[int, int]
"""How many bits of a leaf's number a node shares with all below it, and these bits as a number."""


class Subjects:
    """The store: `index` places ids among the leaves, `nodes` are the seeds from which leaves are computed."""

    def __init__(self, index: bytes, nodes: Mapping[Node, bytes]) -> None:
        self.index = index
        self.nodes = dict(nodes)
        self._lengths = sorted({length for length, _ in self.nodes})
        self._kept: dict[bytes, Tokenizer] = {}

    @classmethod
    def new(cls) -> Subjects:
        """Make the keys of all subjects."""
        return cls(secrets.token_bytes(KEY_BYTES), {(0, 0): secrets.token_bytes(KEY_BYTES)})

    def leaf(self, subject: bytes) -> int:
        """Give the number of a subject's leaf."""
        return int.from_bytes(hmac.digest(self.index, subject, "sha256")[: DEPTH // 8])

    def key(self, subject: bytes) -> bytes | None:
        """Give a subject's key; None when it was forgotten."""
        leaf = self.leaf(subject)
        above = self._above(leaf)
        if above is None:
            return None
        seed = self.nodes[above]
        for depth in range(above[0], DEPTH):
            seed = _child(seed, leaf >> (DEPTH - 1 - depth) & 1)
        return seed

    def tokens(self, subject: bytes) -> Tokenizer:
        """Give what makes a subject's tokens; of one that was forgotten, the same for all values and subjects."""
        found = self._kept.get(subject)
        if found is None:
            key = self.key(subject)
            found = tokenizer(key, PREFIX) if key is not None else _forgotten
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[subject] = found
        return found

    def without(self, subject: bytes) -> Subjects | None:
        """Give the store without a subject's key; None when it has none."""
        leaf = self.leaf(subject)
        above = self._above(leaf)
        if above is None:
            return None
        nodes = dict(self.nodes)
        seed = nodes.pop(above)
        for depth in range(above[0], DEPTH):
            bit = leaf >> (DEPTH - 1 - depth) & 1
            nodes[depth + 1, leaf >> (DEPTH - 1 - depth) ^ 1] = _child(seed, bit ^ 1)
            seed = _child(seed, bit)
        return Subjects(self.index, nodes)

    def _above(self, leaf: int) -> Node | None:
        """Give the node from which a leaf can be computed."""
        for length in self._lengths:
            if (length, leaf >> (DEPTH - length)) in self.nodes:
                return length, leaf >> (DEPTH - length)
        return None

    def text(self) -> str:
        """Write the store's file."""
        lines = [f"{length} {prefix:x} {seed.hex()}" for (length, prefix), seed in sorted(self.nodes.items())]
        return "\n".join([FORMAT, f"index {self.index.hex()}", *lines, "end"]) + "\n"


def parsed(text: str) -> Subjects:
    """Read the store's file. Raise `ValueError` when it is none, or not whole."""
    head, index, *lines = text.splitlines()
    if head != FORMAT or not index.startswith("index ") or not lines or lines.pop() != "end":
        raise ValueError(f"not a whole file of {FORMAT}")
    nodes: dict[Node, bytes] = {}
    for line in lines:
        length, prefix, seed = line.split(" ")
        node = int(length), int(prefix, 16)
        if not 0 <= node[0] <= DEPTH or node[1] >> node[0] or len(bytes.fromhex(seed)) != KEY_BYTES:
            raise ValueError("a node that no tree has")
        nodes[node] = bytes.fromhex(seed)
    return Subjects(bytes.fromhex(index.removeprefix("index ")), nodes)


def load(path: Path) -> Subjects:
    """Read the store. Raise `ConfigurationError` when it is missing, damaged, or readable by others."""
    where = f"privacy.subject_key_file: {path}"
    try:
        mode = path.stat().st_mode
        found = parsed(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise ConfigurationError(f"{where} does not exist; `pgwitness privacy init` makes it") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{where} is no store of keys ({error}); restore it from its own backup") from error
    if mode & 0o077:
        raise ConfigurationError(f"{where} can be read by others; run `chmod 600 {path}`")
    return found


def create(path: Path) -> None:
    """Make a new store, its owner's alone. Raise `NotInOrder` when there is one: what is there is never replaced."""
    with _alone(path):
        if path.exists():
            raise NotInOrder(f"{path} is there already; a new one would make every subject another one")
        _put(path, Subjects.new().text())


def forget(path: Path, subject: bytes, before: Callable[[Subjects], None] = lambda _: None) -> None:
    """Delete a subject's key, durably, so that no crash leaves half a store; `before` sees the store as it was.

    Raise `NotInOrder` when it was forgotten before, `ConfigurationError` as `load`.
    """
    with _alone(path):
        found = load(path)
        less = found.without(subject)
        if less is None:
            raise NotInOrder("this subject has no key any more: it was forgotten before")
        before(found)
        _put(path, less.text())


def _put(path: Path, text: str) -> None:
    try:
        secretfile.put(path, text)
    except OSError as error:
        raise NotInOrder(f"{path} could not be written ({error}): nothing was forgotten") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        with secretfile.alone(path):
            yield
    except OSError as error:
        raise ConfigurationError(f"privacy.subject_key_file: {path} cannot be written ({error.strerror})") from error


def _child(seed: bytes, bit: int) -> bytes:
    return hashlib.sha256(_DOMAIN + (b"1" if bit else b"0") + seed).digest()


def _forgotten(value: bytes) -> bytes:
    del value
    return FORGOTTEN
