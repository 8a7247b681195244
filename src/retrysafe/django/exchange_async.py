"""One protected request in Django's asynchronous mode.

The view runs in an owner task, which Django cannot cancel when the client leaves. The request's own task waits for the
head of the response; a content that is made as it is sent goes from one to the other piece by piece.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.db import connections

from retrysafe.django import messages
from retrysafe.django.protected import Protected, Work
from retrysafe.django.scope import account_async
from retrysafe.drive.aio import Conclude
from retrysafe.errors import IncompleteResponse
from retrysafe.model import Headers, Request
from retrysafe.operation.handle import Operation
from retrysafe.protocol import answers, effects
from retrysafe.protocol.effects import Ended, Execute, Unread
from retrysafe.server.body import MEMORY_BYTES_MAX

_log = logging.getLogger("retrysafe")


class AsyncExchange(Protected):
    """The state of one request; a new object for each."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.response: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._own: Any = None
        self._is_returned = False
        self._pipe = _Pipe()

    # --- before the view --------------------------------------------------------------------------

    async def scope(self) -> str | None:
        """The account that the request belongs to."""
        return await account_async(self._work.resolver, self._work.request)

    async def request(self, body_bytes_max: int) -> Request | Unread:
        """The request with its whole content, which Django has received before."""
        length = messages.length_of(self.head)
        if length is not None and length <= MEMORY_BYTES_MAX:
            return messages.read_request(self._work.request, self.head, body_bytes_max)
        return await asyncio.to_thread(messages.read_request, self._work.request, self.head, body_bytes_max)

    async def authorize(self) -> bool:
        """May the caller see the stored answer now?"""
        authorize = self._work.authorize
        if authorize is None:
            return True
        asked = authorize if iscoroutinefunction(authorize) else sync_to_async(authorize)
        return bool(await asked(self._work.request))

    async def departure(self) -> None:
        """Django tells it by cancelling the request's own task."""
        await asyncio.get_running_loop().create_future()

    # --- the view and the answer ------------------------------------------------------------------

    async def execute(self, effect: Execute, conclude: Conclude) -> None:
        """Run the view to the end of its response."""
        operation = self.begun(effect)
        async with _threads():
            try:
                ended = await self._run(operation)
            except BaseException as failure:
                await conclude(operation.outcome(self.ended_by(failure, operation)))
                raise
            await conclude(operation.outcome(ended))
            if self._own.streaming:
                await sync_to_async(messages.close)(self._own)

    async def _run(self, operation: Operation) -> Ended:
        """The view, up to the end of its response, which is held."""
        self._own = response = await self._work.get_response(self._work.request)
        if messages.has_failed(self._work.request):
            return effects.Raised(operation.fate)
        if not response.streaming:
            messages.capture_whole(self.capture, response)
            return self.capture.answered(operation.fate)
        self.capture.start(messages.start_of(response))
        async for piece in response:
            if self.capture.piece(messages.piece_of(piece, more=True)):
                return self.capture.answered(operation.fate)
            if piece and operation.recorded is None:  # else what was recorded is sent, and nothing of this
                await self._send(messages.contents(self.capture.release()))
        self.capture.piece(messages.piece_of(b"", more=False))
        return self.capture.answered(operation.fate)

    async def _send(self, piece: bytes) -> None:
        self._return_streaming()
        await self._pipe.put(piece)

    async def answer(self, answer: answers.Answer) -> None:
        """Give the request's own task its response, or the end of it."""
        self.ending = answer.ending
        match answer:
            case answers.Deliver(added=added) if self._own.streaming:
                rest = messages.contents(self.capture.release())
                self._return_streaming(added)
                await self._pipe.put(rest)
                await self._pipe.end(None)
            case answers.Deliver(added=added):
                self._return(messages.marked(self._own, self.withheld, added))
            case answers.Respond(response) if not self.capture.sent:
                self._return(messages.respond(response))
            case answers.Respond() | answers.BreakOff():
                why = "the response was broken off: the outcome of the operation is unknown"
                await self._pipe.end(IncompleteResponse(why))
            case answers.Vanish():
                self._return(messages.vanished())
            case answers.Bypass():
                self._return(await self._work.get_response(self._work.request))

    def _return_streaming(self, added: Headers = ()) -> None:
        """Give the head of the response, once. Whoever drops it untaken has left."""
        if not self._is_returned:
            own = messages.marked(self._own, self.withheld, added)
            made = messages.with_content(own, self._pipe.pieces())
            loop = asyncio.get_running_loop()
            weakref.finalize(made, _leave, loop, self._pipe).atexit = False
            self._return(made)

    def _return(self, response: Any) -> None:
        self._is_returned = True
        if not self.response.done():  # else its task was cancelled
            self.response.set_result(response)

    def take(self) -> Any:
        """The response, for its own task, which is then the only one that holds it."""
        response, self.response = self.response.result(), asyncio.get_running_loop().create_future()
        return response

    @property
    def is_returned(self) -> bool:
        """There was a response."""
        return self._is_returned

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._pipe.leave()

    def overdue(self) -> None:
        """The view had all the time it may have: it is not kept any longer by who does not take its content."""
        self._pipe.leave()


def _threads() -> AbstractAsyncContextManager[Any]:
    """Where blocking code of the view runs.

    Under a server Django gives each request a thread, and ends it with the request's own task: blocking the loop until
    the view is over, if that was cancelled. So an owner has a thread of its own. Where there is none of the request, as
    in tests, the view runs where all does.
    """
    return _own_thread() if SyncToAsync.thread_sensitive_context.get(None) is not None else nullcontext()


@asynccontextmanager
async def _own_thread() -> AsyncIterator[None]:
    async with ThreadSensitiveContext():
        try:
            yield
        finally:
            await sync_to_async(connections.close_all)()  # they belong to the thread, which ends here


def _leave(loop: asyncio.AbstractEventLoop, pipe: _Pipe) -> None:
    """A response is gone, on whichever thread that is noticed."""
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(pipe.leave)


class _Pipe:
    """Pieces of content from the owner to the request's own task, one at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._failure: Exception | None = None
        self._left = False

    async def put(self, piece: bytes | None) -> None:
        """Hand on; when nobody takes it any more, it is dropped."""
        if not self._left:
            await self._queue.put(piece)

    async def end(self, failure: Exception | None) -> None:
        """There is no more; if it broke off, that is raised where it is taken."""
        self._failure = failure
        await self.put(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was handed on."""
        try:
            while (piece := await self._queue.get()) is not None:
                yield piece
            if self._failure is not None:
                raise self._failure
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody takes it any more: let go of who waits for that."""
        self._left = True
        while not self._queue.empty():
            self._queue.get_nowait()


async def outcome_of(exchange: AsyncExchange, running: asyncio.Task[None]) -> Any:
    """For the request's own task: the response, while the driver may go on with its content.

    Args:
        exchange: of the request.
        running: the driver.

    Raises:
        Exception: what the driver raised before there was a response.
    """
    running.add_done_callback(partial(_tell, exchange))
    try:
        await asyncio.wait({running, exchange.response}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        exchange.response.cancel()
        running.cancel()  # before the view runs it ends by that; afterwards only the waiting for its owner does
        await asyncio.wait({running})
        raise
    if not exchange.response.done():
        running.result()
        raise AssertionError("a request ended without a response")
    return exchange.take()


def _tell(exchange: AsyncExchange, running: asyncio.Task[None]) -> None:
    """What nobody waits for any more."""
    if not running.cancelled() and (error := running.exception()) is not None and exchange.is_returned:
        _log.error("a view failed after its response was begun", exc_info=error)
