"""A real Chromium, from the system; root installs it with apt-get where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

PATIENCE_MS = 15_000


def installed(package: str, *names: str) -> str:
    """The path of a program, by one of its names; its Debian package is installed if it is not there."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError(f"these tests need {names[0]}: install it, on Debian by apt-get install {package}")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *command], check=True, capture_output=True)
        found = shutil.which(names[0])
    assert found, f"{package} is installed, and {names[0]} is not in PATH"
    return found


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
