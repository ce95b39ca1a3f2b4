"""Unpacks the servers in lib/16.jar and lib/17.jar, into lib/16/server and lib/17/server; `make postgres` runs it.

A jar is a zip archive with one xz-compressed tar archive in it, which holds `bin`, `lib` and `share`.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

LIB = Path(__file__).parent / "lib"


def unpack(jar: Path) -> None:
    """Unpack one server, in the place of one that was there."""
    target = jar.with_suffix("") / "server"
    shutil.rmtree(target, ignore_errors=True)
    with zipfile.ZipFile(jar) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
        packed = io.BytesIO(archive.read(name))
    with tarfile.open(fileobj=packed, mode="r:xz") as files:
        files.extractall(target, filter="data")


if __name__ == "__main__":
    for found in sorted(LIB.glob("*.jar")):
        unpack(found)
