"""The command line: `main` is the program `pgwitness`.

One module a group of commands. Nothing heavy is imported before a command runs, so that `pgwitness --help` and
shell completion answer at once. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys

from pgwitness.cli import signals

if signals.is_daemon(sys.argv[1:]):  # before anything heavy is imported, which takes a second
    signals.watch()

from pgwitness.cli.program import main

__all__ = ["main"]
