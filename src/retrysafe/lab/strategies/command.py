"""`retrysafe lab strategies` from its options to its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrysafe.lab.show import progress
from retrysafe.lab.strategies import page, report
from retrysafe.lab.strategies.catalogue import STRATEGIES, Strategy
from retrysafe.lab.strategies.measure import Wanted
from retrysafe.lab.strategies.run import choose, run

CLEAN, FINDINGS, INCONCLUSIVE = 0, 1, 4


def strategies(options: Mapping[str, Any], seed: int, say: Callable[[str], None]) -> int:
    """Do what the command line asks for, and give the exit code.

    Args:
        options: by their names.
        seed: of all chance.
        say: prints a line.

    Raises:
        ConfigurationError: something in the options cannot be used, or a server is needed that is not there.
        RetrysafeError: a server did not start.
    """
    if options["only_list"]:
        for strategy in STRATEGIES.values():
            say(f"{strategy.name:<34}{strategy.title}")
        return CLEAN
    chosen = choose(options["only"])
    if options["write_docs"]:
        page.check(Path(options["write_docs"]))
    wanted = Wanted(options["orders"], seed, options["clients"], options["timeout_s"], options["calm_orders"])
    as_json = options["as_json"]
    if not as_json:
        say(
            f"{wanted.orders:,} orders for each of {len(chosen)} strategies; {wanted.kills} of its processes are killed"
        )
        say(f"seed {seed}; the same orders, faults and kills again: --seed {seed}\n")
    with progress() as bar:

        def begins(strategy: Strategy) -> Callable[[], None]:
            return bar(strategy.name, wanted.orders)

        found = run(chosen, wanted, begins, postgres=options["postgres"], redis=options["redis"])
    if as_json:
        say(json.dumps(report.document(found.figures, wanted, found.versions)))
    else:
        for line in report.text(report.rows(found.figures)):
            say(line)
    if options["write_docs"]:
        page.write(found, wanted, Path(options["write_docs"]))
    return _verdict(report.findings(found.figures), found.figures, say, as_json=as_json)


def _verdict(wrong: list[str], figures: Mapping[str, Any], say: Callable[[str], None], *, as_json: bool) -> int:
    for line in () if as_json else wrong:
        say(f"\n{line}")
    if not wrong:
        return CLEAN
    ours_are_clean = all(one.judged.is_clean for one in figures.values() if one.strategy.is_ours)
    return INCONCLUSIVE if ours_are_clean else FINDINGS
