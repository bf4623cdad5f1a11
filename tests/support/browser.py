"""Debian's Chromium, driven by Playwright, without a screen; and an exporter of its own with a fleet to look at.

Whatever a page asks of another address, every error on its console and every violation of its policy is kept: a test fails on any.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.support import served_exporter
from tests.support.served_exporter import exporter_of
from virtflow.exporter.service import Exporter

SECONDS: Final = 30.0
PHONE: Final = {"width": 390, "height": 844}
WIDE: Final = {"width": 1440, "height": 900}

expect.set_options(timeout=SECONDS * 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; it ends with the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Debian's package chromium is missing: scripts/prepare test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--disable-gpu", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(**fields: object) -> Iterator[tuple[Exporter, str]]:
    """An exporter in a thread, and its address."""
    exporter = exporter_of(**fields)
    with served_exporter.served(exporter) as url:
        yield exporter, url


class Visit:
    """A page at one address, and what went wrong on it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        """An empty page; ``url`` is the only address that it may ask."""
        self.page: Page = context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.wrong: list[str] = []
        self._url = url
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)

    def go(self, path: str) -> Page:
        """Opens a path."""
        self.page.goto(f"{self._url}{path}")
        return self.page

    def lively(self, path: str) -> Page:
        """Opens a path and waits until its scripts have filled in the first answers."""
        self.go(path)
        expect(self.page.locator("#live")).to_have_text("Live")
        return self.page

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self._url).netloc:
            self.wrong.append(f"asked {request.url}")


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:  # noqa: ANN401, Playwright's own options
    """A visit in a context of its own: ``viewport``, ``color_scheme``, ``java_script_enabled``... Fails at its end for anything that went wrong."""
    context = browser.new_context(**({"viewport": WIDE} | options))
    try:
        visited = Visit(context, url)
        yield visited
        assert not visited.wrong, visited.wrong
    finally:
        context.close()


def became(page: Page, condition: str) -> None:
    """Waits until an expression of the page is true; fails after the time that everything here has.

    Playwright's own wait compiles the expression again at each look, which our pages' policy forbids from the second look on.
    """
    page.evaluate(
        "() => new Promise((resolve, reject) => {"
        f" const ends = performance.now() + {SECONDS * 1000};"
        f" const look = () => {{ if ({condition}) resolve(); else if (performance.now() > ends) reject(new Error('never true'));"
        " else requestAnimationFrame(look); };"
        " look(); })"
    )
