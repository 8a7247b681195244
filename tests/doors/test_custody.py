"""The door owns the execution: from the claim on, only the handler itself and a shutdown end it (contract R53)."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: TID251 - users stack it outside of the door
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from retrysafe import Policy, operation
from retrysafe.errors import IncompleteResponse, StoreUnavailable
from retrysafe.model import Head, Response, State
from retrysafe.observe import ClaimLost, CutOff, Handled
from retrysafe.protocol.effects import Answered, Fate
from retrysafe.protocol.snapshot import seal, take_snapshot
from retrysafe.protocol.transitions import CompleteIfHeld, CompleteIfUnknown
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, raising, sending, start
from tests.drive.harness import ManualClock, Noted, TamperedStore, eventually, in_loop, others, records, states, turn


async def _passing(request, call_next):
    return await call_next(request)


def _behind_base_http(app):
    return BaseHTTPMiddleware(app, dispatch=_passing)


@pytest.mark.parametrize("outer", [lambda app: app, _behind_base_http], ids=["alone", "behind BaseHTTPMiddleware"])
@in_loop
async def test_a_cancelled_request_is_finished_by_its_owner(outer):
    """The task of the request is cancelled in the handler: the handler ends, a retry replays, one effect."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    shop.gate.clear()
    request = asyncio.create_task(Connection().run(outer(door)))
    await shop.entered.wait()
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()

    assert (await ask(door)).code == "in-progress"
    shop.gate.set()
    await eventually(lambda: states(store) == [State.COMPLETED])
    retry = await ask(door)
    assert (retry.status, retry.body, retry.replayed) == (201, b"order 1", True)
    assert (shop.effects, shop.cancelled) == (1, 0)


@pytest.mark.parametrize("outer", [lambda app: app, _behind_base_http], ids=["alone", "behind BaseHTTPMiddleware"])
@in_loop
async def test_a_client_that_leaves_is_not_heard_of(outer):
    """The server reports the disconnect and refuses to send: a streaming handler still runs to its end."""
    entered, gate = asyncio.Event(), asyncio.Event()

    async def numbers():
        for number in range(5):
            entered.set()
            await gate.wait()
            yield b"%d," % number

    async def count(_):
        return StreamingResponse(numbers(), 201)

    door = protected(Starlette(routes=[Route("/orders", count, methods=["POST"])]))
    connection = Connection(asgi={"version": "3.0", "spec_version": "2.3"})
    request = asyncio.create_task(connection.run(outer(door)))
    await entered.wait()
    connection.leave()

    def refuse(_):
        raise BrokenPipeError

    connection.on_send = refuse
    await asyncio.sleep(0)
    gate.set()
    await request
    retry = await ask(door)
    assert (retry.status, retry.body, retry.replayed) == (201, b"0,1,2,3,4,", True)


@in_loop
async def test_an_owner_without_a_waiting_request_survives_the_collector():
    """Nobody but the driver refers to the owner: a garbage collection does not take it away."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    shop.gate.clear()
    request = asyncio.create_task(Connection().run(door))
    await shop.entered.wait()
    request.cancel()
    await asyncio.wait([request])
    del request
    for _ in range(3):
        gc.collect()
        await turn(1)
    shop.gate.set()
    await eventually(lambda: states(store) == [State.COMPLETED])


@in_loop
async def test_the_last_byte_waits_for_the_record():
    """All but the last piece go out as they come; the last one only when the record is durable."""
    recorded = asyncio.Event()

    async def hold(transition):
        if isinstance(transition, CompleteIfHeld):
            await recorded.wait()

    store = TamperedStore(MemoryStore(), before=hold)
    door = protected(sending(start(), piece(b"a", more=True), piece(b"b", more=True), piece(b"c")), store)
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    await eventually(lambda: connection.answer.body == b"ab")
    await turn(20)
    assert (connection.answer.body, connection.answer.whole) == (b"ab", False)
    assert states(store) == [State.IN_PROGRESS]
    recorded.set()
    answer = await request
    assert (answer.body, answer.whole) == (b"abc", True)
    assert states(store) == [State.COMPLETED]


@pytest.mark.parametrize("length", [b"5", None])
@in_loop
async def test_the_piece_that_reaches_the_content_length_is_the_last(length):
    """An application that says afterwards, with an empty piece, that it is done: the record has come before."""
    store = MemoryStore()
    seen: list[list[State]] = []
    headers = [(b"content-length", length)] if length else []
    door = protected(sending(start(headers=headers), piece(b"12345", more=True), piece()), store)
    connection = Connection()

    def look(message):
        if message["type"] == "http.response.body":
            seen.append(states(store))

    connection.on_send = look
    answer = await connection.run(door)
    assert (answer.body, answer.whole, connection.error) == (b"12345", True, None)
    assert seen == [[State.COMPLETED if length else State.IN_PROGRESS], [State.COMPLETED]]
    assert (await ask(door)).body == b"12345"


@in_loop
async def test_a_background_task_does_not_hold_the_record_open():
    """The answer is whole and replays while the background task runs, and its claim is not renewed any more."""
    gate, after, noted = asyncio.Event(), [], Noted()
    store = TamperedStore(MemoryStore())

    async def later():
        await gate.wait()
        after.append("done")

    async def order(_):
        return PlainTextResponse("taken", 202, background=BackgroundTask(later))

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    door = protected(app, store, policy=Policy(lease="50ms"), observer=noted)
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    await eventually(lambda: connection.answer.whole)
    await asyncio.sleep(0.05)
    assert ((await ask(door)).body, after) == (b"taken", [])
    assert not request.done()
    assert (noted.of(ClaimLost), store.done.count("RenewIfHeld")) == ([], 0)
    gate.set()
    await request
    assert after == ["done"]


@in_loop
async def test_a_background_task_that_fails_leaves_the_answer_alone():
    """Its exception goes on to the server; the record and the replay are as before."""
    door = protected(sending(start(), piece(b"taken"), then=ValueError("in the background")))
    connection = Connection()
    answer = await connection.run(door)
    assert (answer.body, type(connection.error)) == (b"taken", ValueError)
    assert (await ask(door)).body == b"taken"


@pytest.mark.parametrize("kind", [ZeroDivisionError, StoreUnavailable, TimeoutError, BrokenPipeError])
@in_loop
async def test_an_exception_is_answered_recorded_and_passed_on(kind):
    """The client gets a 500 problem, the record the same, the server the exception, of whatever kind it is."""
    noted = Noted()
    door = protected(raising(kind("secret detail")), observer=noted)
    connection = Connection()
    answer = await connection.run(door)
    assert (answer.status, answer.code, answer.whole) == (500, "handler-failed", True)
    assert b"secret" not in answer.body
    assert isinstance(connection.error, kind)
    assert noted.events == [Handled("recorded", "*")]
    retry = await ask(door)
    assert (retry.status, retry.body, retry.replayed) == (500, answer.body, True)


@pytest.mark.parametrize("stroke", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_ends_the_process(stroke):
    """It calls `sys.exit`: the outcome is recorded before the loop ends with it."""
    store = MemoryStore()

    async def serve():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the loop ends with the task, and says so
        await Connection().run(protected(raising(stroke()), store))

    with pytest.raises(stroke):
        asyncio.run(serve())
    gc.collect()
    assert states(store) == [State.COMPLETED]


@in_loop
async def test_a_handler_that_cancels_itself():
    """Nobody can tell how far it came: the outcome is unknown, and the request ends."""
    store = MemoryStore()
    connection = Connection()
    request = asyncio.create_task(connection.run(protected(raising(asyncio.CancelledError()), store)))
    await asyncio.wait([request])
    assert (connection.answer.code, states(store)) == ("outcome-unknown", [State.UNKNOWN])


@in_loop
async def test_an_exception_that_nobody_waits_for_is_reported():
    """The client has gone and the handler raises: the exception still reaches the log, by way of the loop."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context.get("exception")))
    gate, entered = asyncio.Event(), asyncio.Event()

    async def application(*_):
        entered.set()
        await gate.wait()
        raise ZeroDivisionError

    request = asyncio.create_task(Connection().run(protected(application)))
    await entered.wait()
    request.cancel()
    await asyncio.wait([request])
    del request
    gate.set()
    await eventually(lambda: not others())
    gc.collect()
    assert [type(complaint) for complaint in complaints] == [ZeroDivisionError]
    asyncio.get_running_loop().set_exception_handler(None)


@pytest.mark.parametrize("messages", [[], [start()], [start(), piece(b"half", more=True)]])
@in_loop
async def test_an_application_that_forgets_to_answer(messages):
    """It returns without a whole answer: 500 if nothing was sent, else a connection that breaks off."""
    door = protected(sending(*messages))
    connection = Connection()
    answer = await connection.run(door)
    assert isinstance(connection.error, IncompleteResponse)
    retry = await ask(door)
    if len(messages) == 2:
        assert (answer.body, answer.whole, retry.code) == (b"half", False, "outcome-unknown")
    else:
        assert (answer.code, retry.code, retry.replayed) == ("handler-failed", "handler-failed", True)


@in_loop
async def test_an_exception_in_the_middle_of_an_answer():
    """What was sent cannot be taken back: the answer breaks off, and the outcome is unknown."""
    door = protected(sending(start(), piece(b"half", more=True), then=ZeroDivisionError()))
    connection = Connection()
    answer = await connection.run(door)
    assert (answer.body, answer.whole, type(connection.error)) == (b"half", False, ZeroDivisionError)
    assert (await ask(door)).code == "outcome-unknown"


@in_loop
async def test_a_server_that_cannot_send_the_answer_leaves_nothing_behind():
    """The last message fails in the server, and not because of the client: the error is told, no task stays."""
    shop = Shop()
    door = protected(shop)
    connection = Connection()

    def refuse(_):
        raise RuntimeError("content longer than Content-Length")

    connection.on_send = refuse
    await connection.run(door)
    assert isinstance(connection.error, RuntimeError)
    await eventually(lambda: not others())
    assert ((await ask(door)).replayed, shop.effects) == (True, 1)


@in_loop
async def test_nothing_overtakes_an_answer_that_waits_for_its_record():
    """A handler that loses patience with its last piece and sends another: it goes out after the first."""
    recorded = asyncio.Event()

    async def hold(transition):
        if isinstance(transition, CompleteIfHeld):
            await recorded.wait()

    async def impatient(_connection, _receive, send):
        await send(start(headers=[(b"content-length", b"2")]))
        try:
            async with asyncio.timeout(0.01):
                await send(piece(b"ok", more=True))
        except TimeoutError:
            await send(piece())

    door = protected(impatient, TamperedStore(MemoryStore(), before=hold))
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    for _ in range(30):
        await asyncio.sleep(0.001)
    assert not connection.messages
    recorded.set()
    answer = await request
    assert (answer.body, answer.whole, connection.error) == (b"ok", True, None)
    assert connection.messages[0]["type"] == "http.response.start"


@pytest.mark.parametrize("held_up", ["record", "server"])
@in_loop
async def test_another_task_of_the_handler_does_not_overtake_the_answer(held_up):
    """While the last piece waits for its record or for the server, a second task sends another: it goes out after."""
    go_on = asyncio.Event()

    async def hold(transition):
        if held_up == "record" and isinstance(transition, CompleteIfHeld):
            await go_on.wait()

    class _Slow(Connection):
        async def send(self, message):
            if held_up == "server":
                await go_on.wait()
            await super().send(message)

    async def of_two_tasks(_connection, _receive, send):
        await send(start(headers=[(b"content-length", b"2")]))
        last = asyncio.create_task(send(piece(b"ok", more=True)))
        await turn(9)
        await send(piece())
        await last

    door = protected(of_two_tasks, TamperedStore(MemoryStore(), before=hold))
    connection = _Slow()
    request = asyncio.create_task(connection.run(door))
    await turn(50)
    assert not connection.messages
    go_on.set()
    answer = await request
    assert (answer.body, answer.whole, connection.error) == (b"ok", True, None)


@in_loop
async def test_another_task_of_the_handler_that_answers_anew():
    """While the answer waits for its record, and its head is to say more: the server says what it makes of two."""
    go_on = asyncio.Event()

    async def hold(transition):
        if isinstance(transition, CompleteIfHeld):
            await go_on.wait()

    async def of_two_tasks(_connection, _receive, send):
        await send(start())
        last = asyncio.create_task(send(piece(b"ok")))
        await turn(9)
        await send({"type": "http.response.start", "status": 500})
        await last

    door = protected(of_two_tasks, TamperedStore(MemoryStore(), before=hold), policy=Policy(expires_header=True))
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    await turn(50)
    go_on.set()
    answer = await request
    assert (answer.status, answer.body, answer.whole) == (201, b"ok", True)
    assert str(connection.error) == "unexpected http.response.start"


@in_loop
async def test_a_handler_sees_the_end_of_the_exchange_after_its_answer():
    """It waits for the disconnect, as some frameworks do, and gets it once the answer is out."""
    seen = []

    async def application(_connection, receive, send):
        await sending(start(), piece(b"ok"))(_connection, receive, send)
        while (message := await receive())["type"] == "http.request":
            pass
        seen.append(message["type"])

    await ask(protected(application))
    assert seen == ["http.disconnect"]


@in_loop
async def test_what_a_handler_adds_to_an_answer_that_was_not_its_own():
    """Its record is gone, so another answer goes out; the rest of its own is swallowed."""
    store = MemoryStore()

    async def application(_connection, _receive, send):
        store._records.clear()
        await send(start(headers=[(b"content-length", b"2")]))
        await send(piece(b"ok", more=True))
        await send(piece())

    connection = Connection()
    answer = await connection.run(protected(application, store))
    assert (answer.code, answer.whole, connection.error) == ("outcome-unknown", True, None)


@in_loop
async def test_a_client_that_leaves_does_not_count_as_a_cancellation():
    """A send that never returns is given up; the handler's task is as if nobody had cancelled it."""
    entered, seen, store = asyncio.Event(), [], MemoryStore()

    async def application(_connection, _receive, send):
        await send(start())
        entered.set()
        await send(piece(b"one", more=True))
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.cancelling())
        await send(piece(b"two"))

    class _Stuck(Connection):
        async def send(self, message):
            await super().send(message)
            await asyncio.Event().wait()

    door = protected(application, store)
    request = asyncio.create_task(_Stuck().run(door))
    await entered.wait()
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    await eventually(lambda: states(store) == [State.COMPLETED])
    assert (seen, (await ask(door)).body) == ([0], b"onetwo")


@in_loop
async def test_shutting_down_waits_for_the_handler():
    """`close` returns when the handler has ended and its outcome is recorded."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    shop.gate.clear()
    request = asyncio.create_task(Connection().run(door))
    await shop.entered.wait()
    closing = asyncio.create_task(door.close())
    await turn(20)
    assert not closing.done()
    shop.gate.set()
    await closing
    assert ((await request).status, states(store)) == (201, [State.COMPLETED])
    assert not door._driver._owners
    assert not door._driver._errands


@pytest.mark.parametrize(("fate", "after", "told", "retry"), [
    (None, State.UNKNOWN, "outcome-unknown", "outcome-unknown"),
    ("no_effect", State.RETRYABLE, "handler-failed", None),
])  # fmt: skip
@in_loop
async def test_past_the_drain_the_handler_is_cancelled(fate, after, told, retry):
    """Its record is unknown, unless it has said that nothing was done."""
    store, noted = MemoryStore(), Noted()
    shop = Shop()
    shop.gate.clear()

    async def application(connection, receive, send):
        if fate is not None:
            getattr(operation(), fate)()
        await shop(connection, receive, send)

    door = protected(application, store, drain="10ms", observer=noted)
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    await shop.entered.wait()
    await door.close()
    await asyncio.wait([request])
    assert (connection.answer.code, states(store)) == (told, [after])
    assert (noted.of(CutOff), shop.cancelled) == ([CutOff(1)], 1)
    shop.gate.set()
    assert (await ask(door)).code == retry


@in_loop
async def test_a_handler_that_streams_for_ever_learns_that_its_time_is_over():
    """Past `execution_max` the disconnect that was kept from it is shown."""
    seen = []

    async def endless(connection, receive, send):
        await receive()
        await send(start(200))
        await send(piece(b"tick", more=True))
        seen.append((await receive())["type"])

    door = protected(endless, policy=Policy(lease="60ms", execution_max="60ms"))
    connection = Connection()
    await connection.run(door)
    assert seen == ["http.disconnect"]


@pytest.mark.parametrize("said", [ZeroDivisionError(), "perhaps", "discard", True, 0, []])
@in_loop
async def test_a_classifier_that_fails(said):
    """The policy's own function is broken: the answer is recorded and sent, it is told, and nothing runs again."""
    shop, noted = Shop(429), Noted()

    def classify(_):
        if isinstance(said, Exception):
            raise said
        return said

    door = protected(shop, policy=Policy(classify=classify), observer=noted)
    first, retry = await ask(door), await ask(door)
    assert (first.status, retry.status, retry.replayed, shop.effects) == (429, 429, True, 1)
    assert noted.events[0] == Handled("classify-failed", "*")


@pytest.mark.parametrize(("said", "state"), [
    ("record", State.COMPLETED), ("release", State.RETRYABLE), ("unknown", State.UNKNOWN), (None, State.COMPLETED),
])  # fmt: skip
@in_loop
async def test_a_classifier_overrules_the_table(said, state):
    """What it says of a 500 becomes of it; None leaves it to the table."""
    store = MemoryStore()
    await ask(protected(Shop(500), store, policy=Policy(classify=lambda _: said)))
    assert states(store) == [state]


@pytest.mark.parametrize("pieces", [1, 3])
@in_loop
async def test_what_is_around_the_door_is_not_recorded(pieces):
    """Middleware outside writes into the start of the response as it passes: compression, cookies, ids of requests."""
    content = [piece(b"x" * 600, more=number < pieces) for number in range(1, pieces + 1)]
    door = protected(sending(start(headers=[(b"content-type", b"text/plain")]), *content))

    async def cookies(scope, receive, send):
        async def add(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-session", b"new"))
            await send(message)

        await door(scope, receive, add)

    compressing = GZipMiddleware(cookies, minimum_size=10)
    first, retry = [await ask(compressing, headers=[(b"accept-encoding", b"gzip")]) for _ in range(2)]
    assert gzip.decompress(first.body) == gzip.decompress(retry.body) == b"x" * 600 * pieces
    for answer in (first, retry):
        assert (answer.values("content-encoding"), answer.values("x-session")) == (["gzip"], ["new"])
    plain = await ask(door)
    assert (plain.body, plain.values("content-encoding"), plain.values("x-session")) == (b"x" * 600 * pieces, [], [])


@in_loop
async def test_a_handler_may_ask_whether_its_client_has_left():
    """As Starlette does it, by a receive that is cancelled at once: it has not, as far as the handler may know."""
    seen = []

    async def order(request):
        await request.body()
        seen.append(await request.is_disconnected())
        return PlainTextResponse("ok")

    connection = Connection()
    connection.leave()
    door = protected(Starlette(routes=[Route("/orders", order, methods=["POST"])]))
    await connection.run(door)
    assert (seen, (await ask(door)).body) == ([False], b"ok")


@in_loop
async def test_the_drain_waits_for_who_begins_meanwhile():
    """A request comes while the door waits for another one's handler, and is longer: the door waits for it too."""
    gates = {b"first": asyncio.Event(), b"second": asyncio.Event()}

    async def handler(connection, receive, send):
        content = (await receive())["body"]
        await gates[content].wait()
        await send(start())
        await send(piece(content))

    store = MemoryStore()
    door = protected(handler, store)
    await door.open()
    first = asyncio.create_task(ask(door, key="first", body=b"first"))
    await eventually(lambda: len(states(store)) == 1)
    closing = asyncio.create_task(door.close())
    await turn(3)
    second = asyncio.create_task(ask(door, key="second", body=b"second"))
    await eventually(lambda: len(states(store)) == 2)
    gates[b"first"].set()
    assert (await first).body == b"first"
    await turn(20)
    assert not closing.done()
    gates[b"second"].set()
    assert (await second).body == b"second"
    await closing
    assert states(store) == [State.COMPLETED] * 2


@in_loop
async def test_an_owner_whose_record_was_resolved_meanwhile_sends_what_it_was_resolved_with():
    """Its lease lapsed, a retry gave it up, and an operator found out: all clients of the key get that one answer."""
    clock, shop = ManualClock(), Shop()
    store = MemoryStore(clock)
    door = protected(shop, store, policy=Policy(lease="60s"))
    shop.gate.clear()
    first = asyncio.create_task(ask(door))
    await shop.entered.wait()
    clock.now_ms += 61_000
    assert (await ask(door)).code == "outcome-unknown"
    (record_id,), (record,) = store._records, records(store)
    found_out = Answered(Response(200, (), b"found out"), whole=True, size=9, digest=b"", fate=Fate.RAN)
    snapshot = take_snapshot(found_out, Head("POST", b"/orders", b"", ()))
    sealed = seal(snapshot, record_id, store.open())
    assert store.perform(CompleteIfUnknown(record_id, record.token, sealed, 60_000, 60_000))
    shop.gate.set()
    late, retry = await first, await ask(door)
    assert (late.status, late.body) == (retry.status, retry.body) == (200, b"found out")
    assert shop.effects == 1


class NeverReads(Connection):
    """A client that takes nothing of its answer."""

    async def send(self, _):
        await asyncio.get_running_loop().create_future()


@in_loop
async def test_a_handler_without_patience_for_its_last_send_sees_the_disconnect():
    """It stops sending by a time limit of its own, and waits for its client to leave: that comes, as without a door."""
    seen = []

    async def shop(_, receive, send):
        await receive()
        await send(start(201))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await send(piece(b"made"))
        seen.append((await receive())["type"])

    store = MemoryStore()
    async with asyncio.timeout(10):
        await NeverReads(key="k").run(protected(shop, store))
    assert (seen, states(store)) == (["http.disconnect"], [State.COMPLETED])


def test_a_door_is_closed_on_another_loop():
    """A handler on a loop that still runs is told to end; nobody waits for it here."""
    elsewhere = asyncio.new_event_loop()
    thread = threading.Thread(target=elsewhere.run_forever)
    thread.start()
    begun = threading.Event()

    async def shop(*_):
        begun.set()
        await asyncio.get_running_loop().create_future()

    store = MemoryStore()
    door = protected(shop, store, drain="0s")
    request = asyncio.run_coroutine_threadsafe(Connection(key="k").run(door), elsewhere)
    assert begun.wait(10)
    asyncio.run(door.close())
    assert request.result(10).code == "outcome-unknown"
    elsewhere.call_soon_threadsafe(elsewhere.stop)
    thread.join(10)
    elsewhere.close()
    assert states(store) == [State.UNKNOWN]
