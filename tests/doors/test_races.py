"""Racers across four processes that share one SQLite file."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.doors.servers import serving

PROCESSES = 4
RACERS = 5


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Four servers in one folder, started at the same time on a file that is not there yet."""
    place = tmp_path_factory.mktemp("shops")
    with ExitStack() as stack, ThreadPoolExecutor(PROCESSES) as pool:
        contexts = [serving("uvicorn", place) for _ in range(PROCESSES)]
        yield list(pool.map(stack.enter_context, contexts))


def _race(shops, **request):
    """The same request to every process, several times at once."""
    start = threading.Barrier(PROCESSES * RACERS)

    def racer(shop):
        start.wait()
        return shop.ask(**request)

    with ThreadPoolExecutor(PROCESSES * RACERS) as pool:
        return list(pool.map(racer, shops * RACERS))


@pytest.mark.parametrize("round_", range(5))
def test_one_effect_whoever_is_asked(shops, round_):
    """One of twenty executes; the others replay its answer or are told to wait, and in the end all replay."""
    name = uuid.uuid4().hex
    answers = _race(shops, key=name, name=name)
    assert sum(answer.status == 201 and not answer.replayed for answer in answers) == 1
    assert {answer.code for answer in answers if answer.status != 201} <= {"in-progress"}
    answers = [shop.ask(key=name, name=name) for shop in shops]
    assert [(answer.body, answer.replayed) for answer in answers] == [(f"order {name}".encode(), True)] * PROCESSES
    assert shops[0].ledger("effect", name) == 1


def test_one_of_many_claims_again(shops):
    """A released record is claimed by one of twenty; each attempt runs in one process only."""
    name = uuid.uuid4().hex
    attempts = 0
    for _ in range(3):
        answers = _race(shops, key=name, name=name, status=429)
        ran = sum(answer.status == 429 for answer in answers)
        attempts += ran
        assert ran >= 1
        assert {answer.code for answer in answers if answer.status != 429} <= {"in-progress"}
    assert shops[0].ledger("effect", name) == attempts


def test_processes_agree_on_the_fingerprint_and_the_secret(shops):
    """Another request under the key is refused by every process, whichever took the first."""
    name = uuid.uuid4().hex
    shops[0].ask(key=name, name=name)
    assert [shop.ask(key=name, name=name, status=202).code for shop in shops] == ["key-reused"] * PROCESSES
