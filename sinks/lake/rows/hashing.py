"""What hashed rows add up to: 32 numbers of 64 bits, by hashlib. Pure.

A row's text is hashed, and its hash stretched by seven more, as docs/reference/lake.md says. Each of the eight is a
call that costs several times what it hashes: where `native` can, it takes this module's place.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sinks.lake.rows.texts import Written, encoded

LANES = 32
Sums = npt.NDArray[np.uint64]
_TAGS = [bytes([number]) for number in range(1, LANES // 4)]
"""What is hashed behind the row's hash for the fifth number and those after it, four at a time."""


def in_python(batch: pa.RecordBatch, name: str, written: Written) -> Sums:
    """Give the sums, modulo 2^64, of what rows of the table `name` are hashed and stretched to."""
    texts = encoded(batch, name, written)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4).tolist()
    view = memoryview(data or b"")
    stretched: list[bytes] = []
    for start, end in pairwise(ends):
        row = sha256(view[start:end]).digest()
        stretched.append(row)
        stretched += [sha256(row + tag).digest() for tag in _TAGS]
    summed: Sums = np.frombuffer(b"".join(stretched), ">u8").reshape(-1, LANES).sum(0, np.uint64)
    return summed
