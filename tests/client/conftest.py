from __future__ import annotations

import pytest

from tests.client.network import Network, shop_in


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """The shop, for all tests of a module."""
    with shop_in(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def shop(serving):
    """The shop, with an empty ledger."""
    serving.reset()
    return serving


@pytest.fixture(scope="module")
def network():
    """What makes faults happen."""
    network = Network()
    yield network
    network.close()
