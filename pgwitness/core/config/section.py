"""What every table of the configuration is."""

from __future__ import annotations

from msgspec import Struct


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the configuration: an unknown key is an error, a default stands in the code."""
