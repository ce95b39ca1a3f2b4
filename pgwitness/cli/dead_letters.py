"""`pgwitness dead-letters`: records that could not be read, and trying them again."""

from __future__ import annotations

import click


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be read, and try them again."""
