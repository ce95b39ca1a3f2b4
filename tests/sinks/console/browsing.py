"""A real Chromium on a console with a socket, in which whatever a page must not do is noticed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgwitness.core.config import Console
from sinks.console import server

if TYPE_CHECKING:  # it takes half a second, and every process of the tests reads this module
    from playwright.sync_api import Browser, BrowserContext, Page, Request

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
HERE = Path(__file__).parent
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TRAP = """
(() => {
  window.ran = (number) => report('ran ' + number);
  for (const name of ['alert', 'confirm', 'prompt']) window[name] = () => report(name);
  document.addEventListener('securitypolicyviolation', (event) =>
    report(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
})();
"""
"""Runs in each page before anything of it: tells of a script that ran, and of what the policy has kept from running."""


@dataclass
class Window:
    """A browser's window, with what happened in it that must not: `faults`."""

    context: BrowserContext
    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def visit(self, path: str) -> int:
        """Open a page, and say its status."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        return answer.status

    def log_in(self, name: str, password: str) -> None:
        """Fill in the form."""
        self.visit("/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("button", name="Log out").wait_for()

    def barriers(self, rules: list[str] | None = None) -> list[str]:
        """Give what axe finds in a page, all of it or of some rules: which rule, and where."""
        if not self.page.evaluate("typeof axe === 'object'"):
            self.page.evaluate(axe())
        only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
        found: dict[str, Any] = self.page.evaluate(
            "(only) => axe.run(document, {runOnly: only, resultTypes: ['violations']})", only
        )
        return [f"{one['id']}: {node['target']}" for one in found["violations"] for node in one["nodes"][:3]]


def axe() -> str:
    """Read axe, as it was published."""
    told = json.loads((HERE / "axe" / "vendored.json").read_text())["axe.min.js"]
    content = (HERE / "axe" / "axe.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    return content.decode()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve a console as the command does, on a port of this machine; gives its address."""
    settings = Console(listen="127.0.0.1:0")
    with server.listen(settings) as bound:
        serving = server.serving(settings, app)
        thread = threading.Thread(target=lambda: asyncio.run(serving.serve([bound])), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        serving.should_exit = True
        thread.join(10)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, which resolves no name."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, url: str, **settings: Any) -> Iterator[Window]:
    """Open a window with cookies of its own."""
    context = browser.new_context(**({"viewport": WIDE, "timezone_id": "Europe/Vienna"} | settings))
    context.set_default_timeout(20_000)
    page = context.new_page()
    made = Window(context, page, url)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            made.faults.append(f"asked for {request.url}")

    context.on("request", asked)
    page.on("dialog", lambda dialog: (made.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: made.faults.append(f"error {error}"))
    page.on("popup", lambda _: made.faults.append("another window"))
    context.expose_function("report", lambda what: made.faults.append(what))
    context.add_init_script(TRAP)
    yield made
    context.close()
