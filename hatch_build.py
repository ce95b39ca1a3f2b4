"""Compiles the C files when pgwitness is built or installed; without a C compiler they are left out.

Then what they do is done in Python, with the same result: the digests of rows (`sinks/lake/rows/digests.c`), and the
gateway's short lane (`collectors/gateway/wire/native.c`). The first is compiled against nothing of Python, the second
against its limited interface, for which its headers have to be there: either library does for every version of it.

A wheel also gets what shells complete commands with and the page for `man`, both made of the commands themselves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = {
    Path("sinks/lake/rows/digests.c"): "digests of rows will be computed in Python",
    Path("collectors/gateway/wire/native.c"): "the gateway will have no short lane, and take more of a processor",
}
"""What is compiled, and what comes of it where that fails. The libraries are not named `.so`: one is no module."""
FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


class CompileLibraries(BuildHookInterface[Any]):
    """Puts the libraries into the wheel, which is then one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, beside the sources, where an installation from this folder looks for them too."""
        for source, otherwise in SOURCES.items():
            failed = compiled(Path(self.root) / source)
            if failed is not None:
                self.app.display_warning(f"{otherwise}: {failed}")
                continue
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"py3-none-{platform}")
            build_data["artifacts"].append(str(source.with_suffix(".native")))
        if version != "editable":  # a wheel's: an installation from this folder has `pgwitness completion`
            for name, text in self.shared().items():
                file = Path(self.directory, "share", name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
                build_data["shared_data"][str(file)] = f"share/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing beside the wheel."""
        shutil.rmtree(Path(self.directory, "share"), ignore_errors=True)

    def shared(self) -> dict[str, str]:
        """Ask the program that is built, by its sources, for what belongs below `share/`."""
        sys.path.insert(0, self.root)
        try:
            from pgwitness import __version__
            from pgwitness.cli.completion import share
        finally:
            sys.path.remove(self.root)
        return share(__version__)


def compiled(source: Path) -> str | None:
    """Compile a C file into a shared library beside it; say why where that fails, and then there is none."""
    library = source.with_suffix(".native")
    made = library.with_suffix(f".{os.getpid()}")
    headers = sysconfig.get_path("include")
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, f"-I{headers}", "-o", str(made), str(source)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - as the builder says
    except OSError as error:
        failed = f"no C compiler ({error})"
    except subprocess.CalledProcessError as error:
        failed = f"{command[0]}: {error.stderr.strip()}"
    else:
        made.replace(library)  # and is not written over: a process may have the old one loaded
        return None
    made.unlink(missing_ok=True)
    library.unlink(missing_ok=True)
    return failed
