"""The account that PostgreSQL runs as: it refuses to run as root.

Started by root it runs as a system user, and where that user may not enter the folder of the programs or of the data,
these live in a temporary folder instead: nobody's home directory is opened for it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def system_user() -> pwd.struct_passwd | None:
    """Return the user the server runs as when this process is root: `postgres`, or one made for it, or `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "pgwitness"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    useradd = shutil.which("useradd")
    if useradd is not None:
        command = [useradd, "--system", "--no-create-home", "pgwitness"]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("pgwitness")
    return pwd.getpwnam("nobody")


def enters(path: Path, user: pwd.struct_passwd | None) -> bool:
    """Return whether a user may enter a folder from the root down."""
    if user is None:
        return True
    for folder in (path.resolve(), *path.resolve().parents):
        state = folder.stat()
        bit = 0o100 if state.st_uid == user.pw_uid else 0o010 if state.st_gid == user.pw_gid else 0o001
        if not state.st_mode & bit:
            return False
    return True


@functools.cache
def reachable(programs: Path, user: pwd.struct_passwd | None) -> Path:
    """Return the folder of the programs, or of a temporary copy when the server's user may not enter it."""
    if enters(programs, user):
        return programs
    copy = Path(tempfile.mkdtemp(prefix="pgwitness-bin-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    package = programs.parent.parent
    shutil.copytree(package, copy / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / programs.relative_to(package.parent)
