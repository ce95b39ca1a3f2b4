"""Pictures of the console for the documentation, of the demo's evidence: `make screenshots`.

Runs the demo, serves its lake without a broker, and takes each page with Debian's Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pgwitness.core.config import load
from sinks.console import server, users
from sinks.console.asking import Asker
from tests.sinks.console import browsing
from tests.sinks.console.conftest import PASSWORD, Book, Records

IMAGES = Path(__file__).parents[3] / "docs" / "images"
BYTES_MAX = 200_000
WIDE = {"width": 1200, "height": 760}
WHO = "maria"


def main() -> None:
    """Take them."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-screenshots-") as name:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name) / "demo"
        if len(sys.argv) == 1:
            subprocess.run([sys.executable, "-m", "pgwitness", "demo", "--dir", str(place)], check=True)
        _take(place, Path(name) / "users.json")


def _take(place: Path, file: Path) -> None:
    config = load(place / "pgwitness.toml")
    user = users.User(name=WHO, roles=["analyst", "reviewer"], password=users.hashed(PASSWORD))
    users.change(file, lambda _: {WHO: user})
    console = type(config.console)(users_file=file)
    config = type(config)(lake=config.lake, policies=config.policies, seal=config.seal, console=console)
    app = server.make(config, Records(), lambda _uid, _value: None, Asker(config), Book(), lambda: False)
    IMAGES.mkdir(exist_ok=True)
    with (
        browsing.served(app) as url,
        browsing.chromium() as browser,
        browsing.window(browser, url, viewport=WIDE) as window,
        browsing.window(browser, url, viewport=browsing.PHONE, color_scheme="dark") as phone,
    ):
        for one in (window, phone):
            one.log_in(WHO, PASSWORD)
        window.visit("/alerts")
        alert = window.page.locator(".inbox a").first.get_attribute("href") or ""
        paths = {"now": "/", "alerts": "/alerts", "alert": alert, "person": "/people?name=support-agent"}
        paths |= {"policies": "/policies", "policy": "/policies/new_address"}
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
