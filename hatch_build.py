"""Compiles `sinks/lake/rows/digests.c` when pgwitness is built or installed; without a C compiler it is left out.

Then the digests of rows are computed in Python, with the same result. Nothing of Python is compiled against, so one
library does for every version of it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("sinks/lake/rows/digests.c")
LIBRARY = "digests.native"
"""Not `.so`: nothing in the package looks like a module of Python and is none."""
FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


class CompileDigests(BuildHookInterface[Any]):
    """Puts the library into the wheel, which is then one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, beside the source, where an installation from this folder looks for it too."""
        source = Path(self.root) / SOURCE
        failed = compiled(source)
        if failed is not None:
            self.app.display_warning(f"digests of rows will be computed in Python: {failed}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.update(pure_python=False, tag=f"py3-none-{platform}")
        build_data["artifacts"].append(str(SOURCE.with_name(LIBRARY)))


def compiled(source: Path) -> str | None:
    """Compile a C file into a shared library beside it; say why where that fails, and then there is none."""
    library = source.with_name(LIBRARY)
    made = library.with_suffix(f".{os.getpid()}")
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, "-o", str(made), str(source)]
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
