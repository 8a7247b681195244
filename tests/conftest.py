"""What every test gets: Hypothesis settings, and no asyncio mishap goes unseen.

`RETRYSAFE_PROVE=1` (`make prove`) multiplies the examples of every property, to `RETRYSAFE_EXAMPLES`.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from retrysafe.operation.handle import begin_without

# The blob that is printed with a failure replays it: @reproduce_failure(...). Deadlines measure the
# machine, not the code.
settings.register_profile("quick", max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "prove", max_examples=int(os.environ.get("RETRYSAFE_EXAMPLES", "5000")), deadline=None, print_blob=True
)
settings.load_profile("prove" if os.environ.get("RETRYSAFE_PROVE") else "quick")

# By which cases are chosen where not all are taken. All workers have it from the process that starts them.
os.environ.setdefault("RETRYSAFE_CASES", str(random.SystemRandom().randrange(1 << 32)))

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """How to take the same cases again."""
    return f"RETRYSAFE_CASES={os.environ['RETRYSAFE_CASES']} chooses the same cases again"


_LONGEST = ("tests/prove", "tests/verify/test_m", "tests/stores", "tests/lab", "tests/verify", "tests/operation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, so that no worker is left alone with it at the end."""
    first = len(_LONGEST)
    places = {item.nodeid: [i for i, name in enumerate(_LONGEST) if item.nodeid.startswith(name)] for item in items}
    items.sort(key=lambda item: min(places[item.nodeid], default=first))


def pytest_collection_finish() -> None:
    """Whoever collects garbage need not go through all tests each time, and need not look for it so often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc] # the plugin has no types
    """Tests that share fixtures go to one worker; those that kill processes share none, and each takes long."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return nodeid if nodeid.startswith("tests/prove/") else scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Deal the tests out to workers."""
    return _Scheduling(config, log)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_operation_is_current():
    """A test client that closes no response, as every server does, leaves the operation of the handler behind."""
    begin_without()


@pytest.fixture(autouse=True)
def asyncio_is_silent():
    """Fail on what asyncio only logs: tasks destroyed while pending, exceptions that nobody retrieved."""
    kept = _Kept()
    logger = logging.getLogger("asyncio")
    logger.addHandler(kept)
    yield
    logger.removeHandler(kept)
    assert not kept.messages
