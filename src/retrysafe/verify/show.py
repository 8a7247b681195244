"""Shows a run while it goes on. Colours and the bar only where a terminal can show them; `NO_COLOR` is honoured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from retrysafe.verify.case import Case, Result
from retrysafe.verify.probe import Run
from retrysafe.verify.report import text
from retrysafe.verify.runner import run_cases
from retrysafe.verify.verdict import Verdict


def watch(run: Run, cases: Sequence[Case], jobs: int) -> list[Result]:
    """Run cases and print each as it ends, then every finding in full and the sum."""
    console, errors = (
        Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True) for stderr in (False, True)
    )
    for line in text.heading(run):
        console.print(line)
    console.print()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        task = bars.add_task("cases", total=len(cases))
        # On a terminal, only what goes the way of the bar is printed above it; elsewhere output is output.
        above = errors if errors.is_terminal and console.is_terminal else console
        results = asyncio.run(run_cases(run, cases, _teller(above, lambda: bars.advance(task)), jobs))
    found = [result for result in results if result.findings]
    for result in found:
        console.print()
        for line in text.finding(result):
            console.print(line, style="" if line.startswith(" ") else text.style(result))
    console.print()
    failed = any(result.verdict is Verdict.FAIL for result in results)
    console.print(text.total(results, run), style="red" if failed else "bold")
    return results


def _teller(console: Console, advance: Callable[[], None]) -> Callable[[Result], None]:
    def tell(result: Result) -> None:
        console.print(text.line(result), style=text.style(result))
        advance()

    return tell
