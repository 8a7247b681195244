"""One file of scenarios for every door, each over real sockets and under a real server.

A scenario says what it needs of a door beyond one request and one answer. What a door cannot do is listed in `doors.py`
with its reason, and a test shows that the list is right: every need is tried on every door. Of doors that are the same
code under another server only that is tried in which servers differ.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.doors.doors import Opened, opened
from tests.doors.needs import NEEDS, doors_of, scenario, twice
from tests.doors.servers import connect, request_bytes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each scenario with each door that it can be told of."""
    metafunc.parametrize("shop", doors_of(metafunc.function), indirect=True, scope="module")


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The shop behind a door, which logs no error that was not told to happen."""
    with opened(request.param, tmp_path_factory.mktemp("shop")) as shop:
        yield shop
    assert shop.unexpected() == []


@pytest.fixture
def name() -> str:
    """A name for what this test does, in the ledger and at the gates; also its key."""
    return uuid.uuid4().hex


@scenario(of_server=True)
def test_what_a_door_cannot_do(shop, name):
    """It is what is listed, and nothing else; each with a reason."""
    can = {need for need, tried in NEEDS.items() if tried(shop, f"{name}-{need}")}
    assert set(NEEDS) - can == set(shop.door.cannot)
    assert all(shop.door.cannot.values())


# --- one effect -----------------------------------------------------------------------------------

NEVER_REPLAYED = [
    ("set-cookie", "session=1"), ("retry-after", "7"), ("x-request-id", "r-1"), ("x-ratelimit-remaining", "3"),
    ("expires", "0"), ("idempotent-replayed", "true"), ("idempotency-status", "forged"), ("server-timing", "db;dur=5"),
]  # fmt: skip
REPLAYED = [
    ("location", "/orders/7"), ("etag", '"v1"'), ("link", "</a>; rel=next"), ("link", "</b>; rel=prev"),
    ("content-type", "application/vnd.shop+json"), ("x-shop", "yes"), ("vary", "accept"),
]  # fmt: skip


@scenario(of_server=True)
def test_a_retry_gets_the_first_answer(shop, name):
    """One effect, and the same bytes; only the retry is marked."""
    first, *retries = (shop.ask(key=name, name=name) for _ in range(4))
    assert (first.status, first.body, first.whole, first.replayed) == (201, f"order {name}".encode(), True, False)
    assert {(it.status, it.body, it.whole, it.replayed) for it in retries} == {(201, first.body, True, True)}
    assert shop.ledger("effect", name) == 1


@scenario("answers", of_server=True)
@pytest.mark.parametrize("status", [201, 303, 404, 500])
def test_a_replay_has_every_field_but_those_of_one_exchange(shop, name, status):
    """Whatever the status says: a refusal is an outcome too."""
    wish = {"status": status, "headers": [*REPLAYED, *NEVER_REPLAYED, ("cache-control", "max-age=9")]}
    first, second = twice(shop, name, **wish)
    assert (first.status, first.body) == (second.status, second.body) == (status, f"order {name}".encode())
    assert (first.values("idempotent-replayed"), second.values("idempotent-replayed")) == ([], ["true"])
    assert (first.values("cache-control"), second.values("cache-control")) == (["max-age=9"], ["no-store"])
    for field, _ in REPLAYED:
        wanted = ", ".join(value for kept, value in REPLAYED if kept == field)
        assert ", ".join(first.values(field)) == ", ".join(second.values(field)) == wanted
    for field, value in NEVER_REPLAYED[:-3]:
        assert (first.values(field), second.values(field)) == ([value], [])
    assert (first.values("idempotency-status"), second.values("idempotency-status")) == ([], [])
    assert len(second.values("date")) == len(first.values("date")) <= 1
    assert shop.ledger("effect", name) == 1


@scenario("answers", of_server=True)
def test_an_answer_without_content(shop, name):
    """204 has no content and no length, the first time and again."""
    first, second = twice(shop, name, status=204, pieces=[""])
    assert (first.status, first.body, second.status, second.body) == (204, b"", 204, b"")
    assert (second.replayed, second.values("content-length")) == (True, [])


@scenario("spelling")
def test_both_spellings_are_one_key(shop, name):
    """What is sent bare once and quoted once is the same operation."""
    shop.ask(key=name, name=name)
    for spelling in (name, f'"{name}"', f'"{name}";v=1', f' "{name}" '):
        assert shop.ask(key=spelling, name=name).replayed
    assert shop.ledger("effect", name) == 1


MALFORMED = [
    ["a", "a"], ["a", "b"], [""], ["a,b"], ['"a", "b"'], ["k" * 300], ['"' + "k" * 300 + '"'], ["\xe9"], ['"\xe9"'],
    ['"a'], ["a b"], ['"a b"'], ["a\x01"], ['"a\x7f"'], ["?1"], ["(a b)"],
]  # fmt: skip


@scenario("spelling", of_server=True)
def test_a_malformed_key_runs_nothing(shop, name):
    """400 of the door's, or the server's own where it does not let the field through; nothing is left behind."""
    refused = [shop.ask(fields=[("Idempotency-Key", key) for key in keys], name=name) for keys in MALFORMED]
    assert {(answer.status, answer.code) for answer in refused} <= {(400, "key-invalid"), (400, None)}
    assert shop.ledger("begun", name) == 0


@scenario("spelling")
def test_what_is_missing(shop, name):
    """A key, where it is required: 400, and where it is not the plain application; an account: 401."""
    refused = shop.ask("POST /required/told", name=name)
    assert (refused.status, refused.code, shop.ledger("begun", name)) == (400, "key-missing", 0)
    nobody = shop.ask(key=name, account=None, name=name)
    assert (nobody.status, nobody.code, shop.ledger("begun", name)) == (401, "scope-missing", 0)
    assert [shop.ask(name=name).replayed for _ in range(2)] == [False, False]
    assert shop.ledger("effect", name) == 2


@scenario()
def test_another_account(shop, name):
    """The same key of another account is another operation."""
    answers = [shop.ask(key=name, name=name, account=account) for account in ("alice", "bob", "alice", "bob")]
    assert [answer.replayed for answer in answers] == [False, False, True, True]
    assert shop.ledger("effect", name) == 2


@scenario()
def test_another_request_under_the_same_key(shop, name):
    """422, while the first runs and after it."""
    shop.shut(f"{name}-effect")
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        assert shop.ask(key=name, name=name, pieces=["else"]).code == "key-reused"
        shop.open(f"{name}-effect")
        assert first.answer().status == 201
    refused = shop.ask(key=name, name=name, pieces=["else"])
    assert (refused.status, refused.code, shop.ledger("effect", name)) == (422, "key-reused", 1)


@scenario("routes")
def test_another_place_is_another_request(shop, name):
    """Another path, query or method."""
    shop.ask(key=name, name=name)
    for target in ("POST /told?x=1", "POST /a/told", "PATCH /told"):
        assert shop.ask(target, key=name, name=name).code == "key-reused"
    assert shop.ledger("effect", name) == 1


@scenario()
def test_a_duplicate_in_flight(shop, name):
    """409 and when to come back; then the replay."""
    shop.shut(f"{name}-effect")
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        refused = shop.ask(key=name, name=name)
        assert (refused.status, refused.code) == (409, "in-progress")
        assert int(refused.values("retry-after")[0]) >= 1
        shop.open(f"{name}-effect")
        assert first.answer().status == 201
    assert shop.ask(key=name, name=name).replayed


@scenario(of_server=True)
def test_duplicates_that_wait(shop, name):
    """Where the policy says so they get nothing while the first runs, and then its answer."""
    request = request_bytes("POST /wait/told", key=name, name=name)
    shop.shut(f"{name}-effect")
    with ExitStack() as clients:
        first, *others = (clients.enter_context(connect(shop.port)) for _ in range(4))
        first.send(request)
        shop.until("effect", name)
        for other in others:
            other.send(request)
        assert all(other.is_silent() for other in others)
        shop.open(f"{name}-effect")
        answers = [wire.answer() for wire in (first, *others)]
    assert {(answer.status, answer.body) for answer in answers} == {(201, f"order {name}".encode())}
    assert [answer.replayed for answer in answers] == [False, True, True, True]
    assert shop.ledger("effect", name) == 1


@scenario(of_server=True)
def test_twenty_at_once(shop, name):
    """One effect; everybody gets the answer or is told to wait."""
    start = threading.Barrier(20)

    def racer(_):
        start.wait()
        return shop.ask(key=name, name=name)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(racer, range(20)))
    assert {answer.status for answer in answers} <= {201, 409}
    assert {answer.code for answer in answers if answer.status == 409} <= {"in-progress"}
    assert sum(answer.status == 201 and not answer.replayed for answer in answers) == 1
    assert shop.ledger("effect", name) == 1


@scenario()
def test_the_process_dies(shop, name):
    """`kill -9` after the effect: when the lease is over the outcome is unknown, and nobody runs it again."""
    shop.ask(key=f"{name}-done", name=f"{name}-done")
    shop.shut(f"{name}-effect")
    with connect(shop.port) as client:
        client.send(request_bytes("POST /short/told", key=name, name=name))
        shop.until("effect", name)
        shop.kill()
    shop.open(f"{name}-effect")
    shop.start()
    retries = [shop.settled("POST /short/told", key=name, name=name) for _ in range(2)]
    assert [(retry.status, retry.code) for retry in retries] == [(409, "outcome-unknown")] * 2
    assert shop.ledger("effect", name) == 1
    assert shop.ask(key=f"{name}-done", name=f"{name}-done").replayed


# --- clients that leave ---------------------------------------------------------------------------


@scenario(of_server=True)
@pytest.mark.parametrize("goodbye", ["reset", "close"])
def test_a_client_that_leaves_in_the_middle_of_the_handler(shop, name, goodbye):
    """The handler is not cancelled and not disturbed; a retry replays its whole answer."""
    _leaves(shop, name, "POST /told", goodbye)


@scenario("pieces", of_server=True)
@pytest.mark.parametrize("goodbye", ["reset", "close"])
def test_a_client_that_leaves_before_the_first_piece(shop, name, goodbye):
    """The same of a response that the framework streams, and whose client it watches."""
    _leaves(shop, name, f"POST /streamed?name={name}", goodbye)


@scenario("asgi", of_server=True)
@pytest.mark.parametrize("goodbye", ["reset", "close"])
@pytest.mark.parametrize("target", ["POST /outer/told", "POST /outer/streamed?name={}"])
def test_a_client_that_leaves_behind_cancelling_middleware(shop, name, target, goodbye):
    """The same where the layer outside of the door is one that cancels."""
    _leaves(shop, name, target.format(name), goodbye)


def _leaves(shop, name, target, goodbye):
    whole = f"order {name}".encode() if target.endswith("told") else b"0,1,2,3,4,"
    held = f"{name}-effect" if target.endswith("told") else f"{name}-0"
    shop.shut(held)
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name, name=name))
        shop.until("effect", name)
        first.reset() if goodbye == "reset" else first.socket.close()
    assert shop.ask(target, key=name, name=name).code == "in-progress"
    shop.open(held)
    retry = shop.settled(target, key=name, name=name)
    assert (retry.status, retry.body, retry.replayed) == (201, whole, True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


@scenario("pieces", of_server=True)
@pytest.mark.parametrize("target", ["POST /told", "POST /streamed?name={}"])
def test_a_client_that_leaves_in_the_middle_of_the_answer(shop, name, target):
    """The rest is made and recorded all the same."""
    _leaves_later(shop, name, target)


@scenario("asgi", of_server=True)
def test_a_client_that_leaves_in_the_middle_of_a_stream_behind_middleware(shop, name):
    """Behind a layer that cancels too."""
    _leaves_later(shop, name, "POST /outer/streamed?name={}")


def _leaves_later(shop, name, target):
    target, wish = target.format(name), {"key": name, "name": name, "pieces": ["0,", "1,", "2,", "3,", "4,"]}
    shop.shut(f"{name}-1")
    with connect(shop.port) as first:
        first.send(request_bytes(target, **wish))
        first.received(b"0,")
        first.reset()
    shop.open(f"{name}-1")
    retry = shop.settled(target, **wish)
    assert (retry.status, retry.body, retry.replayed) == (201, b"0,1,2,3,4,", True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


@scenario(of_server=True)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_leaves_in_the_middle_of_its_upload(shop, name, chunked):
    """Nothing has run and nothing is stored: even another request may have the key."""
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name, padding="x" * 5_000, chunked=chunked)[:2_000])
        first.reset()
    answer = shop.ask(key=name, name=name)
    assert (answer.status, answer.replayed) == (201, False)
    assert shop.ledger("effect", name) == 1


# --- contents -------------------------------------------------------------------------------------


@scenario("contents", of_server=True)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_content_that_is_too_large(shop, name, chunked):
    """413, and nothing is stored: a smaller request may have the key."""
    refused = shop.ask("POST /small/told", key=name, name=name, padding="x" * 300, chunked=chunked)
    assert (refused.status, refused.code, shop.ledger("begun", name)) == (413, "body-too-large", 0)
    assert shop.ask("POST /small/told", key=name, name=name, chunked=chunked).status == 201


@scenario("contents", of_server=True)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_content_arrives_whole(shop, name, chunked):
    """What does not stay in memory reaches the handler byte for byte, and counts for the fingerprint."""
    content = bytes(range(256)) * 6_000
    target = f"POST /size?name={name}"
    first, again, other = (
        shop.ask(target, key=name, content=sent, chunked=chunked) for sent in (content, content, content[:-1] + b"\0")
    )
    assert (first.status, first.body) == (200, f"{len(content)} {sum(content)}".encode())
    assert (again.replayed, other.code, shop.ledger("effect", name)) == (True, "key-reused", 1)


@scenario("contents")
def test_no_content(shop, name):
    """A request without content is one too."""
    first, again = (shop.ask(f"POST /size?name={name}", key=name, content=b"") for _ in range(2))
    assert (first.body, again.body, again.replayed) == (b"0 0", b"0 0", True)


# --- answers --------------------------------------------------------------------------------------


@scenario("pieces", of_server=True)
def test_an_answer_goes_out_as_it_is_made(shop, name):
    """The first piece arrives while the handler is at its second; the whole is replayed."""
    shop.shut(f"{name}-1")
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name, pieces=["one", "two"]))
        first.received(b"one")
        assert shop.ledger("sent", name) == 0
        shop.open(f"{name}-1")
        first.received(b"two")
    assert shop.settled(key=name, name=name, pieces=["one", "two"]).body == b"onetwo"


@scenario("holds", "pieces", of_server=True)
@pytest.mark.parametrize("sized", [False, True])
def test_the_last_byte_waits_for_the_record(shop, name, sized):
    """While the record is being written the answer is not whole, and a duplicate is told to wait."""
    end, wish = b"two" if sized else b"0\r\n\r\n", {"key": name, "name": name, "pieces": ["one", "two"], "sized": sized}
    shop.shut("before-record")
    try:
        with connect(shop.port) as first:
            first.send(request_bytes(**wish))
            seen = first.received(b"one") + first.so_far()
            assert shop.ask(**wish).code == "in-progress"
            assert end not in seen + first.so_far()
            shop.open("before-record")
            first.received(end)
    finally:
        (shop.place / "before-record").unlink(missing_ok=True)
    assert shop.ask(**wish).replayed


@scenario("after", of_server=True)
@pytest.mark.parametrize("sized", [False, True])
def test_a_background_task_is_outside_of_the_record(shop, name, sized):
    """The answer is whole and a retry replays at once, for as long as the task may take."""
    shop.shut(f"{name}-after")
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name, sized=sized))
        assert first.received(f"order {name}".encode())
        assert shop.settled(key=name, name=name, sized=sized).replayed
        assert shop.ledger("end", name) == 0
        shop.open(f"{name}-after")
    shop.until("end", name)


@scenario()
def test_an_exception(shop, name):
    """It is an outcome: 500, which tells no more, and is not run again; what was raised is in the server's log."""
    first, second = twice(shop, name, **{"raise": "before"})
    assert (first.status, second.status, second.replayed or second.code == "handler-failed") == (500, 500, True)
    assert b"ZeroDivisionError" not in first.body + second.body
    shop.until_logged(f"ZeroDivisionError: before {name}")
    assert shop.ledger("effect", name) == 1


@scenario("problems", of_server=True)
def test_the_problem_of_an_exception(shop, name):
    """The client of the first attempt is told what those of its retries are told."""
    first, second = twice(shop, name, **{"raise": "before"})
    assert (first.code, second.code, second.body, second.replayed) == ("handler-failed", first.code, first.body, True)


@scenario("pieces", of_server=True)
@pytest.mark.parametrize("sized", [False, True])
def test_an_exception_in_the_middle_of_the_answer(shop, name, sized):
    """The connection breaks, so that nobody takes the answer for whole; the outcome is unknown."""
    wish = {"raise": "between", "pieces": ["one", "two"], "sized": sized}
    broken = shop.ask(key=name, name=name, **wish)
    assert (broken.status, broken.body, broken.whole) == (201, b"one", False)
    shop.until_logged(f"ZeroDivisionError: between {name}")
    retry = shop.settled(key=name, name=name, **wish)
    assert (retry.status, retry.code, shop.ledger("effect", name)) == (409, "outcome-unknown", 1)


@scenario("pieces")
def test_an_exception_before_the_first_piece(shop, name):
    """Nobody takes what was sent for an answer; a retry gets a problem, and runs nothing."""
    first, again = twice(shop, name, **{"raise": "first"})
    assert first.status in {500, 409} or not first.whole
    assert (again.status, again.replayed) == (500, True) or again.code == "outcome-unknown"
    assert shop.ledger("effect", name) == 1


@scenario("pieces")
def test_an_answer_that_is_too_large_to_keep(shop, name):
    """The first client gets all of it; a retry learns that it was done, and where."""
    wish: dict[str, Any] = {"pieces": ["ab", "cd"], "times": 400_000, "headers": [("location", "/reports/1")]}
    first, second = twice(shop, name, **wish)
    assert (first.status, first.whole, first.body == b"ab" * 400_000 + b"cd" * 400_000) == (201, True, True)
    problem = json.loads(second.body)
    assert (second.status, second.code) == (409, "replay-unavailable")
    assert (problem["original_status"], problem["location"]) == (201, "/reports/1")
    assert shop.ledger("effect", name) == 1


@scenario("answers")
def test_an_answer_that_says_not_yet_is_released(shop, name):
    """It runs again, and only for the same request."""
    for status in (401, 403, 405, 407, 408, 415, 421, 423, 425, 429):
        key = f"{name}-{status}"
        answers = twice(shop, key, status=status)
        assert [(answer.status, answer.replayed) for answer in answers] == [(status, False)] * 2
        assert shop.ask(key=key, name=key).code == "key-reused"
        assert shop.ledger("effect", key) == 2


@scenario("redirects")
def test_the_redirect_of_a_router_is_no_outcome(shop, name):
    """The client follows it under the same key, and is served."""
    redirect = shop.ask(f"POST /slash?name={name}", key=name)
    assert redirect.values("location")[0].endswith(f"/slash/?name={name}")
    assert [shop.ask(f"POST /slash/?name={name}", key=name).replayed for _ in range(2)] == [False, True]


@scenario("files", of_server=True)
def test_a_file_is_replayed(shop, name):
    """Where the server would send a file itself, the answer still comes by way of the door."""
    first, second = (shop.settled("POST /file", key=name) for _ in range(2))
    assert b"def told(" in first.body
    assert (second.body, second.replayed) == (first.body, True)


# --- the operation --------------------------------------------------------------------------------


@scenario("operation")
def test_the_operation_of_a_handler(shop, name):
    """Released: a second attempt with the same child key. Not run: forgotten. Unknown: never again."""
    first, second = (json.loads(it.body) for it in twice(shop, name, operation=True, say="no_effect"))
    assert (first["attempt"], second["attempt"], first["child"]) == (1, 2, second["child"])
    assert shop.ask(key=f"{name}-2", name=name, say="not_run").status == 201
    assert shop.ask(key=f"{name}-2", name=name, say="outcome_unknown").status == 201
    assert shop.ask(key=f"{name}-2", name=name, say="outcome_unknown").code == "outcome-unknown"


@scenario("operation", "routes")
def test_a_blocking_handler_knows_its_operation(shop, name):
    """It may run in a thread of the framework's, and finds its key there."""
    assert shop.ask(f"POST /threaded?name={name}", key=f'"{name}"').body == name.encode()


@scenario("authorize")
def test_a_replay_may_be_refused(shop, name):
    """Who lost the permission gets 403."""
    shop.ask(key=name, name=name)
    refused = shop.ask(key=name, name=name, fields=[("X-Revoked", "yes")])
    assert (refused.status, refused.code) == (403, "replay-forbidden")
    assert shop.ask(key=name, name=name).replayed


# --- what passes, and how it comes ----------------------------------------------------------------


@scenario("routes", of_server=True)
def test_a_stream_of_events_passes(shop, name):
    """A GET with a key: each event arrives when it is made, and nothing is recorded."""
    for event in range(3):
        shop.shut(f"{name}-{event}")
    with connect(shop.port) as client:
        client.send(request_bytes(f"GET /ticks?name={name}", key=name, content=b""))
        for event in range(3):
            shop.open(f"{name}-{event}")
            client.received(b"data: %d" % event)
    assert not shop.ask(key=name, name=name).replayed


@scenario("routes")
def test_what_is_enrolled(shop, name):
    """A route that is taken out runs each time; PUT is protected where the table says so, and nowhere else."""
    for target, replayed in (("POST /open/told", False), ("PUT /put/a/told", True), ("PUT /other/a/told", False)):
        key = f"{name}-{target[:7].replace(' ', '')}"
        assert [answer.replayed for answer in twice(shop, key, target)] == [False, replayed]
        assert shop.ledger("effect", key) == 2 - replayed


@scenario("answers", of_server=True)
def test_one_connection_for_many_requests(shop, name):
    """First answer, replay, refusal and a request without a key, on one connection if the server keeps it."""
    asked = [
        (request_bytes(key=name, name=name, sized=True), 201),
        (request_bytes(key=name, name=name, sized=True), 201),
        (request_bytes(key=name, name=name, sized=True, status=202), 422),
        (request_bytes(name=name, sized=True), 201),
        (request_bytes(key='"', name=name, sized=True), 400),
        (request_bytes(key=name, name=name, sized=True), 201),
    ]
    for on_one in [asked] if shop.door.keeps_connections else [[request] for request in asked]:
        with connect(shop.port) as client:
            for request, status in on_one:
                client.send(request)
                assert client.answer().status == status
    assert shop.ledger("effect", name) == 2


@scenario("answers", of_server=True)
def test_requests_in_one_go(shop, name):
    """Sent without waiting for answers, on one connection: answered in order, or the first alone; one effect."""
    answers = 3 if shop.door.keeps_connections else 1
    with connect(shop.port) as client:
        client.send(request_bytes(key=name, name=name, sized=True) * 3)
        seen = client.received(f"order {name}".encode())
        while seen.count(f"order {name}".encode()) < answers:
            seen += client.received(f"order {name}".encode())
    assert (seen.count(b" 201 "), seen.lower().count(b"idempotent-replayed")) == (answers, answers - 1)
    assert shop.ledger("effect", name) == 1


@scenario("contents", of_server=True)
def test_a_client_that_asks_before_it_sends(shop, name):
    """`Expect: 100-continue`: the content is asked for, arrives, and counts; too large a one is refused, unseen
    where the server leaves it to the application to ask for it.
    """
    head, _, content = request_bytes(key=name, name=name, fields=[("Expect", "100-continue")]).partition(b"\r\n\r\n")
    with connect(shop.port) as client:
        client.send(head + b"\r\n\r\n")
        assert b" 100 " in client.received(b"\r\n\r\n")
        client.send(content)
        assert client.answer().status == 201
    large = request_bytes("POST /small/told", key=f"{name}-2", content=b"x" * 300, fields=[("Expect", "100-continue")])
    with connect(shop.port) as client:
        client.send(large if shop.door.reads_ahead else large.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert client.answer().code == "body-too-large"
    assert shop.ledger("effect", name) == 1


# --- ASGI alone -----------------------------------------------------------------------------------


@scenario("asgi")
def test_paths_are_compared_as_they_were_sent(shop, name):
    """An escaped slash is no slash: two resources, whatever a router makes of them."""
    shop.ask("POST /a%2Fb/told", key=name, name=name)
    assert shop.ask("POST /a/b/told", key=name, name=name).code == "key-reused"
    assert shop.ask("POST /a%2fb/told", key=name, name=name).replayed


@scenario("asgi", of_server=True)
def test_a_background_task_of_the_framework(shop, name):
    """Starlette's `BackgroundTask` outlives the client's connection."""
    target = f"POST /background?name={name}"
    shop.shut(f"{name}-after")
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name))
        first.received(b"taken")
    assert shop.ask(target, key=name).replayed
    assert shop.ledger("end", name) == 0
    shop.open(f"{name}-after")
    shop.until("end", name)
