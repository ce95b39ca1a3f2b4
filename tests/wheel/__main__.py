"""Builds the wheel and installs it as users do, by pip, `uv tool` and pipx, and once without a compiler.

`make wheel-check`. Dependencies come from the package index; a minute each, the first time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.wheel import Failed, Installation, built, sources, use

LIBRARIES = ["digests", "short lane"]
INSTALLERS = "uv>=0.9", "pipx>=1.8"


def main() -> int:
    """Try every way; print a line each, and give 1 where one fails."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-wheel-") as place:
        folder = Path(place)
        tools = environment(folder / "tools")
        subprocess.run([tools / "python", "-m", "pip", "install", "--quiet", *INSTALLERS], check=True)
        source = sources(folder)
        wheel, plain = built(source, folder / "native"), built(source, folder / "plain", compiler="false")
        failed = False
        for name, install, archive in (
            ("pip", by_pip, wheel),
            ("uv tool", by_uv, wheel),
            ("pipx", by_pipx, wheel),
            ("pip, no compiler", by_pip, plain),
        ):
            try:
                tried(install(folder / name.replace(", ", "-").replace(" ", "-"), archive, tools), archive is plain)
                print(f"{name}: in order ({archive.name})", flush=True)
            except (Failed, subprocess.CalledProcessError) as error:
                print(f"{name}: {error}", flush=True)
                failed = True
    return int(failed)


def environment(place: Path) -> Path:
    """Make an environment; give the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    return place / "bin"


def by_pip(place: Path, wheel: Path, tools: Path) -> Path:
    """Install as `pip install`."""
    programs = environment(place)
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    return place


def by_uv(place: Path, wheel: Path, tools: Path) -> Path:
    """Install as `uv tool install`."""
    where = {"UV_TOOL_DIR": str(place / "tools"), "UV_TOOL_BIN_DIR": str(place / "bin")}
    subprocess.run(
        [tools / "uv", "tool", "install", "--quiet", "--python", sys.executable, wheel],
        check=True,
        env={**os.environ, **where},
    )
    return place / "tools" / "pgwitness"


def by_pipx(place: Path, wheel: Path, tools: Path) -> Path:
    """Install as `pipx install`, which also links the page for `man`."""
    where = {"PIPX_HOME": str(place / "home"), "PIPX_BIN_DIR": str(place / "bin"), "PIPX_MAN_DIR": str(place / "man")}
    subprocess.run(
        [tools / "pipx", "install", "--quiet", "--python", sys.executable, wheel],
        check=True,
        env={**os.environ, **where},
    )
    if not (place / "man" / "man1" / "pgwitness.1").exists():
        raise Failed("pipx found no page for man")
    return place / "home" / "venvs" / "pgwitness"


def tried(place: Path, plain: bool) -> None:
    """Use an installation."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-used-") as folder:
        installed = Installation(place, Path(folder))
        use(installed, every_help=True)
        if installed.missing() != (LIBRARIES if plain else []):
            raise Failed(f"the doctor misses {installed.missing()}")


if __name__ == "__main__":
    sys.exit(main())
