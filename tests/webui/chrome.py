"""Chromium for tests, in a thread of its own: Playwright's loop and pytest's do not like each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Found = TypeVar("Found")
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
SERIOUS = ("serious", "critical")


class Chrome:
    """One browser; each visit has cookies of its own."""

    def __init__(self, program: Path, axe: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._axe = axe.read_text()
        self._browser: Browser = self._thread.submit(self._start, program).result(240)

    def _start(self, program: Path) -> Browser:
        # Not above: a fixture installs it.
        from playwright.sync_api import sync_playwright
        from webui.browser import ARGUMENTS

        self._playwright = sync_playwright().start()
        return self._playwright.chromium.launch(executable_path=program, args=ARGUMENTS)

    def visit(self, do: Callable[[Page], Found], *, phone: bool = False, dark: bool = False) -> Found:
        """Run something with a page in a browser that nobody has used before."""
        return self._thread.submit(self._visit, do, phone, dark).result(240)

    def _visit(self, do: Callable[[Page], Found], phone: bool, dark: bool) -> Found:
        context = self._browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            has_touch=phone,
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(15_000)
        try:
            return do(context.new_page())
        finally:
            context.close()

    def violations(self, page: Page) -> list[str]:
        """What axe finds on the page as it is now, and how bad that is."""
        page.evaluate(self._axe)
        found: dict[str, Any] = page.evaluate("axe.run(document)")
        return [
            f"{rule['impact']}: {rule['id']} at {page.url}: {rule['nodes'][0]['html'][:200]}"
            for rule in found["violations"]
        ]

    def close(self) -> None:
        def stop() -> None:
            self._browser.close()
            self._playwright.stop()

        self._thread.submit(stop).result(30)
        self._thread.shutdown()


@contextmanager
def watched(page: Page, site: str) -> Iterator[list[str]]:
    """What goes wrong on pages of a site meanwhile: errors of scripts, what is not there, and what its own policy forbids."""
    said: list[str] = []

    def note(message: Any) -> None:
        if message.type == "error" and message.location["url"].startswith(site):
            said.append(f"{message.text} {message.location['url']}")

    page.on("console", note)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield said
