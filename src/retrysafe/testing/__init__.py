"""For users, and for authors of stores.

`retry_check` tries whether an operation of an application is safe to retry, in any test, and `retry_check_async` where
an event loop runs. `ManualClock` is time in the hand of a test. `store_contract` is the promise of `stores.contract` as
a suite, for any store; `retrysafe.testing.machine` is the same promise as a property. Needs pytest; the checks need the
extra `pytest`, and the machine needs Hypothesis.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "retrysafe.testing.cases_doubt",
    "retrysafe.testing.cases_edges",
    "retrysafe.testing.cases_extras",
    "retrysafe.testing.cases_lists",
    "retrysafe.testing.cases_many",
    "retrysafe.testing.cases_moves",
    "retrysafe.testing.cases_races",
    "retrysafe.testing.cases_store",
    "retrysafe.testing.cases_time",
    "retrysafe.testing.machine",
    "retrysafe.testing.subject",
)

from retrysafe.testing.clock import ManualClock  # noqa: E402 after the line that makes its assertions speak
from retrysafe.testing.contract import store_contract  # noqa: E402 as above
from retrysafe.testing.retries import retry_check, retry_check_async  # noqa: E402 as above
from retrysafe.testing.retry_report import CaseOutcome, NotSafeToRetry, RetryReport  # noqa: E402 as above
from retrysafe.testing.subject import MakeStore  # noqa: E402 as above

__all__ = [
    "CaseOutcome",
    "MakeStore",
    "ManualClock",
    "NotSafeToRetry",
    "RetryReport",
    "retry_check",
    "retry_check_async",
    "store_contract",
]
