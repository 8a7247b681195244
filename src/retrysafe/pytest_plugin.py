"""The pytest plugin: the fixture `retry_check`, and a section at the end that says what its checks came to.

pytest loads this wherever retrysafe is installed, so it imports nothing that only a check needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_SHOWN = pytest.StashKey[list[str]]()


@pytest.fixture
def retry_check(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`retrysafe.testing.retry_check`, whose report is shown with the test that made it.

    `retry_check(client, "POST", "/orders", json={"reference": "{{unique}}"}, effects=count_rows)` raises when the
    operation is not safe to retry. `pytest -rA` shows every case of it, `-v` why cases were not tried.
    """
    from retrysafe.testing import NotSafeToRetry, RetryReport  # noqa: PLC0415 - only for those who check
    from retrysafe.testing import retry_check as check  # noqa: PLC0415 - as above

    def shown(report: RetryReport) -> RetryReport:
        request.node.add_report_section("call", "retrysafe", str(report))
        request.config.stash.setdefault(_SHOWN, []).append(_summary(request.node.nodeid, report, request.config))
        return report

    def checking(*arguments: Any, **options: Any) -> RetryReport:
        try:
            return shown(check(*arguments, **options))
        except NotSafeToRetry as unsafe:
            shown(unsafe.report)
            raise

    return checking


def _summary(nodeid: str, report: Any, config: pytest.Config) -> str:
    lines = [f"{nodeid}: {report.total}"]
    if config.get_verbosity() > 0:
        untried = {**report.skipped, **report.inconclusive}
        lines += [f"  {report[id_].verdict}  {id_}  {reason}" for id_, reason in untried.items()]
    return "\n".join(lines)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What each check came to, in a line; with `-v`, why cases were not tried."""
    if shown := config.stash.get(_SHOWN, []):
        terminalreporter.section("retrysafe")
        for text in shown:
            terminalreporter.write_line(text)
