"""What our publications list and what was asked for, as it is compared from look to look and kept over restarts."""

from __future__ import annotations

from msgspec import Struct


class Listing(Struct, frozen=True):
    """One publication: its operations (letters), owner, and the name of each listed table by OID.

    `restricted` holds the OIDs of tables of which not all rows or columns are published.
    """

    operations: str
    owner: str
    all_tables: bool = False
    via_root: bool = True
    tables: dict[int, str] = {}
    restricted: list[int] = []


Listings = dict[str, Listing]


class Asked(Struct, frozen=True):
    """The globs of the tables that were asked for, who wrote them (32 bits), and where they were read first."""

    globs: tuple[str, ...]
    xid: int = 0
    seen_lsn: int = 0
