"""How far a proof is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Told = Callable[[int], None]
_LINE_EVERY_S = 15.0


@contextmanager
def progress(title: str, total: int) -> Iterator[Told]:
    """Show how far something is, on standard error; the function is told how much more is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total).add
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda more: bars.advance(task, more)


class _Lines:
    """One line at first, and one whenever some time has passed."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._began_s = self._told_s = time.monotonic()
        sys.stderr.write(f"{title}: {total:,} to do\n")

    def add(self, more: int) -> None:
        """So much more is done."""
        self._done += more
        now_s = time.monotonic()
        if now_s - self._told_s < _LINE_EVERY_S or not self._done:
            return
        self._told_s = now_s
        left_s = (now_s - self._began_s) / self._done * max(0, self._total - self._done)
        sys.stderr.write(f"{self._title}: {self._done:,} of {self._total:,}, {spoken(left_s)} left\n")


def spoken(seconds: float) -> str:
    """A duration for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
