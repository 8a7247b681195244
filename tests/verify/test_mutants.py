"""The judge is judged: each server with a defect is found by the cases that should find it, and by no others.

`make test` runs on each server the cases that must find it, and some others by a seed (`RETRYSAFE_SEED`);
`RETRYSAFE_PROVE=1` runs all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from retrysafe.demo.processes import HOST, await_ready, free_port
from retrysafe.lab.mutants.catalogue import FOUND_BY, MUTANTS
from retrysafe.lab.mutants.matrix import NOT_TRIED, found, matrix, page, results_of
from retrysafe.verify.case import Result
from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.verdict import Verdict
from tests.forked import child

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150
PROVE = bool(os.environ.get("RETRYSAFE_PROVE"))
SEED = os.environ.get("RETRYSAFE_SEED", "1")  # in a failure, of the cases that were chosen
WHOLE = {"FloodsEvict": "another case has to take its store away first"}
OTHERS = 8  # cases that must not find a server, tried on it besides those that must

_OPTIONS = (
    *("--only", "REP-01", "--json", '{"reference":"{{unique}}","item":"tea","quantity":1}'),
    *("--account", "Authorization: Bearer alice", "--effects", "same $.id"),
)

# Cases that no server here breaks, and why.
NO_DEFECT = {
    **NOT_TRIED,
    "SYN-12": "it reports, and judges nothing",
    "SYN-13": "where there are accounts it reports, and judges nothing",
}


def cases_of(kind):
    """All cases where everything is proved; else those that must find it, and some that must not, by the seed."""
    if PROVE or kind.__name__ in WHOLE:
        return CATALOGUE
    some = random.Random(f"{SEED} {kind.__name__}").sample(CATALOGUE, OTHERS)
    return [case for case in CATALOGUE if case.id in FOUND_BY[kind.__name__] or case in some]


@pytest.fixture(scope="module")
def results(request):
    """What every case says of each server that is asked for, as it comes: a few at once, in a thread of their own."""
    here = [item for item in request.session.items if item.path == request.path]
    kinds = [item.callspec.params["kind"] for item in here if "kind" in getattr(item, "fixturenames", ())]
    coming: dict[str, Future[list[Result]]] = {kind.__name__: Future() for kind in kinds}

    def judge() -> None:
        try:
            asyncio.run(matrix(kinds, lambda kind, its: coming[kind.__name__].set_result(its), cases_of))
        except BaseException as error:
            for future in coming.values():
                if not future.done():
                    future.set_exception(error)
            raise

    thread = threading.Thread(target=judge, daemon=True)
    thread.start()
    yield coming
    thread.join()


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
def test_defect_is_found(kind, results):
    """It is found by exactly these cases. Those that a slow machine left without a verdict are asked once more."""
    told = results[kind.__name__].result(PATIENCE_S)
    unclear = [result.case for result in told if result.verdict is Verdict.INCONCLUSIVE]
    asked = [case for case in unclear if case.id in FOUND_BY[kind.__name__]]
    again = asyncio.run(results_of(kind, asked)) if asked else []
    assert found([*told, *again]) == FOUND_BY[kind.__name__]


def test_every_case_finds_something():
    """Each case is broken by some server, or it is known why not."""
    assert {case.id for case in CATALOGUE} - frozenset().union(*FOUND_BY.values()) == set(NO_DEFECT)


def test_the_table_is_whole():
    """Every server has its row, each row its server, and none is empty."""
    assert [kind.__name__ for kind in MUTANTS] == list(FOUND_BY)
    assert all(FOUND_BY.values())
    assert all(kind.__doc__ for kind in MUTANTS)


def test_the_page_is_made_from_the_table():
    """docs/reference/verify-mutants.md is what `python -m retrysafe.lab.mutants.matrix` prints."""
    assert (ROOT / "docs/reference/verify-mutants.md").read_text("utf-8") == page()
    assert f"[{len(MUTANTS)} servers]" in (ROOT / "docs/how-to/verify.md").read_text("utf-8")


def test_a_server_runs_by_hand(tmp_path):
    """`python -m retrysafe.lab.mutants NAME --port PORT` serves it, and the verifier finds the defect."""
    port = free_port()
    with child("mutant", ("retrysafe.lab.mutants", "Unprotected", "--port", str(port)), port, tmp_path, {}) as server:
        await_ready(server, "/openapi.json")
        done = subprocess.run(
            [sys.executable, "-m", "retrysafe", "verify", f"http://{HOST}:{port}/orders", *_OPTIONS],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 effects" in done.stdout
