"""`pgwitness doctor`: what can be seen here, how surely, what is wrong and how to mend it."""

from __future__ import annotations

import click


@click.command()
def doctor() -> None:
    """Check databases, broker, topics, lake and policies."""
