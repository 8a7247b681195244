"""The doors under real servers, over real sockets: every scenario on each server, ASGI and WSGI alike."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.doors.servers import (
    BLOCKING_SERVERS,
    FRAMEWORKS,
    KEEP_NO_CONNECTIONS,
    SERVERS,
    connect,
    request_bytes,
    serving,
)


@pytest.fixture(scope="module", params=[*SERVERS, *FRAMEWORKS, *BLOCKING_SERVERS])
def shop(request, tmp_path_factory):
    """The application under one of the servers, which logs no error that was not told to happen."""
    with serving(request.param, tmp_path_factory.mktemp("shop")) as shop:
        yield shop
        logged = shop.process.log.read_text()
    assert logged.count("Traceback") == logged.count("\nZeroDivisionError: ")
    assert "never retrieved" not in logged


@pytest.fixture
def kept_connections(shop):
    """Whether the server serves several requests on one connection."""
    return shop.process.name not in KEEP_NO_CONNECTIONS


@pytest.fixture
def name():
    """A name for what this test does, in the ledger and at the gates; also its key."""
    return uuid.uuid4().hex


NEVER_REPLAYED = [
    ("set-cookie", "session=1"), ("retry-after", "7"), ("x-request-id", "r-1"), ("x-ratelimit-remaining", "3"),
    ("expires", "0"), ("idempotency-status", "forged"), ("server-timing", "db;dur=5"),
]  # fmt: skip
REPLAYED = [
    ("location", "/orders/7"), ("etag", '"v1"'), ("link", "</a>; rel=next"), ("link", "</b>; rel=prev"),
    ("content-type", "application/vnd.shop+json"), ("x-shop", "yes"), ("vary", "accept"),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 201, 202, 303, 400, 404, 409, 500, 503])
def test_a_replay_is_the_first_answer(shop, name, status):
    """Same status, same bytes, every field but those of one exchange; the marker is on the replay alone."""
    wish = {"name": name, "status": status, "headers": [*REPLAYED, *NEVER_REPLAYED, ("cache-control", "max-age=9")]}
    first, second = (shop.ask(key=name, **wish) for _ in range(2))
    assert (first.status, first.body, first.whole) == (status, f"order {name}".encode(), True)
    assert (second.status, second.body, second.whole) == (first.status, first.body, True)
    assert first.values("idempotent-replayed") == []
    assert second.values("idempotent-replayed") == ["true"]
    assert (first.values("cache-control"), second.values("cache-control")) == (["max-age=9"], ["no-store"])
    for field, _ in REPLAYED:
        wanted = [value for kept, value in REPLAYED if kept == field]
        assert first.values(field) == second.values(field) == wanted
    for field, value in NEVER_REPLAYED[:-2]:
        assert (first.values(field), second.values(field)) == ([value], [])
    assert (first.values("idempotency-status"), second.values("idempotency-status")) == ([], [])
    assert len(second.values("date")) == len(first.values("date")) <= 1
    assert shop.ledger("effect", name) == 1


def test_an_answer_without_content(shop, name):
    """204 has no content and no length, the first time and again."""
    first, second = (shop.ask(key=name, name=name, status=204, pieces=[""]) for _ in range(2))
    assert (first.status, first.body, second.status, second.body) == (204, b"", 204, b"")
    assert (second.replayed, second.values("content-length")) == (True, [])


@pytest.mark.parametrize("second_key", ["{}", '"{}"', '"{}";v=1', ' "{}" '])
def test_both_spellings_are_one_key(shop, name, second_key):
    """What is sent bare once and quoted once is the same operation."""
    shop.ask(key=name, name=name)
    assert shop.ask(key=second_key.format(name), name=name).replayed
    assert shop.ledger("effect", name) == 1


@pytest.mark.parametrize("keys", [
    ["a", "a"], ["a", "b"], [""], ["a,b"], ['"a", "b"'], ["k" * 300], ['"' + "k" * 300 + '"'], ["\xe9"], ['"\xe9"'],
    ['"a'], ["a b"], ['"a b"'], ["a\x01"], ['"a\x7f"'], ["?1"], ["(a b)"],
])  # fmt: skip
def test_a_malformed_key_runs_nothing(shop, name, keys):
    """400 of the door's, or the server's own where it does not let the field through; nothing is left behind."""
    refused = shop.ask(fields=[("Idempotency-Key", key) for key in keys], name=name)
    assert refused.status == 400
    assert refused.code in ("key-invalid", None)
    assert shop.ledger("begun", name) == 0


def test_a_missing_key(shop, name):
    """400 where a key is required, and the plain application where it is not."""
    refused = shop.ask("POST /required/told", name=name)
    assert (refused.status, refused.code, shop.ledger("begun", name)) == (400, "key-missing", 0)
    for _ in range(2):
        assert not shop.ask(name=name).replayed
    assert shop.ledger("effect", name) == 2


def test_a_missing_account(shop, name):
    """401, and nothing runs."""
    refused = shop.ask(key=name, account=None, name=name)
    assert (refused.status, refused.code, shop.ledger("begun", name)) == (401, "scope-missing", 0)


def test_another_account(shop, name):
    """The same key of another account is another operation."""
    assert not shop.ask(key=name, name=name).replayed
    assert not shop.ask(key=name, name=name, account="bob").replayed
    assert shop.ledger("effect", name) == 2


def test_another_request_under_the_same_key(shop, name):
    """422, while the first runs and after it; another path, query or content is another request."""
    shop.shut(f"{name}-effect")
    with connect(shop.port) as first:
        first.send(request_bytes(key=name, name=name))
        shop.until("effect", name)
        assert shop.ask(key=name, name=name, status=202).code == "key-reused"
        shop.open(f"{name}-effect")
        assert first.answer().status == 201
    for target, status in (("POST /told", 202), ("POST /told?x=1", 201), ("POST /a/told", 201), ("PATCH /told", 201)):
        refused = shop.ask(target, key=name, name=name, **({"status": status} if status != 201 else {}))
        assert (refused.status, refused.code) == (422, "key-reused")
    assert shop.ledger("effect", name) == 1


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


# --- clients that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("goodbye", ["reset", "close"])
@pytest.mark.parametrize("target", ["POST /told", "POST /streamed?name={}"])
def test_a_client_that_leaves_in_the_middle_of_the_handler(shop, name, target, goodbye):
    """The handler is not cancelled and not disturbed; a retry replays its whole answer."""
    target = target.format(name)
    held = f"{name}-effect" if target.endswith("told") else f"{name}-0"
    shop.shut(held)
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name, name=name))
        shop.until("effect", name)
        first.reset() if goodbye == "reset" else first.socket.close()
    assert shop.ask(target, key=name, name=name).code == "in-progress"
    shop.open(held)
    retry = shop.settled(target, key=name, name=name)
    wanted = f"order {name}".encode() if target.endswith("told") else b"0,1,2,3,4,"
    assert (retry.status, retry.body, retry.replayed) == (201, wanted, True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


@pytest.mark.parametrize("target", ["POST /told", "POST /streamed?name={}"])
def test_a_client_that_leaves_in_the_middle_of_the_answer(shop, name, target):
    """The rest is made and recorded all the same."""
    target = target.format(name)
    shop.shut(f"{name}-1")
    with connect(shop.port) as first:
        first.send(request_bytes(target, key=name, name=name, pieces=["0,", "1,", "2,", "3,", "4,"]))
        first.received(b"0,")
        first.reset()
    shop.open(f"{name}-1")
    retry = shop.settled(target, key=name, name=name, pieces=["0,", "1,", "2,", "3,", "4,"])
    assert (retry.status, retry.body, retry.replayed) == (201, b"0,1,2,3,4,", True)
    assert (shop.ledger("effect", name), shop.ledger("cancelled", name)) == (1, 0)


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


@pytest.mark.parametrize("chunked", [False, True])
def test_a_content_that_is_too_large(shop, name, chunked):
    """413, and nothing is stored: a smaller request may have the key."""
    refused = shop.ask("POST /small/told", key=name, name=name, padding="x" * 300, chunked=chunked)
    assert (refused.status, refused.code, shop.ledger("begun", name)) == (413, "body-too-large", 0)
    assert shop.ask("POST /small/told", key=name, name=name, chunked=chunked).status == 201


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


def test_no_content(shop, name):
    """A request without content is one too."""
    target = f"POST /threaded?name={name}"
    assert (shop.ask(target, key=name, content=b"").body, shop.ask(target, key=name, content=b"").replayed) == (
        name.encode(),
        True,
    )


# --- answers --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("sized", [False, True])
def test_the_last_byte_waits_for_the_record(shop, name, sized):
    """While the record is being written the answer is not whole, and a duplicate is told to wait."""
    end = b"two" if sized else b"0\r\n\r\n"
    shop.shut("before-record")
    try:
        with connect(shop.port) as first:
            first.send(request_bytes(key=name, name=name, pieces=["one", "two"], sized=sized))
            seen = first.received(b"one") + first.so_far()
            assert shop.ask(key=name, name=name, pieces=["one", "two"], sized=sized).code == "in-progress"
            assert end not in seen + first.so_far()
            shop.open("before-record")
            first.received(end)
    finally:
        (shop.place / "before-record").unlink(missing_ok=True)
    assert shop.ask(key=name, name=name, pieces=["one", "two"], sized=sized).replayed


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


def test_an_exception(shop, name):
    """A 500 problem, recorded and replayed; what was raised is in the server's log and nowhere else."""
    first, second = (shop.ask(key=name, name=name, **{"raise": "before"}) for _ in range(2))
    assert (first.status, first.code, second.body, second.replayed) == (500, "handler-failed", first.body, True)
    assert b"ZeroDivisionError" not in first.body
    shop.until_logged(f"ZeroDivisionError: before {name}")
    assert shop.ledger("effect", name) == 1


@pytest.mark.parametrize("sized", [False, True])
def test_an_exception_in_the_middle_of_the_answer(shop, name, sized):
    """The connection breaks, so that nobody takes the answer for whole; the outcome is unknown."""
    wish = {"name": name, "raise": "between", "pieces": ["one", "two"], "sized": sized}
    broken = shop.ask(key=name, **wish)
    assert (broken.status, broken.body, broken.whole) == (201, b"one", False)
    shop.until_logged(f"ZeroDivisionError: between {name}")
    retry = shop.ask(key=name, **wish)
    assert (retry.status, retry.code, shop.ledger("effect", name)) == (409, "outcome-unknown", 1)


def test_an_answer_that_is_too_large_to_keep(shop, name):
    """The first client gets all of it; a retry learns that it was done, and where."""
    wish = {"name": name, "pieces": ["ab", "cd"], "times": 400_000, "headers": [("location", "/reports/1")]}
    first, second = (shop.ask(key=name, **wish) for _ in range(2))
    assert (first.status, first.whole, first.body == b"ab" * 400_000 + b"cd" * 400_000) == (201, True, True)
    problem = json.loads(second.body)
    assert (second.status, second.code) == (409, "replay-unavailable")
    assert (problem["original_status"], problem["location"]) == (201, "/reports/1")
    assert shop.ledger("effect", name) == 1


@pytest.mark.parametrize("status", [401, 403, 405, 407, 408, 415, 421, 423, 425, 429])
def test_an_answer_that_says_not_yet_is_released(shop, name, status):
    """It runs again, and only for the same request."""
    for attempt in (1, 2):
        answer = shop.ask(key=name, name=name, status=status)
        assert (answer.status, answer.replayed, shop.ledger("effect", name)) == (status, False, attempt)
    assert shop.ask(key=name, name=name).code == "key-reused"


def test_the_redirect_of_a_router_is_no_outcome(shop, name):
    """The client follows it under the same key, and is served."""
    redirect = shop.ask(f"POST /slash?name={name}", key=name)
    assert (redirect.status, redirect.values("location")[0].endswith(f"/slash/?name={name}")) == (307, True)
    assert shop.ask(f"POST /slash/?name={name}", key=name).body == name.encode()
    assert shop.ask(f"POST /slash/?name={name}", key=name).replayed


def test_a_file_is_replayed(shop, name):
    """Where the server would send a file itself, the answer still comes by way of the door."""
    first, second = (shop.ask("POST /file", key=name) for _ in range(2))
    assert b"def told(" in first.body
    assert (second.body, second.replayed) == (first.body, True)


# --- the operation --------------------------------------------------------------------------------


def test_the_operation_of_a_handler(shop, name):
    """Released: a second attempt with the same child key. Not run: forgotten. Unknown: never again."""
    wish = {"name": name, "operation": True, "say": "no_effect"}
    first, second = (json.loads(shop.ask(key=name, **wish).body) for _ in range(2))
    assert (first["attempt"], second["attempt"], first["child"]) == (1, 2, second["child"])
    assert shop.ask(key=f"{name}-2", name=name, say="not_run").status == 201
    assert shop.ask(key=f"{name}-2", name=name, say="outcome_unknown").status == 201
    assert shop.ask(key=f"{name}-2", name=name, say="outcome_unknown").code == "outcome-unknown"


def test_a_blocking_handler_knows_its_operation(shop, name):
    """It runs in a thread of the framework's, and finds its key there."""
    assert shop.ask(f"POST /threaded?name={name}", key=f'"{name}"').body == name.encode()


def test_a_replay_may_be_refused(shop, name):
    """Who lost the permission gets 403."""
    shop.ask(key=name, name=name)
    assert shop.ask(key=name, name=name, fields=[("X-Revoked", "yes")]).code == "replay-forbidden"
    assert shop.ask(key=name, name=name).replayed


# --- what passes ----------------------------------------------------------------------------------


def test_a_stream_of_events_passes(shop, name):
    """A GET with a key: each event arrives when it is made, and nothing is recorded."""
    for event in range(3):
        shop.shut(f"{name}-{event}")
    with connect(shop.port) as client:
        client.send(request_bytes(f"GET /ticks?name={name}", key=name, content=b""))
        for event in range(3):
            shop.open(f"{name}-{event}")
            client.received(b"data: %d" % event)
    assert shop.ask(f"POST /threaded?name={name}", key=name).status == 201


def test_a_route_that_is_taken_out(shop, name):
    """Its requests run each time."""
    for _ in range(2):
        assert not shop.ask("POST /open/told", key=name, name=name).replayed
    assert shop.ledger("effect", name) == 2


def test_a_method_that_is_opted_in(shop, name):
    """PUT is protected where the table says so, and nowhere else."""
    assert [shop.ask(f"PUT /put/{name}/told", key=name, name=name).replayed for _ in range(2)] == [False, True]
    assert [shop.ask(f"PUT /other/{name}/told", key=name, name=name).replayed for _ in range(2)] == [False, False]
    assert shop.ledger("effect", name) == 3


def test_one_connection_for_many_requests(shop, name, kept_connections):
    """First answer, replay, refusal and a request without a key, on one connection if the server keeps it."""
    asked = [
        (request_bytes(key=name, name=name, sized=True), 201),
        (request_bytes(key=name, name=name, sized=True), 201),
        (request_bytes(key=name, name=name, sized=True, status=202), 422),
        (request_bytes(name=name, sized=True), 201),
        (request_bytes(key='"', name=name, sized=True), 400),
        (request_bytes(key=name, name=name, sized=True), 201),
    ]
    for on_one in [asked] if kept_connections else [[request] for request in asked]:
        with connect(shop.port) as client:
            for request, status in on_one:
                client.send(request)
                assert client.answer().status == status
    assert shop.ledger("effect", name) == 2


def test_requests_in_one_go(shop, name, kept_connections):
    """Sent without waiting for answers, on one connection: answered in order, or the first alone; one effect."""
    answers = 3 if kept_connections else 1
    with connect(shop.port) as client:
        client.send(request_bytes(key=name, name=name, sized=True) * 3)
        seen = client.received(f"order {name}".encode())
        while seen.count(f"order {name}".encode()) < answers:
            seen += client.received(f"order {name}".encode())
    assert (seen.count(b" 201 "), seen.lower().count(b"idempotent-replayed")) == (answers, answers - 1)
    assert shop.ledger("effect", name) == 1


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
        client.send(large if shop.process.name == "waitress" else large.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert client.answer().code == "body-too-large"
    assert shop.ledger("effect", name) == 1
