"""A headless Chromium for tests; they skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page, and what it did that it should not: asked other hosts, opened dialogs, failed in scripts.

    Parameters
    ----------
    page : Page
    own : str
        What the addresses of its own requests start with.
    """

    def __init__(self, page: Page, own: str) -> None:
        self.page = page
        self.foreign_requests: list[str] = []
        self.dialogs: list[str] = []
        self.script_errors: list[str] = []
        page.on("request", lambda request: self._requested(request.url, own))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.script_errors.append(str(error)))

    def _requested(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.foreign_requests.append(url)

    def assert_harmless(self) -> None:
        assert (self.foreign_requests, self.dialogs, self.script_errors) == ([], [], [])
