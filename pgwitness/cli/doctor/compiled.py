"""The doctor on what is compiled when pgwitness is built: without it all works, and takes more of a processor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, line

if TYPE_CHECKING:
    from pgwitness.core.config import Config

REBUILD = "install from a wheel that was built where there is a C compiler (`make wheel`)"


def compiled(config: Config, findings: list[Line]) -> None:
    """Look for the libraries of those daemons that this configuration has."""
    findings += judge_digests()
    if config.gateway.databases:
        findings += judge_short_lane()


def judge_digests() -> list[Line]:
    """Say when this installation adds rows up in Python, which is most of what a worker then does."""
    from sinks.lake.rows import native

    if native.way() is not None:
        return []
    found = "digests of rows are computed in Python, with the same result: "
    if native.LIBRARY.exists():
        found += "the compiled library is not of this version, or the processor lacks what it needs"
        fix = f"a worker lands more on an x86 processor with SHA; {REBUILD}"
    else:
        found += f"the compiled library is missing ({native.LIBRARY})"
        fix = f"a worker lands more with it: {REBUILD}"
    return [line("lake", "digests", "info", found, fix)]


def judge_short_lane() -> list[Line]:
    """Say when this installation's gateway has no short lane, for which every statement takes the long way."""
    from collectors.gateway.wire import native

    if native.native() is not None:
        return []
    found = "every statement takes the long way, with the same result: "
    if os.environ.get(native.SWITCH) == "0":
        return [line("gateway", "short lane", "info", f"{found}{native.SWITCH} is 0", f"unset {native.SWITCH}")]
    if native.LIBRARY.exists():
        found += "the compiled library is not of this version, or of another platform"
    else:
        found += f"the compiled library is missing ({native.LIBRARY})"
    return [line("gateway", "short lane", "info", found, f"a gateway takes less of a processor with it: {REBUILD}")]
