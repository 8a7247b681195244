"""One protected request at the WSGI door: what the driver needs of it, and what goes out of what its handler says.

A blocking handler is run up to the last piece of its response. Pieces before that go out as they come, through the
server's `write()`; the last one is returned to the server once the outcome is durable. After it the server takes
whatever else the handler still does while it closes its response: that is outside the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, assert_never

from retrysafe.drive.sync import Driver
from retrysafe.errors import CallerError, IncompleteResponse
from retrysafe.model import Head, Headers, Request, Response
from retrysafe.operation.handle import Begin, Operation, begin_without
from retrysafe.protocol import answers, effects
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Execute, Flow, Outcome, Unread
from retrysafe.protocol.flow import Terms
from retrysafe.server.capture import Capture, Message
from retrysafe.server.environ import Environ, Resolver, head_of, read_request, with_content
from retrysafe.server.routes import Route

Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Authorizer = Callable[[Environ], bool]

# In the environ of a handler whose request a door protects.
PROTECTED = "retrysafe.protected"


class Exchange:
    """The state of one request; a new object for each.

    Args:
        application: the handler.
        environ: the server's.
        start_response: the server's.
        route: the entry of the routes table that matched.
        terms: what holds for this request.
        begin: makes its operation.
        resolver: finds the account.
        authorizer: asked before a replay; None allows every replay.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of here
        self,
        application: Application,
        environ: Environ,
        start_response: StartResponse,
        route: Route,
        terms: Terms,
        begin: Begin,
        resolver: Resolver,
        authorizer: Authorizer | None,
    ) -> None:
        self.route = route.entry
        self.head: Head = head_of(environ)
        self._application = application
        self._environ = environ
        self._start_response = start_response
        self._route = route
        self._terms = terms
        self._begin = begin
        self._resolver = resolver
        self._authorizer = authorizer
        self._handling: _Handling | None = None
        self.ending = ""

    def scope(self) -> str | None:
        """The account that the request belongs to; empty is none."""
        account = self._resolver(self._environ)
        if account is not None and not isinstance(account, str):
            raise CallerError(f"scope= gave a {type(account).__name__}; it must give a string, or None")
        return account or None

    def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content."""
        return read_request(self._environ, self.head, body_bytes_max)

    def authorize(self) -> bool:
        """May the caller see the stored answer now?"""
        return self._authorizer is None or bool(self._authorizer(self._environ))

    def execute(self, effect: Execute) -> Outcome:
        """Run the handler up to its last piece of response."""
        capture = Capture(self._route.policy.response_bytes_max, self._route.withheld)
        operation = self._begin(effect, self._terms)
        if self._route.marked:
            operation.await_entry()
        self._handling = _Handling(self._start_response, operation, capture)
        return self._handling.run(self._application, with_content(self._environ, effect.request.body, PROTECTED))

    def drive(self, driver: Driver, work: Flow[Answer]) -> Iterable[bytes]:
        """Drive the request to its end; what to return to the server."""
        try:
            return self.answer(driver.run(work, self))
        except BaseException:  # the server's own, say, of a field that it does not send: it gets nothing to close
            if self._handling is not None:
                self._handling.close()
            raise

    def answer(self, answer: Answer) -> Iterable[bytes]:
        """What to return to the server."""
        self.ending = answer.ending
        if self._handling is not None:
            return self._handling.answer(answer)
        match answer:
            case answers.Bypass():
                begin_without()
                return self._application(self._environ, self._start_response)
            case answers.Respond(response):
                return respond(self._start_response, response)
            case answers.Vanish():  # nobody is there; the server has to hear something
                return respond(self._start_response, Response(400, ((b"content-length", b"0"),)))
            case _:
                raise AssertionError(f"{type(answer).__name__} is no answer before a handler ran")


class _Handling:
    """One execution of the handler."""

    def __init__(self, start_response: StartResponse, operation: Operation, capture: Capture) -> None:
        self._server_start = start_response
        self._server_write: Write | None = None
        self._operation = operation
        self._capture = capture
        self._reason = ""
        self._is_complete = self._is_muted = self._has_started = False
        self._iterable: Iterable[bytes] = ()
        self._pieces: Iterator[bytes] = iter(())
        self._failure: BaseException | None = None

    # --- the handler ------------------------------------------------------------------------------

    def run(self, application: Application, environ: Environ) -> Outcome:
        """The handler up to its last piece; what it raised is raised again when its answer has been sent."""
        try:
            self._iterable = application(environ, self._start)
            self._pieces = iter(self._iterable)
            # A list says which of its pieces is the last; of other iterables nobody knows before they end.
            left = len(self._iterable) if isinstance(self._iterable, (list, tuple)) else None
            while not self._is_complete:
                piece = next(self._pieces, None)
                left = None if left is None else left - 1
                self._take(piece or b"", more=piece is not None and left != 0)
            ended: effects.Ended = self._capture.answered(self._operation.fate)
        except Exception as failure:  # noqa: BLE001 - the server is to hear of it, after the client
            self._failure = failure
            ended = effects.Raised(self._operation.fate)
        except BaseException as failure:  # noqa: BLE001 - as above: the worker is being stopped
            self._failure = failure
            ended = effects.Cancelled(self._operation.fate)
        if self._failure is not None and self._capture.sent:
            ended = effects.Broken()
        return self._operation.outcome(ended)

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: tuple[Any, BaseException, Any] | None = None
    ) -> Write:
        """The handler's `start_response`."""
        if exc_info is not None and self._capture.sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._has_started and exc_info is None:
            raise IncompleteResponse("the application called start_response twice without exc_info")
        code, _, self._reason = status.partition(" ")
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._capture.start({"type": "http.response.start", "status": int(code), "headers": fields})
        self._has_started = True
        self._is_complete = False  # what completed the response before was not sent: it begins anew
        return self._write

    def _write(self, piece: bytes) -> None:
        """The callable that `start_response` gives; what completes the response waits until the handler returns."""
        if piece:
            self._take(piece, more=True)

    def _take(self, piece: bytes, *, more: bool) -> None:
        if not self._has_started:
            if not more:
                raise IncompleteResponse
            if not piece:
                return  # an iterable may begin with nothing before it calls start_response
            raise IncompleteResponse("the application sent content before it called start_response")
        if piece or not more:
            completes = self._capture.piece({"type": "http.response.body", "body": piece, "more_body": more})
            self._is_complete = self._is_complete or completes
        # What the handler has recorded itself is sent in place of what it says afterwards.
        if not self._is_complete and piece and self._operation.recorded is None:
            self._send(self._capture.release())

    # --- what goes out ----------------------------------------------------------------------------

    def _send(self, messages: Iterable[Message]) -> None:
        """Let these go; the handler does not learn that the client left."""
        for message in messages:
            if message["type"] == "http.response.start":
                self._server_write = _start_server(self._server_start, message, self._reason)
            elif message["body"] and self._server_write is not None and not self._is_muted:
                try:
                    self._server_write(message["body"])
                except Exception:  # noqa: BLE001 - each server has an error of its own for a client that is gone
                    self._is_muted = True

    def answer(self, answer: Answer) -> Iterable[bytes]:
        """What to return to the server; it ends with closing the handler's response."""
        match answer:
            case answers.Deliver(added=added):
                if not self._capture.sent and not self._failure:  # all of it: a server may tell its length by that
                    return _Whole(self._held(added), self._pieces, self.close)
                return self._closing(self._held(added), self._pieces)
            case answers.Respond(response) if not self._capture.sent:
                return self._closing(respond(self._server_start, response))
            case answers.Respond() | answers.BreakOff():
                self._failure = self._failure or IncompleteResponse(
                    "the response was broken off: the outcome of the operation is unknown"
                )
                return self._closing(())
            case answers.Bypass() | answers.Vanish():
                raise AssertionError(f"{type(answer).__name__} is no answer once the handler runs")
            case _:
                assert_never(answer)

    def _held(self, added: Headers) -> list[bytes]:
        """The pieces that waited; the start among them goes to the server, with more fields."""
        pieces = []
        for message in self._capture.release():
            if message["type"] == "http.response.body":
                pieces.append(message["body"])
            else:
                whole = {**message, "headers": [*message["headers"], *added]}
                self._server_write = _start_server(self._server_start, whole, self._reason)
        return pieces

    def _closing(self, pieces: Iterable[bytes], rest: Iterable[bytes] = ()) -> Iterable[bytes]:
        return _Closing(pieces, rest, self.close, self._failure)

    def close(self) -> None:
        """As the server does when the response is sent, or the client is gone."""
        begin_without()
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()


class _Closing:
    """The last of a response, for the server; then what the handler raised, and the end of its own iterable."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        rest: Iterable[bytes],
        close: Callable[[], None],
        failure: BaseException | None = None,
    ) -> None:
        self._pieces = pieces
        self._rest = rest
        self._failure = failure
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        yield from self._rest


class _Whole(_Closing):
    """A response of which nothing was sent yet, in one piece: servers take its length for that of the content."""

    def __init__(self, pieces: Iterable[bytes], rest: Iterable[bytes], close: Callable[[], None]) -> None:
        super().__init__((b"".join(pieces),), rest, close)

    def __len__(self) -> int:
        return 1


def respond(start_response: StartResponse, response: Response) -> list[bytes]:
    """A whole response, as a server takes it."""
    _start_server(start_response, {"status": response.status, "headers": response.headers}, "")
    return [response.body]


def _start_server(start_response: StartResponse, message: Message, reason: str) -> Write:
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
    return start_response(f"{message['status']} {reason or _phrase(message['status'])}", fields)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
