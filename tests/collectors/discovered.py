"""Reads labelled schemas, and counts what the rules find of them: `python -m tests.collectors.discovered`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from collectors.discovery.columns import Column, Finding
from collectors.discovery.judging import judge

SCHEMAS = Path(__file__).parent / "schemas"
NUMBERS = {"int2", "int4", "int8", "numeric", "float4", "float8"}
_COLUMN = re.compile(r'\s*(?:"([^"]+)"|(\w+)) (\w+)(?:!(\w+))?')


class Score(NamedTuple):
    """What of a schema was found, at confidence medium or high: rightly, wrongly, and what was not."""

    right: list[str]
    wrong: list[str]
    missed: list[str]

    @property
    def precision(self) -> float:
        """The share of what was found that should be."""
        return len(self.right) / (len(self.right) + len(self.wrong))

    @property
    def recall(self) -> float:
        """The share of what should be found that was."""
        return len(self.right) / (len(self.right) + len(self.missed))


def read(name: str) -> dict[str, list[tuple[Column, str]]]:
    """Read the schemas of a file: by schema its columns, each with its label or nothing."""
    found: dict[str, list[tuple[Column, str]]] = {}
    for line in (SCHEMAS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            schema = line.strip("[]")
            found[schema] = []
        elif line and not line.startswith("#"):
            table, _, columns = line.partition(": ")
            for part in columns.split(","):
                matched = _COLUMN.fullmatch(part)
                assert matched is not None, part
                quoted, plain, kind, label = matched.groups()
                column = Column(
                    schema=schema,
                    table=table,
                    name=quoted or plain,
                    type=kind,
                    category="N" if kind in NUMBERS else "S" if kind == "text" else "U",
                )
                found[schema].append((column, label or ""))
    return found


def score(labelled: list[tuple[Column, str]], findings: list[Finding]) -> Score:
    """Compare findings with labels; the category does not count."""
    told = {(one.column.table, one.column.name) for one in findings if one.confidence != "low"}
    names = [((column.table, column.name), bool(label)) for column, label in labelled]
    return Score(
        [".".join(name) for name, label in names if label and name in told],
        [".".join(name) for name, label in names if not label and name in told],
        [".".join(name) for name, label in names if label and name not in told],
    )


def scores(name: str) -> dict[str, Score]:
    """Return the scores of a file's schemas, and of all of them together under `all`."""
    each = {schema: score(labelled, judge(column for column, _ in labelled)) for schema, labelled in read(name).items()}
    whole = Score(*([name for one in each.values() for name in one[part]] for part in range(3)))
    return {**each, "all": whole}


if __name__ == "__main__":
    for file in ("tuning.txt", "known.txt", "heldout.txt"):
        print(file)
        for schema, made in scores(file).items():
            print(f"  {schema}: precision {made.precision:.3f}, recall {made.recall:.3f}, {len(made.right)} right")
            if schema != "all":
                print(f"    wrong: {', '.join(made.wrong)}\n    missed: {', '.join(made.missed)}")
