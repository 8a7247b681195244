"""The pytest plugin: the fixture `retry_check`, and a section at the end that says what its checks came to.

pytest loads this wherever retrysafe is installed, so it imports nothing that only a check needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

_SECTION = "retrysafe"
_UNTRIED = ("skip", "inconclusive")


@pytest.fixture
def retry_check(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`retrysafe.testing.retry_check`, whose report is shown with the test that made it.

    `retry_check(client, "POST", "/orders", json={"reference": "{{unique}}"}, effects=count_rows)` raises when the
    operation is not safe to retry. `pytest -rA` shows every case of it, `-v` why cases were not tried.
    """
    from retrysafe.testing import NotSafeToRetry, RetryReport  # noqa: PLC0415 - only for those who check
    from retrysafe.testing import retry_check as check  # noqa: PLC0415 - as above

    def shown(report: RetryReport) -> RetryReport:
        # With the test's own report, which also finds its way from a worker of pytest-xdist.
        request.node.add_report_section("call", _SECTION, str(report))
        return report

    def checking(*arguments: Any, **options: Any) -> RetryReport:
        try:
            return shown(check(*arguments, **options))
        except NotSafeToRetry as unsafe:
            shown(unsafe.report)
            raise

    return checking


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What each check came to, in a line; with `-v`, why cases were not tried."""
    verbose = config.option.verbose > 0  # `get_verbosity` is newer than the pytest of some who have retrysafe installed
    lines = [line for report in _calls(terminalreporter) for line in _lines(report, verbose=verbose)]
    if lines:
        terminalreporter.section(_SECTION)
        for line in lines:
            terminalreporter.write_line(line)


def _calls(terminalreporter: Any) -> Iterator[Any]:
    for reports in terminalreporter.stats.values():
        yield from (report for report in reports if getattr(report, "when", "") == "call")


def _lines(report: Any, *, verbose: bool) -> Iterator[str]:
    for title, content in report.sections:
        if title != f"Captured {_SECTION} call":
            continue
        *cases, total = content.splitlines()
        yield f"{report.nodeid}: {total}"
        is_untried = False
        for line in cases if verbose else ():
            is_untried = line.startswith(_UNTRIED) or (is_untried and line.startswith(" "))
            if is_untried:
                yield f"  {line}"
