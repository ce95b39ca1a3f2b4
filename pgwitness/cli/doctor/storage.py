"""The doctor on disks: whether the lake and the collectors' state can be written, have room, and are closed to others.

It tries what a worker does, with a file of its own that goes again: rights alone do not tell of a read-only mount, of a
file system without hard links, or of a file that stands where a folder must be.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, attempt, line
from pgwitness.core.errors import NotInOrder, Unreachable

if TYPE_CHECKING:
    from pgwitness.core.config import Config

SHARE_LOW, BYTES_LOW = 0.05, 2 * 1024**3
SHARE_OUT, BYTES_OUT = 0.01, 256 * 1024**2
"""Below both of a pair a disk is nearly full, or as good as full."""

MOUNTS = Path("/proc/self/mounts")
_FUSE = ("glusterfs", "goofys", "gcsfuse", "juicefs", "mountpoint-s3", "rclone", "s3fs", "sshfs")
SHARED = frozenset(
    {"afs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"}
    | {f"fuse.{name}" for name in _FUSE}
)

_FIXES = {
    errno.EROFS: "mount the file system for writing",
    errno.ENOSPC: "make room, or move it to another disk",
    errno.EDQUOT: "raise the quota, or move it to another disk",
    errno.ENOTDIR: "a file stands where a folder must be: remove it, or set another path",
    errno.EEXIST: "a file stands where a folder must be: remove it, or set another path",
}


def storage(config: Config, findings: list[Line]) -> None:
    """Try each folder that daemons write to."""
    lake = config.lake.path
    if isinstance(lake, Path):
        findings += _place("lake", lake, needs_links=True)
        findings += _open_to_others(lake, config.lake.group) if lake.is_dir() else []
        if not config.lake.shared_filesystem:
            findings += judge_kind(lake, MOUNTS.read_text() if MOUNTS.exists() else "")
    else:
        attempt("lake", "writing", findings, lambda: _bucket(config))
    findings += _place("state", config.collectors.state_path, needs_links=False)


def judge_kind(lake: Path, mounts: str) -> list[Line]:
    """Say when a lake is on a file system of several hosts; `mounts` is what Linux says in `/proc/self/mounts`. Pure.

    Hard links and exclusive names on such ones are what their server, its version and its mount options make of them.
    """
    found = ("", "")
    for mount in mounts.splitlines():
        _, place, kind, *_ = mount.split()
        point = place.replace("\\040", " ")
        if lake.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    if found[1] not in SHARED:
        return []
    fix = "put it on a local disk, or in a bucket (s3://…); if you know that it keeps names exclusive: "
    fix += "lake.shared_filesystem = true"
    return [line("lake", "file system", "error", f"{lake} is on {found[1]} ({found[0]}), which hosts may share", fix)]


def _bucket(config: Config) -> str:
    """Make an object as a worker makes an entry: exclusively."""
    from sinks.lake.opening import lake_store
    from sinks.lake.storage.refusals import Refused

    store = lake_store(config)
    try:
        store.prepare()
    except Refused as error:
        raise (Unreachable if error.unreachable else NotInOrder)(f"{error}: {error.advice}") from error
    return f"{store.path} takes objects, and keeps their names exclusive"


def _place(what: str, path: Path, *, needs_links: bool) -> list[Line]:
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    writes = [place] if place != path or not needs_links else _written(path)
    for folder in writes:
        error = attempt_write(folder, needs_links=needs_links)
        if error is not None:
            fix = _FIXES.get(error.errno or 0, "give the daemons' user the right to write there, or set another path")
            if error.errno in (errno.EPERM, errno.ENOTSUP) and needs_links:
                fix = "give the worker's user the right to write there, on a file system that has hard links"
            return [line(what, "writing", "error", f"{folder} cannot be written to by this user: {error}", fix)]
    return _room(what, place)


def _written(lake: Path) -> list[Path]:
    """List the folders of a lake that a worker makes files in."""
    named = [lake, lake / "_staging", lake / "_snapshots", lake / "_log"]
    named += sorted((lake / "_log").glob("[0-9]*/[0-9]*"))[-1:]
    for table in ("events", "rows", "alerts"):
        named += [lake / table]
        named += sorted((lake / table).glob("dt=*"))[-1:]
    return [folder for folder in named if folder.exists()]


def attempt_write(folder: Path, *, needs_links: bool) -> OSError | None:
    """Make a file in a folder, give it a second name, and take both away again; gives what the system refused."""
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    second = probe.with_suffix(".link")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if needs_links:
            os.link(probe, second)
    except OSError as error:
        return error
    finally:
        for path in (probe, second):
            with suppress(OSError):
                path.unlink()
    return None


def _room(what: str, place: Path) -> list[Line]:
    total, _, free = shutil.disk_usage(place)
    return judge_room(what, str(place), total, free)


def judge_room(what: str, place: str, total: int, free: int) -> list[Line]:
    """Say when a disk is nearly full. Pure."""
    for state, share, least in (("error", SHARE_OUT, BYTES_OUT), ("warning", SHARE_LOW, BYTES_LOW)):
        if free < least or (free < share * total and free < 10 * least):
            said = f"{place}: {free / 1e9:,.1f} of {total / 1e9:,.1f} GB are free"
            return [line(what, "disk", state, said, "make room, or move it to another disk: evidence waits meanwhile")]
    return [line(what, "disk", "ok", f"{place}: {free / 1e9:,.1f} GB are free")]


def _open_to_others(lake: Path, group: str | None) -> list[Line]:
    """Say when others than the lake's group may read it."""
    found = [path for path in (lake, lake / "events", lake / "rows") if path.exists() and path.stat().st_mode & 0o007]
    if not found or found[0] != lake:  # who may not enter the lake's folder reads nothing in it
        return []
    fix = f"chmod -R o= {lake}" + ("" if group else "; lake.group names who may read it")
    return [line("lake", "rights", "warning", f"{lake} is open to every user of this host", fix)]
