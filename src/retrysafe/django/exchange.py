"""One protected request in Django's blocking mode.

The view runs on the server's thread. A response whose content is there is recorded before it is returned. One that is
made as it is sent goes out as it is made, but for its end: the piece that reaches `Content-Length`, or the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrysafe.django import messages
from retrysafe.django.protected import GetResponse, Protected
from retrysafe.django.scope import account
from retrysafe.drive.sync import Held
from retrysafe.errors import IncompleteResponse
from retrysafe.model import Request
from retrysafe.operation.handle import Operation, begin_without
from retrysafe.protocol import answers, effects
from retrysafe.protocol.effects import Ended, Execute, Outcome, Unread


class Exchange(Protected):
    """The state of one request; a new object for each."""

    def scope(self) -> str | None:
        """The account that the request belongs to."""
        return account(self._work.resolver, self._work.request)

    def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content."""
        return messages.read_request(self._work.request, self.head, body_bytes_max)

    def authorize(self) -> bool:
        """May the caller see the stored answer now?"""
        return self._work.authorize is None or bool(self._work.authorize(self._work.request))

    def execute(self, effect: Execute) -> Outcome:
        """Views are run by `run`, because their content may go on after them."""
        raise AssertionError(f"{effect.claim.attempt} was executed by the driver")

    def answered(self, answer: answers.Answer) -> Any:
        """The response to an answer for which no view was to be run by us."""
        self.ending = answer.ending
        match answer:
            case answers.Bypass():
                return self._work.get_response(self._work.request)
            case answers.Respond(response):
                return messages.respond(response)
            case answers.Vanish():
                return messages.vanished()
            case _:
                raise AssertionError(f"{type(answer).__name__} is no answer before a handler ran")

    def run(self, held: Held) -> Any:
        """Run the view, up to the end of its response or the first piece of its content; the response."""
        handling = _Handling(self, held, self.begun(held.effect))
        try:
            return handling.run(self._work.get_response, self._work.request)
        finally:
            begin_without()


class _Handling:
    """One execution of a view."""

    def __init__(self, exchange: Exchange, held: Held, operation: Operation) -> None:
        self._exchange = exchange
        self._held = held
        self._operation = operation
        self._capture = exchange.capture
        self._pieces: Iterator[bytes] = iter(())
        self._response: Any = None
        self.is_over = False

    def run(self, get_response: GetResponse, request: Any) -> Any:
        """The view, and the response to be returned."""
        try:
            self._response = response = get_response(request)
            if messages.has_failed(request):
                return self._sent(self.conclude(effects.Raised(self._operation.fate)))
            if not response.streaming:
                messages.capture_whole(self._capture, response)
                return self._sent(self.conclude(self._capture.answered(self._operation.fate)))
            self._capture.start(messages.start_of(response))
            self._pieces = iter(response)
            first = self.advance()
        except BaseException as failure:
            if not self.is_over:
                self.fail(failure)
            raise
        if first is None:
            return self._sent(self.conclude(self._capture.answered(self._operation.fate)))
        return self._with_content(_Content(self, first))

    def advance(self) -> bytes | None:
        """Take pieces until something may go out; None: the response is complete, and its end is held."""
        for piece in self._pieces:
            if self._capture.piece(messages.piece_of(piece, more=True)):
                return None
            if piece and self._operation.recorded is None:  # else what was recorded is sent, and nothing of this
                return messages.contents(self._capture.release())
        self._capture.piece(messages.piece_of(b"", more=False))
        return None

    def conclude(self, ended: Ended | None = None) -> answers.Answer:
        """Record how it ended: as it was answered, or otherwise."""
        self.is_over = True
        ended = ended or self._capture.answered(self._operation.fate)
        answer = self._held.conclude(self._operation.outcome(ended))
        self._exchange.ending = answer.ending
        return answer

    def fail(self, failure: BaseException) -> None:
        """Record that it ended by raising."""
        self.conclude(self._exchange.ended_by(failure, self._operation))

    def rest(self) -> bytes:
        """The end of the content, which was held."""
        return messages.contents(self._capture.release())

    def _sent(self, answer: answers.Answer) -> Any:
        """The response, of which nothing has gone out yet."""
        match answer:
            case answers.Deliver(added=added):
                if self._response.streaming:
                    self._response = self._with_content((self.rest(),))
                return messages.marked(self._response, self._exchange.withheld, added)
            case answers.Respond(response):
                messages.close(self._response)
                return messages.respond(response)
            case _:
                raise AssertionError(f"{type(answer).__name__} is no answer to a response that was not begun")

    def _with_content(self, content: Any) -> Any:
        whole = self._response  # which `_sent` puts another one in place of
        made = messages.with_content(messages.marked(whole, self._exchange.withheld), content)
        made._resource_closers.append(lambda: messages.close(whole))  # noqa: SLF001 - after that of the content
        return made


class _Content:
    """The content of a response as it goes out; its end, once it is recorded.

    When the server leaves it, because the client is gone, the view's own content is made to its end all the same, and
    the outcome is recorded (contract R53).
    """

    def __init__(self, handling: _Handling, first: bytes) -> None:
        self._handling = handling
        self._first: bytes | None = first

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            piece, self._first = self._first, None
            return piece
        if self._handling.is_over:
            raise StopIteration
        following = self._advance()
        return self._end() if following is None else following

    def _advance(self) -> bytes | None:
        try:
            return self._handling.advance()
        except BaseException as failure:
            self._handling.fail(failure)
            raise

    def _end(self) -> bytes:
        if not isinstance(self._handling.conclude(), answers.Deliver):
            raise IncompleteResponse("the response was broken off: the outcome of the operation is unknown")
        return self._handling.rest()

    def close(self) -> None:
        """The server is through with it."""
        while not self._handling.is_over:
            if self._advance() is None:
                self._handling.conclude()
