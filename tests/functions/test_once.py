"""`@once`, in both colours: the result of the first call is the result of every call."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from retrysafe import ConfigurationError, Policy, StoreUnavailable, operation
from retrysafe.errors import (
    CallerError,
    EarlierFailure,
    KeyExpired,
    KeyReused,
    OperationInProgress,
    OutcomeUnknown,
    ResultUnavailable,
)
from retrysafe.functions import once
from retrysafe.operation import current_operation
from retrysafe.server.call import JsonCodec
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.testing import ManualClock


class CardDeclined(Exception):
    """An outcome of a business."""


class NotReached(Exception):
    """Nothing happened."""


class Subject:
    """A function behind `once`, in one of the two colours, that does as it is told and counts."""

    def __init__(self, colour, **settings):
        self.colour = colour
        self.ran = 0
        settings = {"key": "{order}", "scope": "shop", "store": MemoryStore(), **settings}
        self.blocking = once(**settings)(self._work)
        self.asynchronous = once(**settings)(self._work_async)
        self.does = lambda: "done"

    def _work(self, order, cents=1):
        self.ran += 1
        return self.does()

    async def _work_async(self, order, cents=1):
        await asyncio.sleep(0)
        return self._work(order, cents)

    def __call__(self, *arguments, **named):
        if self.colour == "blocking":
            return self.blocking(*arguments, **named)
        return asyncio.run(self.asynchronous(*arguments, **named))


@pytest.fixture(params=["blocking", "asyncio"])
def subject(request):
    """Makes a subject."""
    return lambda **settings: Subject(request.param, **settings)


@pytest.mark.parametrize("result", [0, "", [], None, False, {}, 1.5, "text", {"a": [1, {"b": None}]}, 2**70])
def test_any_data_is_a_result(subject, result):
    """What is falsy is one like any other."""
    calls = subject()
    calls.does = lambda: result
    assert [calls("o-1"), calls("o-1")] == [result, result]
    assert calls.ran == 1
    calls("o-2")
    assert calls.ran == 2


def test_other_arguments_under_the_same_key(subject):
    """They are a mistake; defaults and names make no difference."""
    calls = subject()
    calls("o-1", 1)
    assert calls(order="o-1") == "done"
    with pytest.raises(KeyReused):
        calls("o-1", 2)
    assert calls.ran == 1


def test_what_is_compared_is_a_choice(subject):
    """An argument that is no data, or does not matter, is left out."""
    calls = subject(compare=["order"])
    assert [calls("o-1", object()), calls("o-1", object())] == ["done", "done"]
    with pytest.raises(CallerError, match="compare="):
        subject()("o-1", object())


@pytest.mark.parametrize("key", ["{nothing}", "{order.nothing}", lambda order: "", lambda order: 7])
def test_a_key_that_cannot_be_made(subject, key):
    """Nothing runs."""
    calls = subject(key=key)
    with pytest.raises(CallerError):
        calls("o-1")
    assert calls.ran == 0


@pytest.mark.parametrize("order", ["a b", "ä", "x" * 5_000, 'a"b', "\n", "a\\b"])
def test_a_key_may_be_any_text(subject, order):
    """Also what no header could carry."""
    calls = subject()
    assert [calls(order), calls(order), calls(order + ".")] == ["done"] * 3
    assert calls.ran == 2


def test_scopes_and_names_are_apart(subject):
    """The same key of another scope is another operation; so is it of another function."""
    store = MemoryStore()
    calls = subject(store=store, scope=lambda order, cents=1: f"account-{cents}", compare=["order"])
    calls("o-1", 1)
    calls("o-1", 2)
    assert calls.ran == 2


# --- exceptions -----------------------------------------------------------------------------------


def _raises(error):
    def work():
        raise error

    return work


def test_a_declared_exception_is_an_outcome(subject):
    """It is raised again as it was."""
    calls = subject(raises=[CardDeclined])
    calls.does = _raises(CardDeclined("too much", 7))
    for _ in range(2):
        with pytest.raises(CardDeclined) as caught:
            calls("o-1")
        assert caught.value.args == ("too much", 7)
    assert calls.ran == 1


@pytest.mark.parametrize("error", [LookupError("no such card"), KeyError("card"), ValueError("too much")])
def test_a_declared_exception_of_any_kind(subject, error):
    """What it is derived from says nothing of the record that it came from."""
    calls = subject(raises=[type(error)])
    calls.does = _raises(error)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            calls("o-1")
        assert caught.value.args == error.args
    assert calls.ran == 1


class Refusal(Exception):
    """Is made of other things than its arguments."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")


def test_a_declared_exception_that_cannot_be_made_again(subject):
    """A later call hears that it was done, and no error that the function never raised."""
    calls = subject(raises=[Refusal])
    calls.does = _raises(Refusal(7, reason="too much"))
    with pytest.raises(Refusal):
        calls("o-1")
    with pytest.raises(ResultUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_an_exception_after_which_nothing_has_happened(subject):
    """The next call runs, and is told its number."""
    seen = []

    def work():
        seen.append(operation().attempt)
        if len(seen) == 1:
            raise NotReached
        return "done"

    calls = subject(not_done=[NotReached])
    calls.does = work
    with pytest.raises(NotReached):
        calls("o-1")
    assert calls("o-1") == "done"
    assert seen == [1, 2]


def test_any_other_exception(subject):
    """The caller gets it; the function is not run again, because nobody knows what it had done."""
    calls = subject()
    calls.does = _raises(ZeroDivisionError("secret"))
    with pytest.raises(ZeroDivisionError):
        calls("o-1")
    with pytest.raises(EarlierFailure) as caught:
        calls("o-1")
    assert "secret" not in str(caught.value)
    assert calls.ran == 1


def test_a_result_that_is_no_data(subject):
    """It has run, and says so; it is not run again."""
    calls = subject()
    calls.does = object
    with pytest.raises(CallerError, match="has run"):
        calls("o-1")
    with pytest.raises(EarlierFailure):
        calls("o-1")
    assert calls.ran == 1


class BrokenCodec:
    """Fails at what it is told to, with an error that the function declares for its own."""

    def __init__(self, error, *, encodes):
        self._error = error
        self._encodes = encodes

    def encode(self, result):
        """Fails, or does not."""
        if not self._encodes:
            raise self._error
        return b"{}"

    def decode(self, content):
        """Fails."""
        raise self._error


@pytest.mark.parametrize("settings", [{"not_done": [NotReached]}, {"raises": [NotReached]}, {}])
def test_a_codec_that_fails_is_not_the_function(subject, settings):
    """The function has run: what its codec raises is never taken for a statement that nothing has happened."""
    calls = subject(codec=BrokenCodec(NotReached(), encodes=False), **settings)
    with pytest.raises(NotReached):
        calls("o-1")
    with pytest.raises(EarlierFailure):
        calls("o-1")
    assert calls.ran == 1


def test_a_result_that_cannot_be_read_again(subject):
    """The codec of another release, say: it was done, and its error is none of the function's."""
    calls = subject(codec=BrokenCodec(NotReached(), encodes=True), raises=[NotReached])
    assert calls("o-1") == "done"
    with pytest.raises(ResultUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_a_result_that_is_too_large(subject):
    """The first caller gets it; others learn that it was done."""
    calls = subject(policy=Policy(response_bytes_max=10))
    calls.does = lambda: "x" * 20
    assert calls("o-1") == "x" * 20
    with pytest.raises(ResultUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_the_function_itself_does_not_know(subject):
    """Then nobody does."""

    def work():
        operation().outcome_unknown()
        return "perhaps"

    calls = subject()
    calls.does = work
    assert calls("o-1") == "perhaps"
    with pytest.raises(OutcomeUnknown):
        calls("o-1")


# --- time, and other processes --------------------------------------------------------------------


def test_after_the_lifetime(subject):
    """A late call is told so."""
    clock = ManualClock()
    calls = subject(store=MemoryStore(clock))
    calls("o-1")
    clock.advance(24 * 3_600_000 + 1)
    with pytest.raises(KeyExpired):
        calls("o-1")
    assert calls.ran == 1


def test_many_at_once():
    """One runs; the rest are told to wait, or do so."""
    inside = threading.Event()
    go_on = threading.Event()

    def work():
        inside.set()
        assert go_on.wait(10)
        return "done"

    calls = Subject("blocking")
    calls.does = work
    patient = Subject("blocking", store=MemoryStore(), policy=Policy(in_flight="wait", wait="10s"))
    patient.does = work
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(calls, "o-1")
        assert inside.wait(10)
        with pytest.raises(OperationInProgress) as caught:
            calls("o-1")
        assert caught.value.retry_after_s >= 1
        waiting = [pool.submit(patient, "o-1") for _ in range(5)]
        go_on.set()
        assert [first.result(), *(each.result() for each in waiting)] == ["done"] * 6
    assert (calls.ran, patient.ran) == (1, 1)


def test_a_caller_that_is_cancelled():
    """The function runs on, and its result is there for the next."""
    inside, go_on = asyncio.Event(), asyncio.Event()
    ran = []

    @once(key="{order}", scope="shop", store=MemoryStore())
    async def work(order):
        ran.append(order)
        inside.set()
        await go_on.wait()
        return "done"

    async def scenario():
        first = asyncio.create_task(work("o-1"))
        await inside.wait()
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        go_on.set()
        async with asyncio.timeout(10):
            while True:
                with suppress(OperationInProgress):
                    return await work("o-1")
                await asyncio.sleep(0)

    assert asyncio.run(scenario()) == "done"
    assert ran == ["o-1"]


SCRIPT = """
import os, sys
from retrysafe import Policy
from retrysafe.functions import once

@once(key="{order}", scope="shop", store="sqlite:///jobs.db", policy=Policy(lease="200ms"), name="job")
def job(order, moment):
    with open("ledger", "a") as ledger:
        ledger.write(order + "\\n")
    if moment == "die":
        os.kill(os.getpid(), 9)
    return moment

print(job(sys.argv[1], sys.argv[2]))
"""


def test_a_process_that_dies(tmp_path):
    """In the middle of the function: no later process runs it again, and each is told that nobody knows."""
    script = tmp_path / "job.py"
    script.write_text(
        SCRIPT.replace("def job(order, moment)", "def job(order, moment=None)").replace(
            'name="job"', 'name="job", compare=["order"]'
        )
    )

    def run(moment):
        paths = os.pathsep.join(sys.path)
        return subprocess.run(
            [sys.executable, script, "o-1", moment],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("die").returncode == -9
    seen = ""
    for _ in range(200):
        seen = run("live").stderr
        if "OperationInProgress" not in seen:
            break
    assert "OutcomeUnknown" in seen
    assert (tmp_path / "ledger").read_text() == "o-1\n"


PROGRAM = """
import multiprocessing, pathlib, sys
from retrysafe.functions import once

class Declined(Exception):
    pass

@once(key="{order}", scope="shop", store="sqlite:///jobs.db", raises=[Declined])
def job(order):
    with pathlib.Path("ledger").open("a") as ledger:
        ledger.write(f"{order}\\n")
    raise Declined(order)

def told(order):
    try:
        job(order)
    except Declined:
        print("declined")

if __name__ == "__main__":
    told("o-1")
    spawned = multiprocessing.get_context("spawn").Process(target=told, args=("o-1",))
    spawned.start()
    spawned.join()
    sys.exit(spawned.exitcode)
"""


def test_a_program_and_who_imports_it_share_their_keys(tmp_path):
    """As a script, as `-m`, in a child of it and by an import, a function has one name, and so have its exceptions."""
    (tmp_path / "work.py").write_text(PROGRAM)
    ways = (["work.py"], ["-m", "work"], ["-c", "import work; work.told('o-1')"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for way in ways:
        done = subprocess.run(
            [sys.executable, *way], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, set(done.stdout.split())) == (0, {"declined"}), done.stderr
    assert (tmp_path / "ledger").read_text() == "o-1\n"


def test_a_function_of_a_session_needs_a_name():
    """It would share its records with whatever else is typed somewhere under that name."""
    typed = "from retrysafe.functions import once; once(key='k', scope='s', store='memory://'{})(eval('lambda: 1'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for given, status in (("", 1), (", name='job'", 0)):
        command = [sys.executable, "-c", typed.format(given)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "give it a name=" in done.stderr) == (status, bool(status)), done.stderr


class Uncertain(JsonCodec):
    """A codec of another release, that cannot read what this one wrote."""

    def decode(self, content):
        """Raises what it likes."""
        raise KeyError(content)


def test_a_result_that_cannot_be_read(subject):
    """It was done, and is not run again; written by hand without content, or by another codec."""
    calls = subject(codec=Uncertain())
    assert calls("o-1") == "done"
    with pytest.raises(ResultUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_an_exception_that_cannot_be_made_again(subject):
    """Its class takes other arguments than it once did."""

    class Changed(Exception):
        def __init__(self, *arguments):
            if made:
                raise TypeError
            made.append(self)
            super().__init__(*arguments)

    def fails():
        raise Changed("as it was")

    made = []
    calls = subject(raises=[Changed])
    calls.does = fails
    with pytest.raises(Changed):
        calls("o-1")
    with pytest.raises(ResultUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_a_store_that_is_away(subject, tmp_path):
    """Nothing runs."""
    store = MemoryStore()
    calls = subject(store=store, policy=Policy(lease="50ms"))  # for so long it tries to take the claim back
    calls("o-0")
    store.close()
    with pytest.raises(StoreUnavailable):
        calls("o-1")
    assert calls.ran == 1


def test_two_colours_share_what_is_of_one_name(tmp_path):
    """A job that a worker did is done for the coroutine too."""
    calls = Subject("blocking", store=SqliteStore(tmp_path / "jobs.db"), name="job")
    assert calls("o-1") == "done"
    assert asyncio.run(calls.asynchronous("o-1")) == "done"
    assert calls.ran == 1


def test_the_callers_operation_is_the_callers_again():
    """A function inside of another has an operation of its own, for as long as it runs."""

    @once(key="inner", scope="shop", store=MemoryStore())
    def inner():
        return operation().key

    @once(key="outer", scope="shop", store=MemoryStore())
    def outer():
        return [operation().key, inner(), operation().key]

    assert outer() == ["outer", "inner", "outer"]
    assert current_operation() is None


@pytest.mark.parametrize("settings", [{"store": "nowhere://"}, {"compare": ["nothing"]}])
def test_settings_that_cannot_be_used(settings):
    """When the function is defined."""
    with pytest.raises(ConfigurationError):
        once(**{"key": "k", "scope": "shop", "store": MemoryStore(), **settings})(lambda order: order)


def test_a_generator_has_no_result():
    """It is refused when it is defined."""

    def numbers():
        yield 1

    with pytest.raises(ConfigurationError):
        once(key="k", scope="shop", store=MemoryStore())(numbers)
