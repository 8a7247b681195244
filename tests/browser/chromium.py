"""A real Chromium: the system's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

from tests.installed import installed

PATIENCE_MS = 15_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, for as long as the context lasts; pages that are left stay as they are, for the back button."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=installed("chromium", "chromium", "chromium-browser", "google-chrome-stable"),
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            browser.close()
