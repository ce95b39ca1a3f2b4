"""What hashed rows add up to: 32 numbers of 64 bits, in C where that was compiled and in Python where it was not. Pure.

A text is hashed, and its hash stretched by seven more, as docs/reference/lake.md says. By hashlib each of the eight is
a call that costs several times what it hashes; `lanes.c` does all texts in one. It is compiled when pgwitness is
installed (hatch_build.py), wants an x86 processor with SHA instructions, and is used when it gives what hashlib gives.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LANES = 32
LIBRARY = Path(__file__).with_name("lanes.native")
Sums = npt.NDArray[np.uint64]
_TAGS = [bytes([number]) for number in range(1, LANES // 4)]
"""What is hashed behind the row's hash for the fifth number and those after it, four at a time."""
_TRIED = pa.array(["", *("a" * length for length in range(50, 70)), "ä" * 500])
"""Texts that end before, at and behind each bound of a block of SHA-256."""


def added_up(texts: pa.StringArray) -> Sums:
    """Give the sums, modulo 2^64, of what each text is stretched to; no text may be null."""
    return (native() or in_python)(texts)


def in_python(texts: pa.StringArray) -> Sums:
    """Give them by hashlib: what `added_up` does without a library, and what the library is held against."""
    offsets, view = _offsets(texts), memoryview(texts.buffers()[2] or b"")
    stretched: list[bytes] = []
    for start, end in pairwise(offsets.tolist()):
        row = sha256(view[start:end]).digest()
        stretched.append(row)
        stretched += [sha256(row + tag).digest() for tag in _TAGS]
    summed: Sums = np.frombuffer(b"".join(stretched), ">u8").reshape(-1, LANES).sum(0, np.uint64)
    return summed


@cache
def native() -> Callable[[pa.StringArray], Sums] | None:
    """Give the compiled way, None where there is none, or it does not do as hashlib does."""
    found = load(LIBRARY)
    return found if found and np.array_equal(found(_TRIED), in_python(_TRIED)) else None


def load(library: Path) -> Callable[[pa.StringArray], Sums] | None:
    """Load a library, None where there is none of this version, or the processor lacks what it needs."""
    try:
        function = ctypes.CDLL(str(library)).pgwitness_row_lanes_1
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]

    def summed(texts: pa.StringArray) -> Sums:
        sums, offsets, data = np.zeros(LANES, np.uint64), _offsets(texts), texts.buffers()[2]
        function(data.address if data else None, offsets.ctypes.data, len(texts), sums.ctypes.data)
        return sums

    return summed if function(None, None, 0, None) else None


def _offsets(texts: pa.StringArray) -> npt.NDArray[np.int32]:
    """Give where each text begins in its buffer, and where the last one ends."""
    return np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4)
