"""What one of our publications lists, as it is compared from look to look and remembered over restarts."""

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
