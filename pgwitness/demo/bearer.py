"""Libpq's own hook by which a client hands over a token for OAUTHBEARER: libpq 18 asks it instead of a browser.

The library of the device flow is not needed for it. `pgwitness.demo.doors` and the gateway's tests come in by it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import psycopg_binary

_BEARER_TOKEN = 1
"""PQAUTHDATA_OAUTH_BEARER_TOKEN."""
_VERSION_MIN = 18_00_00


class _Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h (PostgreSQL 18)."""

    _fields_ = (
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    )


_Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Request))


def libpq() -> Path | None:
    """Return the libpq that psycopg's wheel brings and has loaded, None where it uses the system's."""
    package = Path(psycopg_binary.__file__).parent
    folders = (package.parent / "psycopg_binary.libs", package / ".dylibs")
    return next((path for folder in folders for path in sorted(folder.glob("libpq[.-]*"))), None)


def available() -> bool:
    """Return whether the libpq of this process knows OAUTHBEARER and its hook can be set."""
    return psycopg.pq.version() >= _VERSION_MIN and libpq() is not None


@contextmanager
def handing_over(token: Callable[[], str]) -> Iterator[list[str]]:
    """Have psycopg's libpq hand over what `token` gives; yields the metadata that it was told to look for one in.

    It holds for the whole process. Raise `RuntimeError` where there is no such libpq.
    """
    path = libpq()
    if path is None or not available():
        raise RuntimeError("the libpq of psycopg is older than 18, or not its own")
    library = ctypes.CDLL(str(path))
    asked: list[str] = []
    kept: list[bytes] = []  # libpq reads a token when the hook has returned

    def hook(kind: int, _: object, request: Any) -> int:
        if kind != _BEARER_TOKEN:
            return 0
        asked.append(request.contents.openid_configuration.decode())
        kept[:] = [*kept[-100:], token().encode()]
        request.contents.token = kept[-1]
        return 1

    taken = _Hook(hook)
    library.PQsetAuthDataHook.argtypes = (ctypes.c_void_p,)
    library.PQsetAuthDataHook(ctypes.cast(taken, ctypes.c_void_p))
    try:
        yield asked
    finally:
        library.PQsetAuthDataHook(ctypes.cast(library.PQdefaultAuthDataHook, ctypes.c_void_p))
