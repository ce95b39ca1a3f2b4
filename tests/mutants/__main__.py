"""Mutants of the modules that guard promises: for each a small change, after which its tests must fail.

`make mutants` tries a sample of them, the same for the same seed: `--sample` places a module, one mutation at each.
cosmic-ray finds the places and makes the changes; the operator `Forget`, which takes a call away, is ours. Each mutant
is tried in a copy of the tree, the worktree is left alone. What survives is shown as a difference: either a test is
missing, or the change means nothing.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.mutating
import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.operators.operator import Operator

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
SLOWER_MAX = 5.0
"""How much longer than without a change the tests may take before they count as failed: a loop has no end."""
LEFT_OUT = ("VariableInserter", "VariableReplacer", "RemoveDecorator")
"""Operators that need arguments, or whose mutants nearly always fail at import."""


class Forget(Operator):  # type: ignore[misc]
    """Takes a statement that is nothing but a call away, as somebody does who moves lines about."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Give the place of a call that stands alone."""
        if node.type == "expr_stmt" or node.parent is None or node.parent.type != "simple_stmt":
            return
        if node.type == "atom_expr" and node.children[-1].type == "trailer" and node.children[-1].children[0] == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Put `pass` there."""
        import parso

        blank = parso.parse("pass").children[0]
        blank = blank.children[0] if hasattr(blank, "children") else blank
        blank.prefix = node.get_first_leaf().prefix
        return blank

    @classmethod
    def examples(cls) -> tuple[()]:
        """Give none."""
        return ()


@dataclass(frozen=True)
class Mutant:
    """A change of a module at a line; `before` is the module without it, `source` with it."""

    module: str
    tests: tuple[str, ...]
    line: int
    operator: str
    before: str
    source: str


def operators() -> Iterator[tuple[str, Operator]]:
    """Give every operator by its name."""
    yield "Forget", Forget()
    for name in sorted(cosmic_ray.plugins.operator_names()):
        made = cosmic_ray.plugins.get_operator(name)
        if not made.arguments() and not name.endswith(LEFT_OUT):
            yield name.removeprefix("core/"), made()


def annotations(source: str) -> set[int]:
    """Give the lines of annotations, which nobody evaluates: a change there means nothing."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            found.update(range(node.annotation.lineno, (node.annotation.end_lineno or node.annotation.lineno) + 1))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            found.update(range(node.returns.lineno, (node.returns.end_lineno or node.returns.lineno) + 1))
    return found


def mutants(guard: dict[str, Any], sample: int, chance: random.Random) -> list[Mutant]:
    """Choose places of a module by chance, and one mutation at each."""
    source = (ROOT / guard["module"]).read_text(encoding="utf-8")
    typed = annotations(source)
    tree = get_ast(source)
    places: dict[tuple[int, int], list[tuple[str, Operator, int]]] = {}
    for name, operator in operators():
        positions = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(positions):
            if not ("BinaryOperator" in name and start[0] in typed):
                places.setdefault(start, []).append((name, operator, occurrence))
    made = []
    for place in chance.sample(sorted(places), min(sample, len(places))):
        for name, operator, occurrence in chance.sample(places[place], len(places[place])):
            changed = cosmic_ray.mutating.mutate_code(source, operator, occurrence)
            if changed is not None and changed != source and is_python(changed):
                made.append(Mutant(guard["module"], tuple(guard["tests"]), place[0], name, source, changed))
                break
    return made


def is_python(source: str) -> bool:
    """Tell whether a change left a module that can be compiled: what cannot be would be noticed by anybody."""
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def copy_tree(folder: Path) -> Path:
    """Copy what git knows, and what was made of it before; returns the copy."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    subprocess.run([PYTHON, "-m", "compileall", "-q", "."], cwd=folder, check=False, capture_output=True)
    return folder


def run(tree: Path, tests: tuple[str, ...], seconds_max: float | None = None) -> str:
    """Run tests in a tree; returns `passed`, `failed`, or `endless`. Raises when there was nothing to run."""
    command = [PYTHON, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:randomly"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    try:
        ended = subprocess.run(
            [*command, "--quick", *tests], cwd=tree, env=environment, capture_output=True, timeout=seconds_max
        )
    except subprocess.TimeoutExpired:
        return "endless"
    if ended.returncode not in (0, 1, 2, 4):  # a module that cannot be imported fails at collection, or in conftest.py
        raise SystemExit(f"{' '.join(tests)}: pytest ended with {ended.returncode}\n{ended.stdout.decode()[-2000:]}")
    return "passed" if ended.returncode == 0 else "failed"


def tried(tree: Path, mutant: Mutant, seconds_max: float) -> str:
    """Try one mutant in a tree, which is as before afterwards."""
    path = tree / mutant.module
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()  # it is known by the second and the size, which may be the mutant's too
    path.write_text(mutant.source, encoding="utf-8")
    try:
        return run(tree, mutant.tests, seconds_max)
    finally:
        path.write_text(mutant.before, encoding="utf-8")


def main() -> int:
    """Try the sample, print what survives and the score; returns 0 whatever it is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("modules", nargs="*", help="only modules whose path has one of these in it")
    options.add_argument("--sample", type=int, default=10, help="places a module (default: 10)")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = options.parse_args()
    guards = tomllib.loads((Path(__file__).parent / "guarded.toml").read_text(encoding="utf-8"))["guard"]
    guards = [g for g in guards if not given.modules or any(name in g["module"] for name in given.modules)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pgwitness-mutants-") as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(given.processes):
            trees.put(copy_tree(Path(folder) / str(number)))

        def unchanged(tests: tuple[str, ...]) -> float:
            tree = trees.get()
            try:
                started = time.monotonic()
                if run(tree, tests) != "passed":
                    raise SystemExit(f"{' '.join(tests)}: they fail without any change")
                return time.monotonic() - started
            finally:
                trees.put(tree)

        def attempt(mutant: Mutant) -> tuple[Mutant, str]:
            tree = trees.get()
            try:
                return mutant, tried(tree, mutant, 10 + SLOWER_MAX * seconds[mutant.tests])
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(given.processes) as pool:
            suites = sorted({tuple(guard["tests"]) for guard in guards})
            seconds = dict(zip(suites, pool.map(unchanged, suites), strict=True))
            chosen = [
                mutant
                for guard in guards
                for mutant in mutants(guard, given.sample, random.Random(f"{given.seed} {guard['module']}"))
            ]
            results = []
            for mutant, result in pool.map(attempt, chosen):
                results.append((mutant, result))
                if result == "passed":
                    show(mutant)
    score(results)
    print(f"seed {given.seed}, {given.sample} places a module, {time.monotonic() - began:.0f} s")
    return 0


def show(mutant: Mutant) -> None:
    """Print a survivor."""
    changed = difflib.unified_diff(mutant.before.splitlines(), mutant.source.splitlines(), n=0, lineterm="")
    lines = [line for line in changed if not line.startswith(("---", "+++", "@@"))]
    print("\n".join(["", f"{mutant.module}:{mutant.line} {mutant.operator}", *lines]), flush=True)


def score(results: list[tuple[Mutant, str]]) -> None:
    """Print how many were noticed, by module and of all."""
    print()
    for module in dict.fromkeys(mutant.module for mutant, _ in results):
        of_it = [result for mutant, result in results if mutant.module == module]
        print(f"{sum(result != 'passed' for result in of_it):4} of {len(of_it):3}  {module}")
    print(f"{sum(result != 'passed' for _, result in results):4} of {len(results):3}  noticed")


if __name__ == "__main__":
    sys.exit(main())
