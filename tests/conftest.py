"""What every test gets: Hypothesis settings, and no asyncio mishap goes unseen.

`RETRYSAFE_PROVE=1` (`make prove`) multiplies the examples of every property, to `RETRYSAFE_EXAMPLES`.
"""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import settings

# The blob that is printed with a failure replays it: @reproduce_failure(...). Deadlines measure the
# machine, not the code.
settings.register_profile("quick", max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "prove", max_examples=int(os.environ.get("RETRYSAFE_EXAMPLES", "5000")), deadline=None, print_blob=True
)
settings.load_profile("prove" if os.environ.get("RETRYSAFE_PROVE") else "quick")


_LONGEST = ("tests/stores", "tests/prove", "tests/verify", "tests/lab", "tests/model", "tests/operation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def asyncio_is_silent():
    """Fail on what asyncio only logs: tasks destroyed while pending, exceptions that nobody retrieved."""
    kept = _Kept()
    logger = logging.getLogger("asyncio")
    logger.addHandler(kept)
    yield
    logger.removeHandler(kept)
    assert not kept.messages
