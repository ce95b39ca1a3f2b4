"""Of the packages that detectors use, what is loaded is what they use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detectors.bare_import import without_init


def run(program: str) -> None:
    """Run a program in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_judge_loads_nothing_that_only_others_need() -> None:
    """Neither statistics for models that are not used, nor a database toolkit, nor a terminal."""
    run(
        "import sys, detectors.judge, detectors.behaviour.model\n"
        "unwanted = {'scipy.stats', 'scipy.sparse', 'sqlalchemy', 'prompt_toolkit', 'typer', 'river.drift', 'cel'}\n"
        "assert not unwanted & set(sys.modules), unwanted & set(sys.modules)"
    )


def test_a_package_can_be_had_whole_all_the_same() -> None:
    """Who imports the packages later gets everything of them, with the classes that are in use already."""
    run(
        "from detectors.policy.expressions import cel\n"
        "from detectors.behaviour.learners import ADWIN, LODA, HalfSpaceTrees, Histogram, PageHinkley\n"
        "import cel as whole\n"
        "from river import anomaly, drift, sketch, tree\n"
        "assert whole.Context is cel.Context and whole.cli\n"
        "assert (drift.ADWIN, drift.PageHinkley, anomaly.LODA) == (ADWIN, PageHinkley, LODA)\n"
        "assert (anomaly.HalfSpaceTrees, sketch.Histogram) == (HalfSpaceTrees, Histogram)\n"
        "assert drift.KSWIN and tree.HoeffdingTreeClassifier"
    )


def test_a_package_that_is_not_there_is_named() -> None:
    """What is not installed is told as any import tells it."""
    with (
        pytest.raises(ModuleNotFoundError, match="no package nothing_of_that_name"),
        without_init("nothing_of_that_name"),
    ):
        pass
