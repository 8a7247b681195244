from __future__ import annotations

import pytest

from tests.browser.chromium import PATIENCE_MS, chromium
from tests.browser.tickets import tickets
from tests.client.network import Network


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests of a module; while it runs, asyncio runs on no other loop of its thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def network():
    """What makes faults happen."""
    network = Network()
    yield network
    network.close()


@pytest.fixture(scope="module")
def serving(network, tmp_path_factory):
    """The example, with a network in front that can be hurt."""
    with tickets(tmp_path_factory.mktemp("tickets"), network) as shop:
        yield shop


@pytest.fixture
def shop(serving):
    """The example, with a network that is sound."""
    serving.faults.clear()
    return serving


@pytest.fixture
def context(browser, shop):
    """A profile of its own: cookies, storage, tabs. Pauses that are drawn are none."""
    with browser.new_context(base_url=shop.url) as context:
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script("Math.random = () => 0")
        yield context
