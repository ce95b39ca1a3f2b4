"""What is compiled of the gateway's hot path (`native.c`), where an installation has it; None where it does not.

It is compiled when pgwitness is installed (`hatch_build.py`), which takes a C compiler and Python's headers, and is one
library for every Python from 3.11 on. All of it does what Python does beside it: `shape` what `quick_shape` of
`collectors.log.interpretation.texts` does, or nothing; a `Lane` what `collectors.gateway.session.session` does, or
nothing; a `Ledger` what `collectors.gateway.spool.ledger` does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

LIBRARY: Final = Path(__file__).with_name("native.native")
VERSION: Final = 2
NAME: Final = "pgwitness_gateway"
SWITCH: Final = "PGWITNESS_GATEWAY_NATIVE"
"""`0` in the environment leaves the library out, to compare, or to be rid of it."""


class Ledger(Protocol):
    """Lines that are to be written down, in their order."""

    def add(self, lines: bytes, begun: int, /) -> None:
        """Take whole lines; so many of them begin a statement."""

    def take(self) -> tuple[bytes, int]:
        """Give all that was taken, and how many of it begin a statement; nothing is left."""

    def wire(self, on_hold: Callable[[], object], on_late: Callable[[], object], /) -> None:
        """Tell somebody when a lane is the first to hold something back, and when lines wait and nothing is held."""

    def release(self) -> list[Lane]:
        """Give the lanes that hold something back until the lines are written down, and forget them."""


class Owner(Protocol):
    """Whose lane it is."""

    def defect(self, error: Exception) -> None:
        """Take an error that nobody foresaw."""

    def refuse(self) -> None:
        """End, as nothing can be written down."""


class Lane(Protocol):
    """A session's short lane; see `collectors.gateway.session.short`."""

    waiting: bool
    """Whether a statement is under way that it has taken."""
    engaged: bool
    """Whether it takes statements."""
    rows: int
    """Rows of all the answers that it has taken."""
    holding: bool
    """Whether it holds something back for the server, until its line is written down."""
    last: tuple[Any, int, int] | None
    """The decision, the number and the end (`Moment.ns`) of the last statement whose answer it has taken."""

    def enter(
        self,
        judging: object,
        epoch: int,
        scope: object,
        until_us: int,
        shapes: dict[bytes, tuple[Any, bytes]],
        many: bool,
        suffix: bytes,
        status: str,
        statements: int,
        transaction: int,
        /,
    ) -> None:
        """Take statements from here on, as long as these hold."""

    def leave(self) -> tuple[int, int, bytes, Any, bytes | None, bytes | None, int, int] | None:
        """Take none any more; give back what is under way."""

    def wire(
        self,
        owner: Owner,
        otherwise_client: Callable[[bytes], None],
        otherwise_server: Callable[[bytes], None],
        to_client: Callable[[bytes], None],
        to_server: Callable[[bytes], None],
        /,
    ) -> None:
        """Say where reads go to, and who has those that are not taken."""

    def from_client(self, data: bytes, /) -> None:
        """Take a read of the client and hold it back, or hand it on."""

    def from_server(self, data: bytes, /) -> None:
        """Take a read of the server and send it to the client, or hand it on."""

    def forward(self) -> None:
        """Send what is held back."""

    def refuse(self) -> None:
        """Send nothing of what is held back, and end the session."""

    def unhold(self) -> bytes | None:
        """Give back what is held back."""

    def bar(self, barred: bool, /) -> None:
        """Take nothing of the client, as something of it waits elsewhere, or do so again."""

    def client(self, data: bytes, us: int = ..., ns: int = ..., /) -> bool:
        """Take a read of the client, or nothing of it."""

    def server(self, data: bytes, us: int = ..., ns: int = ..., /) -> bool:
        """Take a read of the server, or nothing of it."""


class Native(NamedTuple):
    """What the library has."""

    shape: Callable[[bytes], bytes | None]
    ledger: Callable[[], Ledger]
    lane: Callable[..., Lane]


@cache
def native() -> Native | None:
    """Give what is compiled; None where it is not, or is of another version, or is not wanted."""
    return None if os.environ.get(SWITCH) == "0" else load(LIBRARY)


def load(library: Path) -> Native | None:
    """Load a library; None where it is none of this version."""
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(library))
    spec = importlib.util.spec_from_file_location(NAME, library, loader=loader)
    if spec is None:
        return None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError:
        return None
    if getattr(module, "version", None) != VERSION:
        return None
    return Native(module.shape, module.Ledger, module.Lane)
