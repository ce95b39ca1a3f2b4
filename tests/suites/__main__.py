"""`python -m tests.suites [SUITE [NAME…]]`: run suites, all unless named, both ways, and print what differs.

Names behind a suite are its files. `psql` takes `15` or `18` among them: `python -m tests.suites psql 18 portals`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.suites import drivers, psql
from tests.suites.ways import both

SETTINGS = {"max_prepared_transactions": "10", "track_commit_timestamp": "on"}


def main(arguments: list[str]) -> int:
    """Run them; gives 1 where something differs without an explanation."""
    suites = arguments[:1] or ["psql", *drivers.SUITES]
    if unknown := sorted(set(suites) - {"psql", *drivers.SUITES}):
        print(f"no suite {unknown[0]}; there are psql, {', '.join(drivers.SUITES)}", file=sys.stderr)
        return 2
    differing = 0
    for name in suites:
        with tempfile.TemporaryDirectory(prefix="pgwitness-suites-") as scratch:
            run = _psql if name == "psql" else _driver
            differing += run(Path(scratch), name, arguments[1:])
    print(f"{differing} differ" if differing else "nothing differs but for what is explained")
    return 1 if differing else 0


def _psql(folder: Path, _: str, arguments: Sequence[str]) -> int:
    differing = 0
    folder.chmod(0o755)
    for version in [int(word) for word in arguments if word.isdigit()] or [15, 18]:
        place = folder / str(version)
        place.mkdir()
        for name, lines, found in psql.run(place, [word for word in arguments if not word.isdigit()], version):
            differing += bool(found)
            print(f"psql {version} {name}: {lines} lines", flush=True)
            for line in found:
                print(f"    {line}", flush=True)
    return differing


def _driver(folder: Path, name: str, arguments: Sequence[str]) -> int:
    suite = drivers.SUITES[name]
    with both(folder, SETTINGS) as ways:
        direct, through = (drivers.run(suite, way, folder, arguments) for way in ways)
    compared = drivers.compare(name, direct, through)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(compared.outcomes.items()))
    print(
        f"{name}: {compared.tests} tests, directly {counted}; {len(compared.differing)} otherwise through the gateway"
    )
    for test, (said, words, why) in compared.differing.items():
        print(f"    {test}: {said}: {why or words[:300]}", flush=True)
    return sum(why is None for _, _, why in compared.differing.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
