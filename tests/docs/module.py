"""A page of Chromium in which the modules on a page of the documentation run."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import ConsoleMessage, Error

from tests.browser.chromium import PATIENCE_MS, chromium

SOURCES = Path(__file__).parents[2] / "browser" / "src"
_HEAD = """<!doctype html><meta charset="utf-8">
<script type="importmap">{ "imports": { "retrysafe": "/.retrysafe/index.js" } }</script>
<body>
"""
_TAIL = """
<script type="module">
await import("/.retrysafe/.block.js").finally(() => (document.body.dataset.done = ""));
</script>
"""


def run_module(text: str, document: str, origin: str) -> list[str]:
    """Run a module to its end, as if a server had sent it.

    Args:
        text: of the module, which finds the package under its name.
        document: what its page has in it, as HTML.
        origin: of that server, which gets everything else that is asked for.

    Returns:
        What went wrong: exceptions, and assertions on the console that do not hold.
    """
    faults: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "assert":
            faults.append(f"{message.text} at line {message.location['lineNumber'] + 1} of the block")

    with chromium() as browser, browser.new_page(base_url=origin) as page:
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", heard)
        page.route("/.retrysafe/*.js", lambda route: route.fulfill(path=SOURCES / route.request.url.rpartition("/")[2]))
        page.route("/.retrysafe/.block.js", lambda route: route.fulfill(body=text, content_type="text/javascript"))
        page.route("/.retrysafe/", lambda route: route.fulfill(body=_HEAD + document + _TAIL, content_type="text/html"))
        page.goto("/.retrysafe/")
        try:
            page.wait_for_function("document.body.dataset.done !== undefined", timeout=PATIENCE_MS)
        except Error as error:
            faults.append(f"it does not come to its end: {error}")
    return faults
