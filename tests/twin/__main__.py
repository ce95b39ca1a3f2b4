"""`python -m tests.twin [15|18] [FILE…]`: run the files (all of them unless named) and print what differs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pgwitness.demo.servers import Broker
from tests.twin.run import every_file, pair


def main(arguments: list[str]) -> int:
    """Run one version, or both; gives 1 where something differs without an explanation."""
    versions = [int(word) for word in arguments if word.isdigit()] or [15, 18]
    named = [word for word in arguments if not word.isdigit()]
    differing = 0
    for version in versions:
        with tempfile.TemporaryDirectory(prefix="pgwitness-twin-") as scratch:
            folder = Path(scratch)
            folder.chmod(0o755)
            with Broker(folder / "broker") as broker, pair(folder, version, broker, "twin.") as both:
                for outcome in both.run(named or every_file(version)):
                    differing += bool(outcome.unexplained)
                    print(f"{version} {outcome.name}: {outcome.lines} lines, {outcome.seconds:.1f} s", flush=True)
                    for line in outcome.unexplained:
                        print(f"    {line}", flush=True)
                both.caught_up()
                print(f"{version}: the collector has read it all, {len(both.raw())} events")
    print(f"{differing} files differ" if differing else "no file differs but for what is explained")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
