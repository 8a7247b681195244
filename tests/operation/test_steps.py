"""Steps on asyncio and on threads: what a later attempt does about what an earlier one left."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from retrysafe.errors import ClaimLost, StepChanged, StepMisused, StepUnknown, StoreUnavailable
from retrysafe.model import State
from retrysafe.operation import NOT_DONE, UNKNOWN, StepCall, notebook
from retrysafe.protocol import journal
from retrysafe.protocol.effects import Fate
from retrysafe.protocol.transitions import KeepJournalIfHeld, MarkUnknownIfHeld, Read, ReadDetails
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import ManualClock, TamperedStore, in_loop
from tests.operation.steps import RECORD_ID, Died, Shop, dying

WINDOW = "10m"


class Provider:
    """The other side, in memory: what it was sent, in order."""

    def __init__(self) -> None:
        self.calls: list[StepCall] = []

    def charge(self, call: StepCall) -> Any:
        """Do it."""
        self.calls.append(call)
        return {"charge": len(self.calls)}

    def charge_and_die(self, call: StepCall) -> Any:
        """Do it; the answer reaches nobody."""
        self.charge(call)
        raise Died

    def time_out(self, call: StepCall) -> Any:
        """Do it; the answer does not come in time."""
        self.charge(call)
        raise TimeoutError


def on_thread(step: Callable[[], Any]) -> Any:
    """Take a step as blocking code does."""
    return step()


def on_loop(step: Callable[[], Any]) -> Any:
    """Take a step on a loop of its own; what is raised comes out."""

    async def main() -> Any:
        return await step()

    return asyncio.run(main())


colours = pytest.mark.parametrize("run", [on_thread, on_loop])


@pytest.fixture
def provider():
    """The other side."""
    return Provider()


@colours
@pytest.mark.parametrize(
    "result", [0, "", [], {}, None, False, b"", b"\x00", 1.5, {"b": [1, None], "a": "x"}], ids=repr
)
def test_a_recorded_result_is_not_asked_for_again(run, result):
    """Whatever it was, a later attempt has it as it was, and calls nothing."""
    shop, calls = Shop(), []

    def call(step_call: StepCall) -> Any:
        calls.append(step_call)
        return result

    for _ in range(3):
        now = shop.attempt()
        got = run(lambda now=now: now.step("one", call))
        assert (got, type(got)) == (result, type(result))
    assert [(made.key, made.input, made.attempt) for made in calls] == [(now.child_key("one"), None, 1)]


@colours
def test_the_intent_is_durable_before_the_call_and_the_result_after_it(run):
    """While the call runs, the store knows of it; once it is done, it knows the result."""
    shop = Shop()
    now = shop.attempt()
    seen = []

    def look(_: StepCall) -> str:
        seen.append(shop.store.perform(ReadDetails(RECORD_ID)).journal)
        return "result"

    assert run(lambda: now.step("one", look, input=b"charge 5")) == "result"
    assert b"charge 5" in seen[0]
    assert b"result" not in seen[0]
    assert b"result" in shop.store.perform(ReadDetails(RECORD_ID)).journal


@colours
def test_interrupted_and_not_to_be_sent_again(run, provider):
    """By default a call whose result nobody knows is not made again, and the outcome is unknown."""
    shop = Shop()
    first = shop.attempt()
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die))
    second = shop.attempt()
    with pytest.raises(StepUnknown, match='step "charge" was interrupted'):
        run(lambda: second.step("charge", provider.charge))
    assert second.fate is Fate.UNKNOWN
    assert len(provider.calls) == 1


@colours
def test_sent_again_within_the_window(run, provider):
    """The same key and the same bytes, though it is another attempt; and then there is a result."""
    shop = Shop()
    options: Any = {"input": {"cents": 500}, "if_interrupted": "resend", "downstream_window": WINDOW}
    for _ in range(2):
        now = shop.attempt()
        with dying():
            run(lambda now=now: now.step("charge", provider.charge_and_die, **options))
    now = shop.attempt()
    assert run(lambda: now.step("charge", provider.charge, **options)) == {"charge": 3}
    assert len({(call.key, call.input) for call in provider.calls}) == 1
    assert provider.calls[0].input == b'{"cents":500}'
    assert [call.attempt for call in provider.calls] == [1, 2, 3]


@colours
@pytest.mark.parametrize(("left_ms", "sent_again"), [(1, True), (0, False)])
@pytest.mark.parametrize("attempts", [1, 3])
def test_past_the_window(run, provider, left_ms, sent_again, attempts):
    """The window counts from the claim of the attempt that called first, by the store's clock, to the millisecond."""
    shop = Shop()
    options: Any = {"if_interrupted": "resend", "downstream_window": WINDOW}
    for _ in range(attempts - 1):
        shop.attempt()  # these die before they come to the step
    first = shop.attempt()
    claimed_at_ms = shop.clock.now_ms
    shop.clock.now_ms += 30_000  # the call itself comes later than the claim
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die, **options))
    second = shop.attempt()
    shop.clock.now_ms = claimed_at_ms + 600_000 - left_ms
    if sent_again:
        assert run(lambda: second.step("charge", provider.charge, **options)) == {"charge": 2}
    else:
        with pytest.raises(StepUnknown, match="past its downstream_window"):
            run(lambda: second.step("charge", provider.charge, **options))
    assert len(provider.calls) == 1 + sent_again


@colours
def test_a_second_sending_does_not_extend_the_window(run, provider):
    """The other side counts from the first."""
    shop = Shop()
    options: Any = {"if_interrupted": "resend", "downstream_window": "100s"}
    for _ in range(2):
        now = shop.attempt()
        with dying():
            run(lambda now=now: now.step("charge", provider.charge_and_die, **options))
    now = shop.attempt()  # 120 s after the first
    with pytest.raises(StepUnknown):
        run(lambda: now.step("charge", provider.charge, **options))
    assert len(provider.calls) == 2


@colours
@pytest.mark.parametrize(("found", "charges"), [({"charge": 1}, 1), (None, 1), (NOT_DONE, 2)])
def test_the_other_side_is_asked(run, provider, found, charges):
    """What it says is the result, and stays so; or the call is made."""
    shop = Shop()
    first = shop.attempt()
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die, input=b"x", verify=provider.charge))
    asked = []

    def verify(call: StepCall) -> Any:
        asked.append(call)
        return found

    expected = {"charge": 2} if found is NOT_DONE else found
    for _ in range(2):
        now = shop.attempt()
        assert run(lambda now=now: now.step("charge", provider.charge, input=b"x", verify=verify)) == expected
    assert len(provider.calls) == charges
    assert [(call.key, call.input) for call in asked] == [(provider.calls[0].key, b"x")]


@colours
def test_the_other_side_cannot_tell(run, provider):
    """Then the outcome is unknown."""
    shop = Shop()
    first = shop.attempt()
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die, verify=provider.charge))
    second = shop.attempt()
    with pytest.raises(StepUnknown, match="could not tell"):
        run(lambda: second.step("charge", provider.charge, verify=lambda _: UNKNOWN))
    assert second.fate is Fate.UNKNOWN
    assert len(provider.calls) == 1


@colours
@pytest.mark.parametrize("died", [True, False])
@pytest.mark.parametrize("other", [b"charge 6", None, {"cents": 5}])
def test_another_input_stops(run, provider, died, other):
    """Another release sends something else under the same name: no result is reused, and nothing is called."""
    shop = Shop()
    first = shop.attempt()
    options: Any = {"if_interrupted": "resend", "downstream_window": WINDOW}
    if died:
        with dying():
            run(lambda: first.step("charge", provider.charge_and_die, input=b"charge 5", **options))
    else:
        run(lambda: first.step("charge", provider.charge, input=b"charge 5", **options))
    second = shop.attempt()
    with pytest.raises(StepChanged, match="another input"):
        run(lambda: second.step("charge", provider.charge, input=other, **options))
    assert second.fate is Fate.UNKNOWN
    assert len(provider.calls) == 1


@colours
def test_a_zombie_calls_nothing(run, provider):
    """Whoever was taken over learns so before it calls, however often it tries."""
    shop = Shop()
    zombie, owner = shop.attempt(), None
    owner = shop.attempt()
    for name in ("charge", "ship"):
        with pytest.raises(ClaimLost):
            run(lambda name=name: zombie.step(name, provider.charge))
    assert not provider.calls
    assert run(lambda: owner.step("charge", provider.charge)) == {"charge": 1}


@colours
@pytest.mark.parametrize("options", [{}, {"if_interrupted": "resend", "downstream_window": WINDOW}])
def test_a_later_zombie_calls_nothing(run, provider, options):
    """The same for one that was itself a later attempt, at its first look and at its next write."""
    shop = Shop()
    first = shop.attempt()
    run(lambda: first.step("one", provider.charge))
    zombie = shop.attempt()
    run(lambda: zombie.step("one", provider.charge))
    late = shop.attempt()
    owner = shop.attempt()
    for attempt in (zombie, late):
        with pytest.raises(ClaimLost):
            run(lambda attempt=attempt: attempt.step("two", provider.charge, **options))
    run(lambda: owner.step("two", provider.charge))
    assert len(provider.calls) == 2


@colours
def test_a_record_that_was_given_up_meanwhile_calls_nothing(run, provider):
    """Its lease lapsed and somebody was told that the outcome is unknown: nothing further is done."""
    shop = Shop()
    now = shop.attempt()
    assert shop.store.perform(MarkUnknownIfHeld(shop.claim, 1_000))
    with pytest.raises(ClaimLost):
        run(lambda: now.step("charge", provider.charge))
    assert not provider.calls


@colours
def test_a_call_that_raises_leaves_its_intent(run, provider):
    """Nobody knows what came of it; a later attempt does what the step says."""
    shop = Shop()
    first = shop.attempt()
    with pytest.raises(TimeoutError):
        run(lambda: first.step("charge", provider.time_out, if_interrupted="resend", downstream_window=WINDOW))
    assert first.fate is Fate.RESUMABLE
    second = shop.attempt()
    with pytest.raises(TimeoutError):
        run(lambda: second.step("refund", provider.time_out))
    assert second.fate is Fate.OPEN
    third = shop.attempt()
    assert run(lambda: third.step("charge", provider.charge, if_interrupted="resend", downstream_window=WINDOW))
    with pytest.raises(StepUnknown):
        run(lambda: third.step("refund", provider.charge))


class Declined(Exception):
    """The other side says that it did nothing."""


@colours
def test_what_was_not_done_may_be_done_again(run, provider):
    """The intent is withdrawn: the next attempt calls, though the step may not be sent again."""
    shop = Shop()

    def decline(call: StepCall) -> Any:
        raise Declined

    first = shop.attempt()
    with pytest.raises(Declined):
        run(lambda: first.step("charge", decline, not_done=(Declined,)))
    assert first.fate is Fate.RESUMABLE
    second = shop.attempt()
    assert run(lambda: second.step("charge", provider.charge, not_done=(Declined,))) == {"charge": 1}
    assert provider.calls[0].attempt == 1


def _decline(_: StepCall) -> Any:
    raise Declined


@colours
def test_a_second_sending_that_was_not_done_says_nothing_of_the_first(run, provider):
    """That stands interrupted as before, and its window goes on: past it nothing is sent."""
    shop = Shop()
    again: dict[str, Any] = {"if_interrupted": "resend", "downstream_window": WINDOW, "not_done": (Declined,)}
    first = shop.attempt()
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die, **again))
    second = shop.attempt()
    with pytest.raises(Declined):
        run(lambda: second.step("charge", _decline, **again))
    assert second.fate is Fate.RESUMABLE
    shop.clock.now_ms += 600_000
    third = shop.attempt()
    with pytest.raises(StepUnknown, match="past its downstream_window"):
        run(lambda: third.step("charge", provider.charge, **again))
    assert len(provider.calls) == 1


@colours
def test_a_second_call_that_was_not_done_after_a_look(run, provider):
    """The other side had not done the first either, so nothing stands open."""
    shop = Shop()
    first = shop.attempt()
    with dying():
        run(lambda: first.step("charge", provider.charge_and_die, verify=lambda _: NOT_DONE))
    second = shop.attempt()
    with pytest.raises(Declined):
        run(lambda: second.step("charge", _decline, verify=lambda _: NOT_DONE, not_done=(Declined,)))
    third = shop.attempt()
    assert run(lambda: third.step("charge", provider.charge)) == {"charge": 2}


@pytest.mark.parametrize("recovery", ["manual", "rerun"])
def test_only_a_route_that_reruns_is_resumed(recovery, provider):
    """Elsewhere the outcome of an interrupted step is unknown, and what was not done is an outcome."""
    shop = Shop(recovery=recovery)
    now = shop.attempt()
    with pytest.raises(TimeoutError):
        now.step("charge", provider.time_out, if_interrupted="resend", downstream_window=WINDOW)
    assert now.fate is (Fate.RESUMABLE if recovery == "rerun" else Fate.OPEN)


@colours
def test_a_name_is_used_once(run, provider):
    """A repeated name in one attempt is a mistake; another target is another step."""
    shop = Shop()
    now = shop.attempt()
    run(lambda: now.step("charge", provider.charge, target="a"))
    run(lambda: now.step("charge", provider.charge, target="b"))
    with pytest.raises(StepMisused, match="taken before"):
        run(lambda: now.step("charge", provider.charge, target="a"))
    assert [call.key for call in provider.calls] == [now.child_key("charge", "a"), now.child_key("charge", "b")]


MISUSES: list[tuple[dict[str, Any], str]] = [
    ({"if_interrupted": "again"}, "must be"),
    ({"if_interrupted": "resend"}, "go together"),
    ({"downstream_window": "1h"}, "go together"),
    ({"if_interrupted": "resend", "downstream_window": "soon"}, "not a duration"),
    ({"if_interrupted": "resend", "downstream_window": "0s"}, "no time"),
    ({"if_interrupted": "resend", "downstream_window": "1h", "verify": print}, "exclude"),
    ({"input": object()}, "bytes or JSON data"),
    ({"inptu": 1}, "no option inptu"),
]


@pytest.mark.parametrize(("options", "words"), MISUSES, ids=[words for _, words in MISUSES])
def test_a_misuse_is_told_and_calls_nothing(options, words, provider):
    """What cannot be meant is refused before anything happens."""
    shop = Shop()
    now = shop.attempt()
    with pytest.raises(StepMisused, match=words):
        now.step("charge", provider.charge, **options)
    for name in ("", "x" * 256):
        with pytest.raises(StepMisused, match="1 to 255"):
            now.step(name, provider.charge)
    assert not provider.calls
    assert shop.store.perform(ReadDetails(RECORD_ID)).journal is None


@colours
def test_what_cannot_be_recorded_is_told(run, provider):
    """A result that is no data, or too large: the call was made, and the intent stands. A large input is not called."""
    shop = Shop()
    now = shop.attempt()
    with pytest.raises(StepMisused, match="was called, and what it gave cannot be recorded"):
        run(lambda: now.step("one", lambda _: object()))
    with pytest.raises(StepMisused, match=r"The call was made\. Keep an id"):
        run(lambda: now.step("two", lambda _: b"x" * (256 << 10)))
    with pytest.raises(StepMisused, match=r"Nothing was called\. Keep an id"):
        run(lambda: now.step("three", provider.charge, input=b"x" * (256 << 10)))
    assert not provider.calls
    assert now.fate is Fate.OPEN


def _call(function: Any, argument: Any) -> Any:
    return function(argument)


def test_a_coroutine_on_a_thread_is_refused(provider):
    """No loop runs there; nothing is called, in whatever disguise the coroutine comes."""

    async def call(_: StepCall) -> None:
        raise AssertionError("it ran")

    now = Shop().attempt()
    for name, disguise in (("one", call), ("two", functools.partial(_call, call))):
        with pytest.raises(StepMisused, match="no event loop runs"):
            _call(functools.partial(now.step, name), disguise)


@in_loop
async def test_steps_at_the_same_time():
    """Twenty at once: none is lost, and their writes are made together."""
    clock = ManualClock()
    store = TamperedStore(MemoryStore(clock))
    shop = Shop(store)
    shop.clock = clock
    now = shop.attempt()
    arrived = 0
    all_there = asyncio.Event()

    async def call(step_call: StepCall) -> str:
        nonlocal arrived
        arrived += 1
        if arrived == 20:
            all_there.set()
        await all_there.wait()  # so every intent is durable before any result is
        return step_call.key

    results = await asyncio.gather(*(now.step(f"step {number}", call) for number in range(20)))
    assert results == [now.child_key(f"step {number}") for number in range(20)]
    assert 2 <= store.done.count("KeepJournalIfHeld") < 40
    later = shop.attempt()
    assert await asyncio.gather(*(later.step(f"step {number}", called_again) for number in range(20))) == results
    assert store.done.count("ReadDetails") == 1


async def called_again(_: StepCall) -> str:
    raise AssertionError("it was called again")


@in_loop
async def test_steps_of_both_colours_at_the_same_time():
    """A handler on a loop that takes some of its steps in threads: none is lost."""
    clock = ManualClock()
    store = MemoryStore(clock)
    shop = Shop(store)
    shop.clock = clock
    now = shop.attempt()

    async def call(step_call: StepCall) -> str:
        await asyncio.sleep(0)
        return step_call.key

    steps = [now.step(f"on loop {number}", call) for number in range(10)]
    steps += [asyncio.to_thread(now.step, f"on thread {number}", lambda made: made.key) for number in range(10)]
    await asyncio.gather(*steps)
    later = shop.attempt()
    for place in ("on loop", "on thread"):
        for number in range(10):
            name = f"{place} {number}"
            assert await later.step(name, called_again) == now.child_key(name)


def test_steps_on_threads_at_the_same_time():
    """The same without a loop."""
    shop = Shop()
    now = shop.attempt()
    start = threading.Barrier(8)

    def take(number: int) -> None:
        start.wait()
        now.step(f"step {number}", lambda made: made.key)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    later = shop.attempt()
    for number in range(8):
        assert later.step(f"step {number}", lambda _: "called again") == now.child_key(f"step {number}")


def test_no_intent_is_lost_between_threads(monkeypatch):
    """One thread is held up in the middle of its change of the journal: no other begins with what it began with."""
    shop = Shop()
    now = shop.attempt()
    is_first, changed = threading.Lock(), threading.Event()
    size = journal.size

    def hold_the_first(entries: Any) -> int:
        if is_first.acquire(blocking=False):
            other.start()
            changed.wait(0.2)  # nobody can say that the other thread will not come
        return size(entries)

    def called(step_call: StepCall) -> Any:
        changed.set()
        raise Died

    def take(name: str) -> None:
        with dying():
            now.step(name, called)

    monkeypatch.setattr(notebook, "size", hold_the_first)
    other = threading.Thread(target=take, args=("ship",))
    take("charge")
    other.join()
    later = shop.attempt()
    for name in ("charge", "ship"):
        with pytest.raises(StepUnknown):
            later.step(name, lambda _: "called again")


@in_loop
async def test_a_cancelled_step_leaves_the_others_alone():
    """One of several is cancelled while it waits for its turn; the rest go on, and its turn is not lost."""
    clock = ManualClock()
    gate = asyncio.Event()

    def hold(transition: Any) -> Any:
        return gate.wait() if isinstance(transition, KeepJournalIfHeld) else None

    shop = Shop(TamperedStore(MemoryStore(clock), before=hold))
    now = shop.attempt()

    async def call(step_call: StepCall) -> str:
        return step_call.key

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(now.step(f"step {number}", call)) for number in range(4)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    await asyncio.sleep(0)
    gate.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    assert [done[number] for number in (0, 2, 3)] == [now.child_key(f"step {number}") for number in (0, 2, 3)]


class Away:
    """A store that is away for some of its writes of the journal."""

    def __init__(self, *fails: int) -> None:
        self.fails = fails
        self.writes = 0

    def __call__(self, transition: Any) -> None:
        """Fail the writes with these numbers."""
        if isinstance(transition, KeepJournalIfHeld):
            self.writes += 1
            if self.writes in self.fails:
                raise StoreUnavailable


@pytest.fixture
def impatient(monkeypatch):
    """Settling is given up at once."""
    monkeypatch.setattr(notebook, "SETTLE_S", 0.0)


@colours
def test_a_store_that_comes_back_is_waited_for(run, provider):
    """A write of the journal is tried again."""
    shop = Shop(TamperedStore(MemoryStore(ManualClock()), before=Away(1, 3)))
    now = shop.attempt()
    assert run(lambda: now.step("charge", provider.charge)) == {"charge": 1}


@colours
def test_without_an_intent_there_is_no_call(run, provider, impatient):
    """The store stays away before the call: it is not made, and the operation can go on later."""
    clock = ManualClock()
    shop = Shop(TamperedStore(MemoryStore(clock), before=Away(1)))
    shop.clock = clock
    first = shop.attempt()
    with pytest.raises(StoreUnavailable, match="journal"):
        run(lambda: first.step("charge", provider.charge))
    assert not provider.calls
    assert first.fate is Fate.RESUMABLE
    second = shop.attempt()
    assert run(lambda: second.step("charge", provider.charge)) == {"charge": 1}


@colours
def test_a_result_that_could_not_be_recorded_ends_the_attempt_at_its_next_step(run, provider, impatient):
    """The handler has its result; a journal that failed may arrive late, so nothing is begun that it would take out."""
    clock = ManualClock()
    shop = Shop(TamperedStore(MemoryStore(clock), before=Away(2)))
    shop.clock = clock
    first = shop.attempt()
    assert run(lambda: first.step("charge", provider.charge, if_interrupted="resend", downstream_window=WINDOW)) == {
        "charge": 1
    }
    assert first.fate is Fate.RAN
    with pytest.raises(StoreUnavailable, match="next attempt"):
        run(lambda: first.step("ship", provider.charge))
    assert (len(provider.calls), first.fate) == (1, Fate.RESUMABLE)
    second = shop.attempt()
    run(lambda: second.step("charge", provider.charge, if_interrupted="resend", downstream_window=WINDOW))
    run(lambda: second.step("ship", provider.charge))
    assert [call.attempt for call in provider.calls] == [1, 2, 1]


@colours
def test_no_journal_takes_out_what_a_later_one_added(run, provider):
    """A write that failed and is applied after all, when others were made since, leaves every intent in its place."""
    inner = MemoryStore(ManualClock())
    lost: list[KeepJournalIfHeld] = []

    def lose(transition: Any) -> None:
        if isinstance(transition, KeepJournalIfHeld) and not lost:
            lost.append(transition)
            raise StoreUnavailable

    shop = Shop(TamperedStore(inner, before=lose))
    first = shop.attempt()
    run(lambda: first.step("charge", provider.charge))
    with pytest.raises(StoreUnavailable, match="next attempt"):
        run(lambda: first.step("ship", provider.charge_and_die))
    assert inner.perform(lost[0])
    assert len(provider.calls) == 1


@in_loop
async def test_a_journal_in_doubt_is_what_was_sent(impatient):
    """An intent that is added while a write fails is not in what may arrive late: it is not called under it."""
    inner, gate = MemoryStore(ManualClock()), asyncio.Event()
    lost: list[KeepJournalIfHeld] = []

    def lose(transition: Any) -> Any:
        if not isinstance(transition, KeepJournalIfHeld) or lost:
            return None
        lost.append(transition)
        return fail_at_the_gate()

    async def fail_at_the_gate() -> None:
        await gate.wait()
        raise StoreUnavailable

    called = []

    async def call(step_call: StepCall) -> str:
        called.append(step_call.key)
        return step_call.key

    now = Shop(TamperedStore(inner, before=lose)).attempt()
    charge = asyncio.create_task(now.step("charge", call))
    while not lost:  # noqa: ASYNC110 - the store has no event
        await asyncio.sleep(0)
    ship = asyncio.create_task(now.step("ship", call))
    await asyncio.sleep(0)  # its intent waits for the turn
    gate.set()
    for step in (charge, ship):
        with pytest.raises(StoreUnavailable):
            await step
    assert called == []


@colours
def test_a_journal_that_cannot_be_looked_at(run, provider):
    """The store is away at the first step of a later attempt: nothing is called, and the operation goes on later."""
    clock = ManualClock()

    def away(transition: Any) -> None:
        if isinstance(transition, ReadDetails):
            raise StoreUnavailable

    shop = Shop(TamperedStore(MemoryStore(clock), before=away))
    shop.clock = clock
    first = shop.attempt()
    run(lambda: first.step("charge", provider.charge))
    second = shop.attempt()
    with pytest.raises(StoreUnavailable):
        run(lambda: second.step("charge", provider.charge))
    assert second.fate is Fate.RESUMABLE
    assert len(provider.calls) == 1


@colours
def test_a_journal_that_cannot_be_read(run, provider):
    """It was changed: nobody can tell what was done, so nothing is."""
    shop = Shop()
    first = shop.attempt()
    run(lambda: first.step("charge", provider.charge))
    assert shop.store.perform(KeepJournalIfHeld(shop.claim, b"nonsense" * 5))
    second = shop.attempt()
    with pytest.raises(StepUnknown, match="cannot be read"):
        run(lambda: second.step("ship", provider.charge))
    assert second.fate is Fate.UNKNOWN
    assert len(provider.calls) == 1


def test_a_first_attempt_reads_nothing(provider):
    """It costs two writes for each step, and nothing else."""
    store = TamperedStore(MemoryStore(ManualClock()))
    now = Shop(store).attempt()
    now.step("charge", provider.charge)
    now.step("ship", provider.charge)
    assert store.done == ["ClaimIfAbsent"] + ["KeepJournalIfHeld"] * 4


def test_effects_begin_with_the_first_step(provider):
    """On a route that declares its effects, a step is such a declaration."""
    fates = []
    for begin in (lambda now: now.step("charge", provider.charge), lambda now: now.begin_effects()):
        now = Shop(effects="declared").attempt()
        fates.append(now.fate)
        begin(now)
        fates.append(now.fate)
    assert fates == [Fate.NOT_BEGUN, Fate.RAN] * 2


def test_the_record_stays_in_progress():
    """A journal settles nothing."""
    shop = Shop()
    shop.attempt().step("charge", lambda _: None)
    assert shop.store.perform(Read(RECORD_ID)).record.state is State.IN_PROGRESS
