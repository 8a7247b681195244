"""Which case finds which defect: every case against every server of the laboratory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from retrysafe.lab.mutants.catalogue import FOUND_BY, MUTANTS
from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.serving import run_of, serving
from retrysafe.verify.case import Case, Result
from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.runner import run_cases

_HEAD = """# The servers that judge the verifier

Each of these small servers does one thing wrong, and every case of [`retrysafe verify`](verify-cases.md) is run
against each of them: it is found by exactly the cases in its row. `Server`, which does everything right, passes all.
Run one by hand:

```text
python -m retrysafe.lab.mutants KeysAreNotScoped --port 8080
```
"""
_JOBS = 12
_SERVERS_AT_ONCE = 4

# What the correct server does not do: these cases end without a verdict, and say why.
NOT_TRIED: Mapping[str, str] = {
    "REP-12": "the laboratory speaks HTTP/1.1",
    "TTL-05": "its keys carry no time",
}


async def results_of(kind: type[Server], cases: Sequence[Case] = CATALOGUE) -> list[Result]:
    """What the cases say of a server."""
    server = kind()
    async with serving(server, server.replica(), server.sandbox()) as (base, replica, sandbox):
        return await run_cases(run_of(server, base, replica, sandbox), cases, jobs=_JOBS)


def found(results: Sequence[Result]) -> frozenset[str]:
    """The ids of the cases that found something."""
    return frozenset(result.case.id for result in results if result.findings)


async def matrix(
    kinds: Sequence[type[Server]],
    tell: Callable[[type[Server], list[Result]], None],
    cases_of: Callable[[type[Server]], Sequence[Case]] = lambda _: CATALOGUE,
) -> None:
    """Run cases against these servers, a few at once.

    Args:
        kinds: the servers.
        tell: called with each server and its results, as they come.
        cases_of: which cases, for each server; all of them unless given.
    """
    slots = asyncio.Semaphore(_SERVERS_AT_ONCE)

    async def one(kind: type[Server]) -> None:
        async with slots:
            tell(kind, await results_of(kind, cases_of(kind)))

    await asyncio.gather(*map(one, kinds))


def page() -> str:
    """The page that says which server is found by which cases."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    yield "| server | what it does wrong | found by |"
    yield "|---|---|---|"
    for kind in MUTANTS:
        summary = " ".join((kind.__doc__ or "").split())
        yield f"| `{kind.__name__}` | {summary} | {', '.join(sorted(FOUND_BY[kind.__name__], key=place))} |"


def place(id_: str) -> int:
    """Where a case stands in the catalogue."""
    return [case.id for case in CATALOGUE].index(id_)


if __name__ == "__main__":
    sys.stdout.write(page())
