"""The wheel has what the program needs, and brings completion and a page for `man`; it is used where no sources are.

`make wheel-check` installs it by pip, uv and pipx with everything that it depends on from the package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pgwitness.cli.completion import EXIT_CODES, manual, script, walk
from pgwitness.cli.program import main
from tests.conftest import leave_out
from tests.deploy.test_deploy import PACKAGES, ROOT
from tests.wheel import Installation, built, sources, use


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this folder, unpacked."""
    return sources(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of it."""
    return built(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def plain(wheel: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was built where there is no compiler, after the other."""
    return built(source, tmp_path_factory.mktemp("plain"), compiler="false")


def installed(wheel: Path, place: Path) -> Installation:
    """Install a wheel alone into a new environment; what it depends on is this environment's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "environment"], check=True)
    (packages,) = (place / "environment").glob("lib/python3*/site-packages")
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.search("pgwitness|editable|^distutils", found.name):
            (packages / found.name).symlink_to(found)
    python = str(place / "environment" / "bin" / "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
    ]
    subprocess.run([*pip, "--disable-pip-version-check", wheel], check=True)
    return Installation(place / "environment", place / "elsewhere")


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel, installed."""
    return installed(wheel, tmp_path_factory.mktemp("installed"))


def test_everything_of_the_packages_is_in_the_wheel(wheel: Path, plain: Path) -> None:
    """All that git keeps in them, and the libraries where there is a compiler; else completion and manual alone."""
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    wanted = {name for name in kept if name and (ROOT / name).exists()}
    libraries = {"sinks/lake/rows/digests.native", "collectors/gateway/wire/native.native"}
    for file, more in ((wheel, libraries), (plain, set())):
        names = {name for name in zipfile.ZipFile(file).namelist() if not name.endswith("/")}
        apart = {name for name in names if re.match(r"pgwitness-[^/]+\.(dist-info|data)/", name)}
        assert names - apart == wanted | more, file.name
    assert plain.name.endswith("-py3-none-any.whl")
    assert "-py3-none-linux" in wheel.name


def test_the_wheel_is_used_where_no_sources_are(installation: Installation) -> None:
    """Commands that need the packaged policies, templates and assets do, and the console serves its page."""
    use(installation, every_help=False)


def test_the_doctor_misses_the_libraries_of_a_wheel_without_them(plain: Path, tmp_path: Path) -> None:
    """It names both, in an installation in which everything else is."""
    found = installed(plain, tmp_path)
    found.prepare()
    assert found.missing() == ["digests", "short lane"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("pgwitness seal i", {"init"}),
        ("pgwitness db install --lo", {"--lock-timeout", "--log-level"}),
        ("pgwitness collect w", {"wal"}),
        ("pgwitness worker --log-level wa", {"warning"}),
        ("pgwitness completion z", {"zsh"}),
    ],
)
def test_bash_completes_by_what_the_wheel_brings(installation: Installation, line: str, wanted: set[str]) -> None:
    """The installed script, in a bash, asks the installed program."""
    file = installation.environment / "share" / "bash-completion" / "completions" / "pgwitness"
    assert file.read_text() == script("bash")
    words = line.split(" ")
    program = (
        "enable -n compopt 2>/dev/null; compopt() { :; }\n"
        f'set -e; source "{file}"\n'
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        '_pgwitness_completion pgwitness; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    path = f"{installation.program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program],
        env={**installation.variables, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse(shell: str) -> None:
    """By their own shell, where it is installed; all name the program."""
    assert "_PGWITNESS_COMPLETE" in script(shell)
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script(shell), text=True, check=True)


def test_the_manual_names_every_command_and_option(installation: Installation) -> None:
    """`man` shows it without a complaint: each command, each option of it, the exit codes."""
    file = installation.environment / "share" / "man" / "man1" / "pgwitness.1"
    assert file.read_text() == manual("0.1.0")
    groff = shutil.which("groff") or leave_out("groff is not installed (Debian: apt-get install groff-base)")
    done = subprocess.run(
        [str(groff), "-man", "-ww", "-Tutf8", "-P-c", "-P-b", "-P-u", file], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    shown = " ".join(done.stdout.replace("\u2010", "-").split())
    assert all(meaning.split()[0] in shown for _, meaning in EXIT_CODES)
    for path, command in walk(main):
        assert path in shown
        for parameter in command.params:
            assert all(option in shown for option in parameter.opts if option.startswith("--")), path
