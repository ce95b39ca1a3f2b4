"""Fetches PostgreSQL's own regression files for the twin test, into regress/15 and regress/18; `make regress` runs it.

Those of 15, with the rows they load, come with Debian's source package (apt-get source; the package lists it needs are
kept apart from the machine's own). Those of 18 are the files that pglast's source distribution carries to test its
parser; they load the same rows. Nothing is built, and nothing outside this folder is changed.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parent
TARGET = HERE / "regress"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


def fetch_debian(version: int, folder: Path) -> Path:
    """Download the source of Debian's package and give the archive of PostgreSQL itself.

    The lists of the security archive are left out: it keeps only its newest source, which mirrors may not have.
    """
    if not SOURCES.exists():
        raise SystemExit(f"{SOURCES} is not there: the files of PostgreSQL {version} come with Debian's source package")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    parts = folder / "parts"
    parts.mkdir()
    (parts / "source.sources").write_text(_source_stanza(SOURCES.read_text()))
    options = [
        "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={parts}",
        "-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    subprocess.run(["apt-get", *options, "update", "-q"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607
    subprocess.run(  # noqa: S603
        ["apt-get", *options, "source", "--download-only", "-q", f"postgresql-{version}"],  # noqa: S607
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = folder.glob(f"postgresql-{version}_*.orig.tar.*")
    return archive


def _source_stanza(sources: str) -> str:
    """Make of the first stanza that names binary packages one that names sources."""
    for stanza in re.split(r"\n\s*\n", sources):
        if re.search(r"(?m)^Types:.*\bdeb\b", stanza) and "security" not in stanza:
            return re.sub(r"(?m)^Types:.*$", "Types: deb-src", stanza).strip() + "\n"
    raise SystemExit(f"{SOURCES} names no archive of Debian whose sources could be asked for")


def fetch_pglast(folder: Path) -> Path:
    """Download the source distribution of the pglast that is installed."""
    release = importlib.metadata.version("pglast")
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-binary", "pglast", "--dest", str(folder), f"pglast=={release}"],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("pglast-*.tar.gz")
    return archive


def unpack(archive: Path, inside: str, kinds: tuple[str, ...], target: Path) -> None:
    """Copy the files that lie in a folder of an archive, without the folders above it."""
    target.mkdir(parents=True, exist_ok=True)
    found = 0
    with tarfile.open(archive) as files:
        for member in _members(files):
            path = PurePosixPath(member.name)
            if path.parent.as_posix().endswith(inside) and path.suffix in kinds:
                content = files.extractfile(member)
                assert content is not None
                (target / path.name).write_bytes(content.read())
                found += 1
    if not found:
        raise SystemExit(f"{archive.name} holds nothing in {inside}")


def _members(files: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    return (member for member in files if member.isfile())


def main() -> None:
    """Fetch both versions anew."""
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        debian = fetch_debian(15, folder)
        unpack(debian, "src/test/regress/sql", (".sql",), TARGET / "15" / "sql")
        unpack(debian, "src/test/regress/data", (".data", ".csv"), TARGET / "data")
        unpack(fetch_pglast(folder), "test/sql/postgres_regress", (".sql",), TARGET / "18" / "sql")
    (TARGET / ".complete").touch()


if __name__ == "__main__":
    main()
