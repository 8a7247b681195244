"""The WSGI door in this process, between two validators of PEP 3333: what applications and servers may do to it."""

from __future__ import annotations

import io
import sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from retrysafe import ConfigurationError, Policy, operation
from retrysafe.errors import IncompleteResponse, StoreUnavailable
from retrysafe.operation import current_operation
from retrysafe.protocol.transitions import CompleteIfHeld
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware
from tests.doors.connections import Answer
from tests.drive.harness import TamperedStore


class Server:
    """As strict as PEP 3333 lets a server be."""

    def __init__(self):
        self.started: tuple[str, list[tuple[str, str]]] = ("0", [])
        self.sent = b""
        self.error = None

    def start_response(self, status, headers, exc_info=None):
        assert self.started[0] == "0", "start_response came twice"
        assert not any(letter in value for _, value in headers for letter in "\r\n")
        self.started = (status, headers)
        return self.write

    def write(self, piece):
        assert self.started[0] != "0"
        self.sent += piece

    def serve(self, application, environ):
        """One request to its end; its answer."""
        try:
            pieces = application(environ, self.start_response)
            try:
                for piece in pieces:
                    self.write(piece)
            finally:
                getattr(pieces, "close", list)()
        except BaseException as error:  # noqa: BLE001 - a server catches whatever an application raises
            self.error = error
        status, headers = self.started
        fields = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers)
        return Answer(int(status.split(" ")[0]), fields, self.sent, self.error is None)


def environ_of(target="POST /orders", *, key="k-1", account="alice", content=b'{"item": 7}', **more):
    """A request."""
    method, _, uri = target.partition(" ")
    path, _, query = uri.partition("?")
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content), "wsgi.errors": sys.stderr,
    }  # fmt: skip
    environ |= {"HTTP_IDEMPOTENCY_KEY": key} if key is not None else {}
    environ |= {"HTTP_X_ACCOUNT": account} if account is not None else {}
    environ |= more
    setup_testing_defaults(environ)
    return environ


def ask(application, target="POST /orders", **request):
    """Serve one request; its answer."""
    return Server().serve(application, environ_of(target, **request))


def protected(application, store=None, **settings):
    """The door around an application, validated on both sides."""
    door = IdempotencyMiddleware(
        validator(application), store=store or MemoryStore(), scope="header:X-Account", **settings
    )
    return validator(door)


HEADERS = [("Content-Type", "text/plain"), ("X-Shop", "yes")]


class Shop:
    """An application that counts how often it ran, and is given how to answer."""

    def __init__(self, answer):
        self.ran = self.closed = 0
        self._answer = answer

    def __call__(self, environ, start_response):
        self.ran += 1
        environ["wsgi.input"].read(100)
        return _Closing(self._answer(start_response), self)


class _Closing:
    def __init__(self, pieces, shop):
        self._pieces = pieces
        self._shop = shop

    def __iter__(self):
        return iter(self._pieces)

    def close(self):
        self._shop.closed += 1


def whole(start_response):
    """One piece."""
    start_response("201 Made", HEADERS)
    return [b"order 7"]


def written(start_response):
    """By the callable that `start_response` gives."""
    write = start_response("201 Made", HEADERS)
    write(b"order")
    write(b"")
    write(b" ")
    return [b"7"]


def late(start_response):
    """An iterable that starts the response with its first piece."""
    start_response("201 Made", HEADERS)
    yield b"order "
    yield b""
    yield b"7"


def again(start_response):
    """A response that was begun, and is begun anew because of an error before anything was sent."""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "3")])
    try:
        _raise_before(start_response)
    except ZeroDivisionError:
        start_response("201 Made", HEADERS, sys.exc_info())
    return [b"order", b" 7"]


def sized(start_response):
    """Pieces that say their length."""
    start_response("201 Made", [*HEADERS, ("Content-Length", "7")])
    return iter([b"order", b" 7"])


def again_after_all_of_it(start_response):
    """The same, when all of the first response was written and waited for its record."""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "3")])(b"old")
    try:
        _raise_before(start_response)
    except ZeroDivisionError:
        start_response("201 Made", HEADERS, sys.exc_info())
    return [b"order", b" 7"]


@pytest.mark.parametrize("answer", [whole, written, late, again, again_after_all_of_it, sized])
def test_every_way_to_answer(answer):
    """One effect; the replay has the same status, fields and content; the application's iterable is closed once."""
    shop = Shop(answer)
    door = protected(shop)
    first, second = ask(door), ask(door)
    assert (first.status, first.body, first.whole) == (201, b"order 7", True)
    assert (second.status, second.body, second.replayed) == (201, b"order 7", True)
    assert (first.values("x-shop"), second.values("x-shop")) == (["yes"], ["yes"])
    assert (shop.ran, shop.closed) == (1, 1)


@pytest.mark.parametrize(("status", "length"), [("201 Made", "7"), ("204 No Content", "0")])
def test_more_than_the_length_says(status, length):
    """No server sends more than that, so a client would have a whole answer: it waits for the record like any other."""
    sent_before = []

    def too_much(start_response):
        start_response(status, [("Content-Length", length)])
        return iter([b"order 7 and more", b" and more"])

    store = TamperedStore(MemoryStore(), before=lambda _: sent_before.append(server.sent))
    door = IdempotencyMiddleware(Shop(too_much), store=store, scope="header:X-Account")
    server = Server()
    server.serve(door, environ_of())
    assert sent_before[-1] == b""
    assert "CompleteIfHeld" in store.done
    assert ask(door).body == b"order 7"[: int(length)]


@pytest.mark.parametrize("failing", ["start_response", "store"])
def test_what_the_server_never_gets_is_closed(failing):
    """It does not take the fields, or the worker is stopped before the record: the application lets its response go."""

    def stop(transition):
        if isinstance(transition, CompleteIfHeld) and failing == "store":
            raise SystemExit

    def refuse(*_):
        raise ValueError

    def held(start_response):
        start_response("201 Made", [("Content-Length", "7")])
        return [b"order 7"]

    shop = Shop(held)
    door = IdempotencyMiddleware(shop, store=TamperedStore(MemoryStore(), before=stop), scope="header:X-Account")
    with pytest.raises((ValueError, SystemExit)):
        door(environ_of(), refuse if failing == "start_response" else Server().start_response)
    assert (shop.ran, shop.closed, current_operation()) == (1, 1, None)


def test_the_reason_of_a_status_is_kept_for_the_first_answer():
    """It is the application's; a replay has the usual one."""
    door = protected(Shop(whole))
    server = Server()
    server.serve(door, environ_of())
    assert server.started[0] == "201 Made"
    again = Server()
    again.serve(door, environ_of())
    assert again.started[0] == "201 Created"


def _raise_before(_):
    raise ZeroDivisionError


def _raise_between(start_response):
    start_response("200 OK", HEADERS)
    yield b"order"
    raise ZeroDivisionError


def _exit(_):
    raise SystemExit(1)


def _no_start(_):
    return []


@pytest.mark.parametrize(("answer", "error", "status", "code", "retry"), [
    (_raise_before, ZeroDivisionError, 500, "handler-failed", (500, "handler-failed")),
    (_raise_between, ZeroDivisionError, 200, None, (409, "outcome-unknown")),
    (_exit, SystemExit, 409, "outcome-unknown", (409, "outcome-unknown")),
])  # fmt: skip
def test_an_application_that_fails(answer, error, status, code, retry):
    """The client gets what can be said, the server what was raised; a retry never runs it again."""
    shop = Shop(answer)
    door = protected(shop)
    server = Server()
    first = server.serve(door, environ_of())
    assert (first.status, first.code, type(server.error)) == (status, code, error)
    second = ask(door)
    assert ((second.status, second.code), shop.ran) == (retry, 1)


def _content_first(_):
    return [b"order"]


def _twice(start_response):
    start_response("200 OK", HEADERS)
    start_response("200 OK", HEADERS)
    return [b""]


@pytest.mark.parametrize("answer", [_no_start, _content_first, _twice])
def test_an_application_that_breaks_the_rules(answer):
    """A 500 problem for the client, and for the server what was wrong; it is an outcome like any other."""
    shop = Shop(answer)
    door = IdempotencyMiddleware(shop, store=MemoryStore(), scope="header:X-Account")
    server = Server()
    assert server.serve(door, environ_of()).code == "handler-failed"
    assert isinstance(server.error, IncompleteResponse)
    assert (ask(door).code, shop.ran) == ("handler-failed", 1)


def test_a_server_that_lost_its_client():
    """Writing fails; the handler goes on, and a retry gets the whole answer."""

    def pieces(start_response):
        start_response("200 OK", HEADERS)
        yield from (b"a", b"b", b"c")

    class Gone(Server):
        def write(self, piece):
            raise BrokenPipeError

    shop = Shop(pieces)
    door = protected(shop)
    Gone().serve(door, environ_of())
    retry = ask(door)
    assert (retry.body, retry.replayed, shop.ran) == (b"abc", True, 1)


class Forgetful(MemoryStore):
    """A store that is away when the outcome is to be recorded."""

    def perform(self, transition):
        if isinstance(transition, CompleteIfHeld):
            raise StoreUnavailable
        return super().perform(transition)


def test_an_answer_that_could_not_be_recorded(monkeypatch):
    """The client gets it, marked."""
    monkeypatch.setattr("retrysafe.drive.sync.SETTLE_S", 0.01)

    def application(_, start_response):
        return whole(start_response)

    policy = Policy(lease="50ms")
    door = IdempotencyMiddleware(application, store=Forgetful(), scope="header:X-Account", policy=policy)
    answer = ask(door)
    assert (answer.status, answer.body, answer.values("idempotency-status")) == (201, b"order 7", ["unrecorded"])


# --- what the handler is given --------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_the_handler_reads_the_content_again(size):
    """Whole, in any manner that a file can be read in; from memory or from a file."""
    content = bytes(number % 251 for number in range(size))
    seen = []

    def handler(environ, start_response):
        source = environ["wsgi.input"]
        seen.append(source.read(1) + source.readline() + b"".join(source) + source.read())
        assert environ["CONTENT_LENGTH"] == str(size)
        start_response("200 OK", HEADERS)
        return [b"ok"]

    ask(IdempotencyMiddleware(handler, store=MemoryStore(), scope="anonymous"), key="0" * 32, content=content)
    assert seen == [content]


def test_no_length_and_no_end():
    """Then nothing may be read of the input: it might never return."""

    class Endless:
        def read(self, _=-1):
            raise AssertionError("it was read")

    environ = environ_of(content=b"")
    environ |= {"CONTENT_LENGTH": "", "wsgi.input": Endless()}
    door = IdempotencyMiddleware(lambda environ, start: whole(start), store=MemoryStore(), scope="header:X-Account")
    assert Server().serve(door, environ).status == 201


class Cut:
    """An input whose client is gone."""

    def read(self, _=-1):
        raise ConnectionResetError


@pytest.mark.parametrize("source", [io.BytesIO(b"short"), Cut()])
def test_an_upload_that_breaks_off(source):
    """Nothing runs and nothing is stored."""
    shop = Shop(whole)
    door = IdempotencyMiddleware(shop, store=MemoryStore(), scope="header:X-Account")
    Server().serve(door, environ_of() | {"wsgi.input": source})
    assert shop.ran == 0
    assert ask(door, content=b"another").status == 201


def test_the_operation_is_current_in_the_handler_alone():
    """A thread serves one request after the other."""
    seen = []

    def handler(environ, start_response):
        now = current_operation()
        seen.append(None if now is None else operation().key)
        start_response("200 OK", HEADERS)
        return [b""]

    door = protected(handler)
    ask(door)
    assert current_operation() is None
    ask(door, key=None)
    ask(door, "GET /orders")
    assert seen == ["k-1", None, None]


def test_a_door_within_a_door():
    """The outer one protects; two over one store would refuse each other."""
    shop = Shop(whole)
    store = MemoryStore()
    door = protected(protected(shop, store), store)
    assert [ask(door).replayed, ask(door).replayed] == [False, True]


# --- whose key it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "more", "status"), [
    ("header:X-Account", {}, 201), ("header:X-Account", {"HTTP_X_ACCOUNT": "alice,bob"}, 401),
    ("header:X-Account", {"HTTP_X_ACCOUNT": ""}, 401), ("user", {}, 401), ("user", {"REMOTE_USER": "alice"}, 201),
    ("authorization", {}, 401), ("authorization", {"HTTP_AUTHORIZATION": 'Digest a="1", b="2"'}, 201),
    ("anonymous", {}, 400), ("anonymous", {"HTTP_IDEMPOTENCY_KEY": "0" * 32}, 201),
    (lambda environ: environ["HTTP_X_ACCOUNT"], {}, 201), (lambda _: None, {}, 401),
])  # fmt: skip
def test_scopes(scope, more, status):
    """Who cannot be told from another is refused."""
    shop = Shop(whole)
    door = IdempotencyMiddleware(shop, store=MemoryStore(), scope=scope)
    assert Server().serve(door, environ_of() | more).status == status


def test_a_mounted_application():
    """The table knows nothing of where it is mounted; the fingerprint does."""
    shop = Shop(whole)
    door = IdempotencyMiddleware(
        shop, store=MemoryStore(), scope="header:X-Account", routes={"POST /orders": Policy(required=True)}
    )
    assert ask(door, key=None, SCRIPT_NAME="/shop").code == "key-missing"
    assert ask(door, SCRIPT_NAME="/shop").status == 201
    assert ask(door, SCRIPT_NAME="/store").code == "key-reused"


def test_settings_that_cannot_be_used():
    """All faults at once."""
    with pytest.raises(ConfigurationError) as caught:
        IdempotencyMiddleware(Shop(whole), store="nowhere://", scope="nobody", routes={"GET /": None})
    assert len(caught.value.faults) == 3
