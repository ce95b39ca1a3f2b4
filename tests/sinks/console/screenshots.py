"""Pictures of the console for the documentation, of the demo as it is kept: `make screenshots`.

Runs `pgwitness demo --keep`, logs in as it says, and takes each page with Debian's Chromium. With the name of a file
that holds what a demo has printed that is still kept, it takes that one.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgwitness.demo.servers import wait_for
from tests.demo.tour import CONSOLE
from tests.sinks.console import browsing

IMAGES = Path(__file__).parents[3] / "docs" / "images"
BYTES_MAX = 200_000
WIDE = {"width": 1200, "height": 760}
PATIENCE_MS = 90_000


def main() -> None:
    """Take them."""
    if len(sys.argv) > 1:
        _take(Path(sys.argv[1]).read_text())
        return
    with kept() as said:
        _take(said)


@contextmanager
def kept() -> Iterator[str]:
    """Have a demo that is kept; gives what it has printed."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-screenshots-") as name:
        place, output = Path(name) / "demo", Path(name) / "said"
        with output.open("w") as printed:
            demo = subprocess.Popen(
                [sys.executable, "-m", "pgwitness", "demo", "--keep", "--dir", str(place)], stdout=printed
            )
        try:
            wait_for(lambda: "Ctrl-C" in output.read_text() or demo.poll() is not None, 600, "the demo is kept")
            yield output.read_text()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(90)


def _take(said: str) -> None:
    door = CONSOLE.search(said)
    assert door is not None, said
    IMAGES.mkdir(exist_ok=True)
    with (
        browsing.chromium() as browser,
        browsing.window(browser, door["url"], viewport=WIDE) as window,
        browsing.window(browser, door["url"], viewport=browsing.PHONE, color_scheme="dark") as phone,
    ):
        for one in (window, phone):
            one.context.set_default_timeout(PATIENCE_MS)
            one.context.set_default_navigation_timeout(PATIENCE_MS)
            one.log_in(door["name"], door["password"])
        window.visit("/alerts")
        named = window.page.get_by_role("link", name=re.compile("rows .*of public.promotions"))
        alert = named.first.get_attribute("href") or ""
        window.visit("/approvals")
        waiting = window.page.get_by_role("link", name=re.compile("pricing-agent"))
        approval = waiting.first.get_attribute("href") or ""
        paths = {"now": "/", "alerts": "/alerts", "approval": approval, "policies": "/policies"}
        for title, path in paths.items():
            _shoot(window, path, title)
        _shoot(phone, alert, "alert-phone")


def _shoot(window: browsing.Window, path: str, title: str) -> None:
    assert window.visit(path) == 200, path
    window.page.evaluate("document.fonts.ready")
    picture = IMAGES / f"console-{title}.png"
    window.page.screenshot(path=picture)
    assert picture.stat().st_size < BYTES_MAX, f"{picture} is too large"
    print(picture, picture.stat().st_size)


if __name__ == "__main__":
    main()
