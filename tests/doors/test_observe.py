"""A door that only observes: what it lets through untouched, and what it counts."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask, abort, request

import retrysafe.asgi
import retrysafe.server.observing
from retrysafe import ConfigurationError, Policy
from retrysafe.errors import StoreUnavailable
from retrysafe.flask import Idempotency, idempotent
from retrysafe.functions import once
from retrysafe.model import Head
from retrysafe.observe import StoreFailed
from retrysafe.operate.observed import document, lines, take_observed
from retrysafe.operation import current_operation
from retrysafe.operation.noted import begin_noting
from retrysafe.protocol.key import Key
from retrysafe.protocol.observing import COUNTS_ROUTE, Sight
from retrysafe.protocol.transitions import ClaimIfAbsent, Purge
from retrysafe.server.observed_wsgi import WatchedInput
from retrysafe.server.observing import Watcher
from retrysafe.server.routed import RoutedMiddleware, door_of
from retrysafe.server.routes import Routes
from retrysafe.server.sighting import COMPARED_BYTES_MAX, Sighting
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from retrysafe.wsgi import IdempotencyMiddleware as BlockingMiddleware
from tests.doors.connections import Connection, ask, protected
from tests.doors.frameworks import SHOPS, Effects
from tests.doors.handlers import Shop, content_of, piece, raising, sending, start
from tests.drive.harness import Noted, TamperedStore, in_loop, states
from tests.operate.shops import NEW, OLD, command, requests, url_of
from tests.stores.test_sqlite_processes import in_child

GOOD = b'{"cents": 500}'


def observing(app, store=None, **settings):
    """The ASGI door around an application, observing all of it."""
    return protected(app, store, mode="observe", **settings)


async def counted(door, store=None):
    """What a door has counted, once it is closed: by route, without what is zero."""
    await door.close()
    assert not door._watcher.has_begun
    return counts_of(store or door._store)


def counts_of(store):
    return {route.route: dict(route.counts) for route in take_observed(store, 1)}


# --- nothing changes ------------------------------------------------------------------------------


@in_loop
async def test_everything_runs_and_nothing_is_said():
    """Duplicates, other requests under a key, bad keys and no account: each runs, and gets what the handler says."""
    shop, routes = Shop(headers=[(b"idempotent-replayed", b"true")]), {"POST /orders": Policy(required=True)}
    door = observing(shop, routes=routes, status_path="/status", contract_path="/contract")
    wishes: list[dict[str, Any]] = [
        {},
        {},
        {"body": b"[]"},
        {"key": None},
        {"key": "a b"},
        {"account": None},
        {"key": "k-2"},
    ]
    answers = [await ask(door, **wish) for wish in wishes]
    assert [answer.body for answer in answers] == [b"order %d" % number for number in range(1, 8)]
    assert {(answer.status, answer.headers) for answer in answers} == {(201, ((b"idempotent-replayed", b"true"),))}
    assert (await ask(door, "GET /status")).status == (await ask(door, "GET /contract")).status == 201
    assert await counted(door) == {
        "POST /orders": {
            Sight.FIRST: 2, Sight.REPLAYED: 1, Sight.MISMATCH: 1,
            Sight.MISSING: 1, Sight.MALFORMED: 1, Sight.NO_SCOPE: 1,
        }
    }  # fmt: skip


@in_loop
async def test_messages_go_through_as_they_are():
    """The same objects in both directions, in the same order and at once; what the handler raises is raised."""
    passed = []
    says = [start(200), piece(b"a", more=True), piece(b"b")]

    async def application(scope, receive, send):
        assert current_operation() is None
        passed.extend([scope, await receive(), await receive()])
        for message in says:
            await send(message)

    door = observing(application)
    connection = Connection(body=[b"1", b"2"])
    gives = [connection.incoming.get_nowait() for _ in range(2)]
    for message in gives:
        connection.incoming.put_nowait(message)
    sent = []
    connection.on_send = lambda message: sent.append((message, len(passed)))
    await connection.run(door)
    assert [id(it) for it in passed] == [id(it) for it in (connection.scope, *gives)]
    assert [message for message, _ in sent] == says
    failure = ZeroDivisionError()
    broken = Connection(key="k-2", body=b"")
    await broken.run(observing(raising(failure)))
    assert broken.error is failure
    await door.close()


class _Eager(Connection):
    """A client that asks again as soon as it has the last byte, while the handler is still at it."""

    door: Any = None

    async def send(self, message):
        await super().send(message)
        if message.get("body") == b"last":
            assert (await ask(self.door)).status == 200


@pytest.mark.parametrize("sized", [True, False])
@in_loop
async def test_an_attempt_has_ended_when_its_client_has_the_answer(sized):
    """Not when the handler is through: by the length of its content it is complete before."""
    length = [(b"content-length", b"4")] if sized else []
    rest = [piece(b"last", more=True), piece()] if sized else [piece(b"last")]
    first = True

    async def application(scope, receive, send):
        nonlocal first
        await content_of(receive)
        says, first = (rest if first else [piece(b"4444")]), False
        for message in [start(200, length), *says]:
            await send(message)

    door = observing(application)
    eager = _Eager()
    eager.door = door
    await eager.run(door)
    assert await counted(door) == {"*": {Sight.FIRST: 1, Sight.REPLAYED: 1}}


@in_loop
async def test_a_client_that_leaves_and_a_handler_that_never_ends():
    """Cancelling the request cancels the handler, as without a door; a retry finds an attempt that did not end."""
    shop, store = Shop(), MemoryStore()
    shop.gate.clear()
    door = observing(shop, store)
    task = asyncio.get_running_loop().create_task(Connection().run(door))
    await shop.entered.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert shop.cancelled == 1
    shop.gate.set()
    assert (await ask(door)).body == b"order 2"
    assert await counted(door) == {"*": {Sight.FIRST: 1, Sight.IN_FLIGHT: 1}}


@in_loop
async def test_one_route_observes_beside_others_that_protect():
    """By its policy; and what it has seen is not replayed on the day that it protects."""
    shop, store = Shop(), MemoryStore()
    routes = {"POST /orders": Policy(mode="observe"), "POST /charges": Policy()}
    door = protected(shop, store, routes=routes, contract_path="/contract")
    assert [(await ask(door)).replayed for _ in range(2)] == [False, False]
    assert [(await ask(door, "POST /charges", key="k-2")).replayed for _ in range(2)] == [False, True]
    published = {route["path"]: route["supported"] for route in door.published().document()["routes"]}
    assert published == {"/orders": False, "/charges": True}
    assert await counted(door, store) == {"POST /orders": {Sight.FIRST: 1, Sight.REPLAYED: 1}}
    later = protected(shop, store, routes={"POST /orders": Policy()})
    assert [((await ask(later)).body, shop.effects) for _ in range(2)] == [(b"order 4", 4)] * 2


@in_loop
async def test_of_two_doors_the_outer_one_counts():
    """A request is seen once, and the one further in takes nothing for its own duplicate."""
    store = MemoryStore()
    inner = observing(Shop(), store)
    outer = observing(inner, store)
    await ask(outer)
    await inner.close()
    assert await counted(outer, store) == {"*": {Sight.FIRST: 1}}


@pytest.mark.parametrize("mode", ["watch", None])
def test_a_mode_that_there_is_not(mode):
    """It is refused by the door, by a policy, and by a function, which always protects."""
    with pytest.raises(ConfigurationError, match="mode is"):
        protected(Shop(), mode=mode)
    with pytest.raises(ConfigurationError, match=r"policy\.mode is"):
        Policy(mode=mode)
    with pytest.raises(ConfigurationError, match="@once always protects"):
        once(key="k", scope="s", store="memory://", policy=Policy(mode="observe"))


# --- contents -------------------------------------------------------------------------------------


@in_loop
async def test_contents():
    """Compared by meaning and in pieces; not what is too large, or what the handler does not read to its end."""

    async def reads_as_told(scope, receive, send):
        if scope["path"] != "/unread":
            await content_of(receive)
        await sending(start(), piece(b"ok"))(scope, receive, send)

    door = observing(reads_as_told, routes={"POST /small": Policy(request_bytes_max=10)})
    big = b"x" * (COMPARED_BYTES_MAX + 1)
    length = [(b"content-length", b"11")]
    for body in ([b'{"a": 1,', b'"b": 2}'], b'{"b":2,"a":1}'):
        await ask(door, key="k-json", body=body)
    await ask(door, "POST /small", key="k-small", body=b"x" * 11)
    await ask(door, "POST /big", key="k-big", body=[big[:9], big[9:]])
    await ask(door, "POST /unread", key="k-unread", headers=[(b"transfer-encoding", b"chunked")])
    for _ in range(2):  # a handler asks for no content where there is none
        await ask(door, "POST /unread", key="k-none", headers=[(b"content-length", b"0")])
    await ask(door, "POST /small", key="k-said", body=b"x" * 11, headers=length)
    assert await counted(door) == {
        "POST /small": {Sight.TOO_LARGE: 2},
        "*": {Sight.FIRST: 2, Sight.REPLAYED: 2, Sight.NOT_COMPARED: 2},
    }


@in_loop
async def test_contents_are_held_within_a_bound(monkeypatch):
    """Of all requests together; what is held is let go with the request, however it ended."""
    monkeypatch.setattr(retrysafe.server.observing, "HELD_BYTES_MAX", 10)
    shop = Shop()
    door = observing(shop)
    await ask(door, key="k-1", body=b"x" * 11)
    for key in ("k-2", "k-3"):
        await ask(door, key=key, body=b"y" * 6)
        door._watcher.close()
    connection = Connection(key="k-4", account=None, body=b"z" * 6)
    await connection.run(door)
    assert (await counted(door), door._watcher._held_bytes) == (
        {"*": {Sight.NOT_COMPARED: 1, Sight.FIRST: 2, Sight.NO_SCOPE: 1}}, 0,
    )  # fmt: skip


def _sighting(watcher, length, content_type=b"text/plain"):
    head = Head("POST", b"/", b"", ((b"content-type", content_type), (b"content-length", b"%d" % length)))
    (route,) = {Routes(Policy(), {}).find("POST", "/")}
    assert route is not None
    made = Sighting(watcher, route, head, Key("k-1"), begin_noting(marked=False))
    made.belongs_to("alice")
    return made


def _closed(source):
    with source as opened:
        read = opened.read()
    return read, source.closed


READERS = {
    "read": lambda source: source.read(),
    "in pieces": lambda source: [source.read(4) for _ in range(4)],
    "lines": lambda source: [source.readline() for _ in range(3)],
    "all lines": lambda source: source.readlines(),
    "iterated": list,
    "next": lambda source: [next(source) for _ in range(2)],
    "with": _closed,
    "into": lambda source: io.BufferedReader(_Raw(source)).read(),
}


class _Raw(io.RawIOBase):
    """As werkzeug reads where it can."""

    def __init__(self, source):
        self._source = source

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._source.readinto(buffer)


@pytest.mark.parametrize("length", [12, None])
@pytest.mark.parametrize("how", READERS)
def test_a_blocking_handler_reads_in_whatever_way(how, length):
    """It gets what the server gives; once it has all of it, the content is known."""
    content = b"first\nsecond"
    watcher = Watcher(MemoryStore(), None, "default", None, Noted(), anonymous=False)
    sighting = _sighting(watcher, 12)
    assert READERS[how](WatchedInput(io.BytesIO(content), sighting, length)) == READERS[how](io.BytesIO(content))
    sighting.end()
    watcher.close()
    is_known = length is not None or how != "next"
    assert counts_of(watcher._store)["*"].get(Sight.NOT_COMPARED, 0) == (0 if is_known else 1)


@pytest.mark.parametrize("said", ["\xb2", "9" * 5_000, "-1", ""])
def test_a_length_that_is_no_number(said):
    """A server that hands it on hands it on; there is nothing to read by it."""

    def shop(environ, start_response):
        start_response("200 OK", [])
        return [environ["CONTENT_LENGTH"].encode()]

    store = MemoryStore()
    door = BlockingMiddleware(shop, store=store, scope="header:X-Account", mode="observe")
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "HTTP_X_ACCOUNT": "a", "HTTP_IDEMPOTENCY_KEY": "k-1",
        "CONTENT_LENGTH": said, "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    assert list(door(environ, lambda *_: None)) == [said.encode()]  # type: ignore[arg-type]  # nobody writes
    door.close()
    assert counts_of(store) == {"*": {Sight.FIRST: 1}}


def test_a_length_of_very_many_digits_is_no_failure():
    """Of a handler that reads nothing."""
    watcher = Watcher(MemoryStore(), None, "default", None, Noted(), anonymous=False)
    head = Head("POST", b"/", b"", ((b"content-length", b"9" * 5_000),))
    (route,) = {Routes(Policy(), {}).find("POST", "/")}
    assert route is not None
    Sighting(watcher, route, head, Key("k-1"), begin_noting(marked=False)).end()
    watcher.close()
    assert counts_of(watcher._store) == {"*": {Sight.NOT_COMPARED: 1}}


def test_a_content_that_is_read_again_is_not_compared():
    """What the source can do this can, and what it cannot do, this cannot either."""
    watcher = Watcher(MemoryStore(), None, "default", None, Noted(), anonymous=False)
    sighting = _sighting(watcher, 3)
    source = WatchedInput(io.BytesIO(b"abc"), sighting, 3)
    assert (source.read(1), source.seek(0), source.read()) == (b"a", 0, b"abc")
    with pytest.raises(AttributeError):
        source.nothing()
    watcher.close()
    assert counts_of(watcher._store) == {"*": {Sight.NOT_COMPARED: 1}}


# --- accounts -------------------------------------------------------------------------------------


@in_loop
async def test_nobody_waits_for_an_account():
    """A coroutine function is answered after the response; one that fails, or gives no text, has none."""
    found = asyncio.Event()

    async def slow(connection):
        connection["touched"] = True
        await found.wait()
        return "alice"

    async def failing(_):
        raise LookupError("alice")

    store = MemoryStore()
    door = retrysafe.asgi.IdempotencyMiddleware(Shop(), store=store, scope=slow, mode="observe")
    connection = Connection()
    assert [(await connection.run(door)).status, "touched" in connection.scope] == [201, False]
    assert (await ask(door)).status == 201
    found.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await counted(door, store) == {"*": {Sight.FIRST: 1, Sight.REPLAYED: 1}}
    wrong: list[Any] = [failing, lambda _: 7, lambda _: 1 / 0]
    for scope in wrong:
        store = MemoryStore()
        door = retrysafe.asgi.IdempotencyMiddleware(Shop(), store=store, scope=scope, mode="observe")
        assert (await ask(door)).status == 201
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await counted(door, store) == {"*": {Sight.NO_SCOPE: 1}}


# --- the store ------------------------------------------------------------------------------------


@in_loop
async def test_a_store_that_hangs_holds_up_nobody(monkeypatch):
    """What waits for it is bounded, and what does not fit is said to be lost; it is asked in the order of the key."""
    monkeypatch.setattr(retrysafe.server.observing, "WAITING_MAX", 3)
    hanging, entered = threading.Event(), threading.Event()

    def hang(_):
        entered.set()
        hanging.wait(10)

    store = TamperedStore(MemoryStore(), before=hang)
    door = observing(Shop(), store)
    await ask(door)
    await asyncio.to_thread(entered.wait, 10)
    answers = [await ask(door) for _ in range(5)]
    assert [answer.status for answer in answers] == [201] * 5
    hanging.set()
    counts = (await counted(door, store))["*"]
    assert counts[Sight.LOST] > 0
    assert counts[Sight.FIRST] == 1
    assert sum(counts.values()) == 6


@in_loop
async def test_a_store_that_is_too_slow_has_no_more_waiting_for_it(monkeypatch):
    """A request that is lost leaves nothing behind: its end does not wait either."""
    monkeypatch.setattr(retrysafe.server.observing, "WAITING_MAX", 3)
    hanging = threading.Event()

    def hang(_):
        hanging.wait(10)

    store = TamperedStore(MemoryStore(), before=hang)
    door = observing(Shop(), store)
    for _ in range(50):
        await ask(door)
    assert sum(lane._waiting.qsize() for lane in door._watcher._lanes) <= 4
    hanging.set()
    counts = (await counted(door, store))["*"]
    assert counts[Sight.LOST] + counts[Sight.FIRST] + counts.get(Sight.REPLAYED, 0) == 50


@in_loop
async def test_nothing_of_a_key_overtakes_anything():
    """What came first is the first attempt, however long the store takes to answer about it."""
    hanging, asked = threading.Event(), list[Any]()

    def hang(transition):
        if isinstance(transition, ClaimIfAbsent) and transition.route != COUNTS_ROUTE and not asked:
            asked.append(transition)
            hanging.wait(10)

    inner = MemoryStore()
    door = observing(Shop(), TamperedStore(inner, before=hang))
    for body in (b"1", b"1", *(b"%d" % number for number in range(2, 9))):
        await ask(door, body=body)
    hanging.set()
    assert await counted(door, inner) == {"*": {Sight.FIRST: 1, Sight.REPLAYED: 1, Sight.MISMATCH: 7}}


@in_loop
async def test_there_are_no_threads_to_be_had(monkeypatch):
    """No request fails by that."""

    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    door = observing(Shop())
    assert [(await ask(door, key=key)).status for key in ("k-1", None)] == [201, 201]


@in_loop
async def test_a_door_that_closes_waits_no_longer_than_it_may(monkeypatch):
    """What waits for the store even then is said to be lost."""
    monkeypatch.setattr(retrysafe.server.observing, "PATIENCE_S", 0.05)
    hanging, inner = threading.Event(), MemoryStore()

    def hang(transition):
        if isinstance(transition, ClaimIfAbsent) and transition.route != COUNTS_ROUTE:
            hanging.wait(10)

    door = observing(Shop(), TamperedStore(inner, before=hang))
    for _ in range(3):
        await ask(door)
    counts = await counted(door, inner)
    hanging.set()
    assert counts == {"*": {Sight.LOST: 2}}


@in_loop
async def test_a_store_that_hangs_keeps_no_door_from_closing(monkeypatch, caplog):
    """Not even by the counts that are to be written at the end."""
    monkeypatch.setattr(retrysafe.server.observing, "PATIENCE_S", 0.05)
    hanging = threading.Event()

    def hang(_):
        hanging.wait(10)

    door = observing(Shop(), TamperedStore(MemoryStore(), before=hang))
    await ask(door, key=None)
    await ask(door)
    async with asyncio.timeout(5):
        await door.close()
    hanging.set()
    assert "what was observed last could not be written" in caplog.text


@in_loop
async def test_a_store_that_is_away_from_the_start(monkeypatch):
    """The door opens without it, says once that it fails, and counts what nobody could be asked about."""
    monkeypatch.setattr(retrysafe.server.observing, "_PAUSE_S", 0.0)
    noted, inner = Noted(), MemoryStore()
    store = TamperedStore(inner)
    store.away = True
    door = observing(Shop(), store, observer=noted)
    await door.open()
    assert [(await ask(door, key=key)).status for key in ("k-1", "k-2", None)] == [201] * 3
    await door.close()
    assert len(noted.of(StoreFailed)) == 1
    store.away = False
    await ask(door, key="k-1")
    assert await counted(door, inner) == {"*": {Sight.LOST: 2, Sight.FIRST: 1, Sight.MISSING: 1}}


@in_loop
async def test_a_write_whose_reply_was_lost_counts_nothing_twice(monkeypatch):
    """It is repeated, whole; so is one that failed, with what came in between."""
    monkeypatch.setattr(retrysafe.server.observing, "_PAUSE_S", 0.0)
    fails = [True]

    def lose(transition):
        if type(transition).__name__ == "KeepJournalIfHeld" and fails.pop():
            fails.append(False)
            raise StoreUnavailable("the reply was lost")

    inner = MemoryStore()
    door = observing(Shop(), TamperedStore(inner, after=lose))
    await ask(door)
    door._watcher.close()
    assert door._watcher._counts.unwritten == 1
    await ask(door)
    assert await counted(door, inner) == {"*": {Sight.FIRST: 1, Sight.REPLAYED: 1}}


@in_loop
async def test_each_day_has_a_record_of_its_own():
    """So that what is older than anybody asks for is forgotten, and counts of some days can be asked for."""
    clock = [1_000_000]
    store = MemoryStore(lambda: clock[0])
    door = observing(Shop(), store)
    for day in range(3):
        clock[0] += 86_400_000 + day
        await ask(door, key=f"k-{day}")
        door._watcher.close()
    await ask(door, key="k-last")
    assert (await counted(door, store))["*"] == {Sight.FIRST: 2}
    assert [sum(route.requests for route in take_observed(store, days)) for days in (2, 31)] == [3, 4]
    clock[0] += 40 * 86_400_000
    while store.perform(Purge()).more:
        pass
    assert not states(store)


def test_a_fork(tmp_path):
    """The counts of before are the parent's, and a child counts its own from then on."""
    store = SqliteStore(tmp_path / "records.db")
    watcher = Watcher(store, None, "default", None, Noted(), anonymous=False)
    route = Routes(Policy(), {}).find("POST", "/")
    assert route is not None
    watcher.count(route, Sight.MISSING)

    def work():
        watcher.count(route, Sight.MALFORMED)
        watcher.close()
        store.close()
        return "done"

    assert in_child(os.fork, work) == "done"
    watcher.close()
    assert counts_of(store) == {"*": {Sight.MISSING: 1, Sight.MALFORMED: 1}}
    store.close()
    assert retrysafe.server.observing.WRITTEN_EVERY_S <= 10, "whoever looks sees numbers that are seconds old"


# --- what operators see ---------------------------------------------------------------------------


@in_loop
async def test_numbers():
    """As JSON, and one thing a line; nothing is said of what did not occur."""
    door = observing(Shop())
    for key in ("k-1", "k-1", "k-1", "k-2", None):
        await ask(door, key=key)
    await door.close()
    seen = take_observed(door._store, 7)
    found = document(seen)
    (route,) = found["routes"]
    assert (found["requests"], found["duplicates"], found["lost"]) == (5, 2, 0)
    assert (route["keyed"], route["duplicates"], route["duplicate_rate"], route["missing_keys"]) == (4, 2, 0.5, 1)
    assert route["first_seen"] <= route["last_seen"]
    told = list(lines(seen, 7))
    assert told[:2] == [
        "observed in 7 days: 5 requests, 2 duplicates",
        "protection would have kept 2 requests from running again",
    ]
    assert told[2] == "*: 5 requests, 4 with a key, 50.00% of those compared are duplicates"
    assert "  duplicates once the first attempt had ended, to be replayed: 2" in told
    assert not [line for line in told if line.endswith(": 0")]
    assert list(lines((), 1)) == ["nothing was observed in 1 days"]


def test_operators_have_no_work_with_it(tmp_path):
    """Its records are in no list and no count, and in nobody's way when the encryption key changes."""
    requests(tmp_path, ["k-1", "k-1", "k-2"], encryption_keys=OLD, mode="observe")
    requests(tmp_path, ["k-1"], encryption_keys=OLD)
    url = url_of(tmp_path)
    assert len(json.loads(command("keys", "list", "--json", "--store", url).stdout)["records"]) == 1
    asked = command("keys", "list", "--json", "--route", "observed *", "--store", url)
    assert len(json.loads(asked.stdout)["records"]) == 2
    assert json.loads(command("stats", "--json", "--store", url).stdout)["records"] == 1
    result = command("keys", "rotate", "--json", "--store", url, RETRYSAFE_ENCRYPTION_KEYS=f"{NEW} {OLD}")
    assert json.loads(result.stdout) == {"encrypted": 3, "current": 0, "overtaken": 0, "unreadable": 0, "waiting": 0}
    again = requests(tmp_path, ["k-1"], encryption_keys=NEW, mode="observe")
    assert not again[0].replayed
    assert "to be replayed: 2" in command("stats", "--observed", "--store", url).stdout


# --- frameworks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", SHOPS)
@in_loop
async def test_a_framework(framework):
    """What it refuses before a marked handler is no first attempt; its document and its own paths stay as they are."""
    store, effects = MemoryStore(), Effects()
    own = {"status_path": "/status", "contract_path": "/contract"}
    app = SHOPS[framework](effects, mode="observe", store=store, **own)
    bare = {"body": GOOD, "key": "k-1"}
    refused = await ask(app, "POST /v1/charges/7", headers=[(b"x-refuse", b"422")], **bare)
    answers = [await ask(app, "POST /v1/charges/7", **bare) for _ in range(2)]
    assert [refused.status, *(answer.status for answer in answers), len(effects)] == [422, 201, 201, 2]
    assert not any(answer.replayed for answer in answers)
    assert (await ask(app, "POST /out", **bare)).status == 201
    assert (await ask(app, "GET /status", key=None)).status == 404
    door = door_of(app)
    assert isinstance(door, RoutedMiddleware)
    assert "x-idempotency" not in str(
        door.openapi({"paths": {"/v1/charges/{number}": {"post": {}}, "/plain": {"post": {}}}})
    )
    await door.close()
    ((_, counts),) = counts_of(store).items()
    assert counts == {Sight.FIRST: 2, Sight.REPLAYED: 1}
    assert set(states(store)) <= {"completed", "in_progress"}


def test_flask():
    """`IDEMPOTENCY_MODE` is that of the whole door; what is refused before its content was read is not compared."""
    app, store, effects = Flask(__name__), MemoryStore(), []

    @app.before_request
    def guard():
        if status := request.headers.get("X-Refuse"):
            abort(int(status))

    @app.post("/charges")
    @idempotent(required=True)
    def charge():
        effects.append(request.get_json())
        return {"number": len(effects)}, request.get_json().get("status", 201)

    app.config["IDEMPOTENCY_MODE"] = "observe"
    Idempotency(app, store=store, scope="header:X-Account")
    client = app.test_client()
    headers = {"X-Account": "alice", "Idempotency-Key": "k-1"}
    refused = client.post("/charges", json={"cents": 5}, headers={**headers, "X-Refuse": "422"})
    answers = [client.post("/charges", json={"cents": cents}, headers=headers) for cents in (5, 5, 6)]
    answers.append(client.post("/charges", json={"cents": 5}))
    headers["Idempotency-Key"] = "k-2"
    answers += [client.post("/charges", json={"status": 402}, headers=headers) for _ in range(2)]
    assert [refused.status_code, *(answer.json for answer in answers)] == [
        422,
        *({"number": it} for it in range(1, 7)),
    ]
    door = app.extensions["retrysafe"]
    assert door.published().routes["POST /charges"] is None
    door.close()
    assert counts_of(store) == {
        "POST /charges": {
            Sight.NOT_COMPARED: 1, Sight.FIRST: 2, Sight.REPLAYED: 2, Sight.MISMATCH: 1, Sight.MISSING: 1,
        }
    }  # fmt: skip


def test_a_blocking_response_stays_what_it_is():
    """A list and a file go to the server as the very objects; anything else keeps its length and its end."""

    class Pieces:
        def __iter__(self):
            return iter([b"a", b"b"])

    class File:
        def __init__(self, *_):
            pass

        def __iter__(self):
            return iter([b"a"])

    made: list[Any] = [[b"a"], File(), Pieces(), _Length()]
    wanted = iter(made)

    def application(environ, start_response):
        start_response("200 OK", [])
        return next(wanted)

    store = MemoryStore()
    door = BlockingMiddleware(application, store=store, scope="header:X-Account", mode="observe")
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "wsgi.file_wrapper": File, "wsgi.input": io.BytesIO(),
        "HTTP_X_ACCOUNT": "alice", "HTTP_IDEMPOTENCY_KEY": "k-1",
    }  # fmt: skip
    given: list[Any] = [door(dict(environ), lambda *_: lambda _: None) for _ in made]
    assert given[0] is made[0]
    assert given[1] is made[1]
    assert not hasattr(given[2], "__len__")
    assert len(given[3]) == 1
    assert [b"".join(response) for response in given] == [b"a", b"a", b"ab", b"c"]
    given[3].close()
    assert made[3].closed
    door.close()
    assert counts_of(store) == {"*": {Sight.FIRST: 1, Sight.REPLAYED: 3}}


class _Length:
    """A response that says how many pieces it has, and is to be closed."""

    closed = False

    def __iter__(self):
        return iter([b"c"])

    def __len__(self):
        return 1

    def close(self):
        self.closed = True
