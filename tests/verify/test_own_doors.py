"""What retrysafe sells passes its own verifier: real processes, two replicas, real kills; core cases, or all."""

from __future__ import annotations

import asyncio
import os

import pytest

from retrysafe.verify.cases import CATALOGUE
from retrysafe.verify.runner import run_cases
from retrysafe.verify.verdict import Verdict
from tests.verify import own_doors

# The core cases in `make test`; all of them, and every store, where everything is proved.
PROVED = bool(os.environ.get("RETRYSAFE_PROVE"))
CASES = [case for case in CATALOGUE if case.core or PROVED]
DOORS = ["asgi", "gateway", *(["asgi_postgres", "asgi_mysql", "asgi_redis", "asgi_dynamodb"] if PROVED else [])]

UNCLEAR = {Verdict.SKIP, Verdict.INCONCLUSIVE}
JOBS = {"asgi_dynamodb": 2}  # its service does one request after the other
_PAPERS = "what an application publishes is its own; no door writes it"
_NEVER_TRIED = {
    "TTL-01": _PAPERS,
    "TTL-05": "keys carry no time",
    "DOC-01": _PAPERS,
    "DOC-02": _PAPERS,
    "DOC-05": "there is no status endpoint",
    "DOC-06": _PAPERS,
}
NOT_TRIED = {
    "asgi": {**_NEVER_TRIED, "OUT-12": "there is nothing in front that could give up"},
    "gateway": {
        **_NEVER_TRIED,
        "REP-12": "the gateway speaks HTTP/1.1",
        "REP-13": "origins are judged in front of the gateway",
        "MTH-07": "as REP-13",
        "SEC-07": "with scope=header every request has an account",
    },
}


@pytest.mark.parametrize("door", DOORS)
def test_door_passes(door, tmp_path):
    """No failure, no warning, nothing inconclusive, and nothing skipped but what is known and why."""
    known = NOT_TRIED[door.partition("_")[0]]
    with getattr(own_doors, door)(tmp_path) as run:
        results = asyncio.run(told(run, known, JOBS.get(door, 6)))
    assert not {result.case.id: result.findings for result in results if result.findings}
    unclear = {result.case.id: result.reason for result in results if result.verdict in UNCLEAR}
    assert {id_: reason for id_, reason in unclear.items() if id_ not in known} == {}
    assert set(unclear) == set(known) & {case.id for case in CASES}


async def told(run, known, jobs):
    """What the cases say; those that a busy machine left without a verdict are asked once more."""
    results = await run_cases(run, CASES, jobs=jobs)
    again = [result.case for result in results if result.verdict in UNCLEAR and result.case.id not in known]
    clear = [result for result in results if result.case not in again]
    return [*clear, *(await run_cases(run, again) if again else ())]
