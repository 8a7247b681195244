"""What the demo prints. Colours and bars only where a terminal can show them; `NO_COLOR` is honoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from retrysafe.demo.client import Traffic
from retrysafe.demo.plan import Fault, Order
from retrysafe.demo.tally import Tally, suppressed
from retrysafe.errors import ConfigurationError

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'the demo needs {missing.name}: pip install "retrysafe[gateway]"']) from missing

_CURL = (
    "curl -i {url}/orders -H 'Content-Type: application/json' -H 'X-Account-Id: you' "
    "-H 'Idempotency-Key: \"try-me-1\"' "
    """-d '{{"order":"try-me-1","item":"tea","quantity":1,"card":"card-you"}}'"""
)


@contextmanager
def progress(titles: Sequence[str], total: int) -> Iterator[list[Callable[[], None]]]:
    """Progress bars on standard error, if that is a terminal; one function per title, to advance it by one."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield [_advancer(bars, title, total) for title in titles]


def show_plan(console: Console, plan: Sequence[Order], seed: int) -> None:
    """Say what is about to be sent to both shops."""
    met = Counter(fault for order in plan for fault in order.faults)
    faults = ", ".join(f"{met[fault]:,} {fault}" for fault in Fault if fault is not Fault.NONE)
    console.print(f"{len(plan):,} orders to each shop, one lossy client (seed {seed})", style="bold", soft_wrap=True)
    console.print(f"faults: {faults}; {met[Fault.NONE]:,} orders meet none", soft_wrap=True)


def show_tallies(console: Console, bare: Tally, protected: Tally, bare_saw: Traffic, protected_saw: Traffic) -> None:
    """Both tallies side by side, and how many duplicates did not happen."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("from the shops' own tables")
    table.add_column("bare", justify="right")
    table.add_column("retrysafe", justify="right")
    for title, of in _ROWS:
        table.add_row(title, of(bare), of(protected))
    table.add_row("duplicates", _good_if_zero(bare.duplicates), _good_if_zero(protected.duplicates))
    table.add_row("charged twice", _euros(bare), _euros(protected))
    table.add_row("requests that were sent whole", f"{bare_saw.sent_whole:,}", f"{protected_saw.sent_whole:,}")
    table.add_row("requests that reached the shop", f"{bare.requests:,}", f"{protected.requests:,}")
    console.print()
    console.print(table)
    console.print(
        f"\nduplicates suppressed: {suppressed(protected, protected_saw):,}"
        " (sent whole to retrysafe, not passed on to the shop)",
        style="bold",
        soft_wrap=True,
    )
    console.print(
        f"the client saw {protected_saw.replayed:,} replays and was told {protected_saw.told_to_wait:,} times to wait",
        soft_wrap=True,
    )


def show_verdict(console: Console, wrong: Sequence[str]) -> None:
    """One line if all is well, else one for each finding."""
    if not wrong:
        console.print("Every order behind retrysafe was placed exactly once.", style="green", soft_wrap=True)
    for finding in wrong:
        console.print(finding, style="red", soft_wrap=True)


def show_addresses(console: Console, bare_url: str, protected_url: str) -> None:
    """Where both shops are, and what to try."""
    console.print(f"\nbare       {bare_url}\nretrysafe  {protected_url}", soft_wrap=True)
    console.print("\nRun it twice: the second answer says `Idempotent-Replayed: true`.", style="bold", soft_wrap=True)
    console.print(_CURL.format(url=protected_url), soft_wrap=True, markup=False)
    console.print("Run it twice: the card is charged twice.", style="bold", soft_wrap=True)
    console.print(_CURL.format(url=bare_url), soft_wrap=True, markup=False)
    console.print("\nBoth shops stay open until Ctrl-C.", soft_wrap=True)


_ROWS: tuple[tuple[str, Callable[[Tally], str]], ...] = (
    ("orders intended", lambda tally: f"{tally.intended:,}"),
    ("orders", lambda tally: f"{tally.orders:,}"),
    ("orders missing", lambda tally: f"{tally.missing:,}"),
    ("charges", lambda tally: f"{tally.charges:,}"),
    ("stock left", lambda tally: f"{tally.stock:,}"),
    ("stock that should be left", lambda tally: f"{tally.stock_expected:,}"),
)


def _good_if_zero(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "[green]0[/]"


def _euros(tally: Tally) -> str:
    return f"{tally.overcharged_cents / 100:,.2f} EUR"


def _advancer(bars: Progress, title: str, total: int) -> Callable[[], None]:
    task = bars.add_task(title, total=total)
    return lambda: bars.advance(task)
