"""The kept demo, used by somebody who has read no page of the documentation: five tasks, in a real Chromium.

What they look for they find by the words on the pages: links, headings, labels and buttons.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.sinks.console import browsing

CONSOLE = re.compile(r"console: (?P<url>http://\S+?)/ as (?P<name>\S+) with the password (?P<password>\S+)")
KEY = re.compile(r"her key, .*: (?P<key>\S+)")
PROOF = re.compile(r"^\s+(?P<command>\S.* verify .*--checkpoint .*)$", re.MULTILINE)
PATIENCE_MS = 90_000
WHY_SILENT = "the service has moved, and everybody knows"
WHY_APPROVED = "agreed with finance, as last month"


@dataclass
class Tour:
    """What came of the tasks, and what happened in the browser that must not."""

    who: str = ""
    approved: str = ""
    silenced: str = ""
    report: str = ""
    proof: str = ""
    faults: list[str] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)


def take(said: str) -> Tour:
    """Do the tasks by what the demo has printed."""
    door, key, proof = (one.search(said) for one in (CONSOLE, KEY, PROOF))
    assert door is not None, said
    assert key is not None, said
    assert proof is not None, said
    tour = Tour()
    with browsing.chromium() as browser, browsing.window(browser, door["url"]) as window:
        window.context.set_default_timeout(PATIENCE_MS)
        window.log_in(door["name"], door["password"])
        _find(window, tour)
        _approve(window, tour, Path(key["key"]))
        _silence(window, tour, Path(key["key"]))
        _report(window, tour)
        tour.faults = list(window.faults)
    # What is printed is for the shell that the demo was started from, which has its program on the PATH.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = proof["command"]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, env=environment)
    tour.proof = done.stdout + done.stderr
    return tour


def _find(window: browsing.Window, tour: Tour) -> None:
    """Who deleted the promotions? The inbox says it; its page shows the rows."""
    page = window.page
    page.get_by_role("link", name="Alerts", exact=True).click()
    page.get_by_role("link", name=re.compile("rows .*of public.promotions")).first.click()
    tour.who = page.locator("main").inner_text()
    tour.barriers += window.barriers()


def _approve(window: browsing.Window, tour: Tour, key: Path) -> None:
    page = window.page
    page.get_by_role("link", name="Approvals", exact=True).click()
    page.get_by_role("link", name=re.compile("pricing-agent")).first.click()
    tour.barriers += window.barriers()
    page.get_by_role("textbox", name="Why").fill(WHY_APPROVED)
    page.get_by_role("button", name="Approve").click()
    page.get_by_label("Your private key").set_input_files(key)
    page.get_by_role("button", name="Sign and send").click()
    page.get_by_text("Your decision was sent").wait_for()
    tour.approved = page.locator("main").inner_text()


def _silence(window: browsing.Window, tour: Tour, key: Path) -> None:
    page = window.page
    page.get_by_role("link", name="Alerts", exact=True).click()
    page.get_by_role("link", name=re.compile("where it never came from")).first.click()
    address = page.url
    page.get_by_label("It was a").select_option("false-positive")
    page.get_by_role("textbox", name="Why").fill(WHY_SILENT)
    page.get_by_label("It holds for").fill("7d")
    page.get_by_role("button", name="Go on to sign it").click()
    page.get_by_label("Your private key").set_input_files(key)
    page.get_by_role("button", name="Sign and send").click()
    page.get_by_text("Your verdict was sent").wait_for()
    for _ in range(60):  # until the worker's answer has landed
        page.goto(address)
        tour.silenced = page.locator("main").inner_text()
        if WHY_SILENT in tour.silenced:
            return
        page.wait_for_timeout(500)


def _report(window: browsing.Window, tour: Tour) -> None:
    page = window.page
    page.get_by_role("link", name="Reports", exact=True).click()
    tour.barriers += window.barriers()
    page.get_by_role("button", name="Show it").click()
    page.get_by_role("heading").first.wait_for()
    tour.report = page.locator("body").inner_text()
