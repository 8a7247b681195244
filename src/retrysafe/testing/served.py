"""An application served on the loopback, in this process: the verifier speaks bytes, so nothing is lost on the way.

The application sees the host that its test client would name, and every request can be marked by a field, which is
taken off before the application sees it: it says what is to happen to the request inside the engine.
"""

from __future__ import annotations

import asyncio
import io
import socket
import socketserver
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import uvicorn
from anyio.from_thread import start_blocking_portal

from retrysafe.errors import CallerError
from retrysafe.lab.interruptions import Interruption, Kind, WorkerDied, current
from retrysafe.testing.applications import Behind

HOST = "127.0.0.1"
MARK = "Retrysafe-Check"
HOLD_S = 1.0
LEASE_S = 0.3
_BACKLOG = 256
_STOP_S_MAX = 10
_POLL_S = 0.01
_NO_WORKER = b"the worker died"


class Marks:
    """Reads the marks on requests: `KIND REFERENCE`. Of the requests for one reference, only the first dies."""

    def __init__(self) -> None:
        self._looks: list[Interruption] = []
        self._dead: set[str] = set()

    def read(self, mark: str | None) -> Interruption | None:
        """What is to happen to a request."""
        if mark is None or mark in self._dead:
            return None
        what = Interruption(Kind(mark.partition(" ")[0]), HOLD_S, int(LEASE_S * 1_000))
        if what.is_deadly:
            self._dead.add(mark)
        if what.kind is Kind.SEEN:
            self._looks.append(what)
        return what

    @property
    def reached(self) -> bool:
        """The engine had a request that looked for it."""
        return any(what.reached for what in self._looks)


# --- ASGI ---------------------------------------------------------------------------------------


class Front:
    """ASGI: in front of the application of a test client.

    Args:
        inner: what is behind the client.
        marks: told what happened.
    """

    def __init__(self, inner: Behind, marks: Marks) -> None:
        self._inner = inner
        self._marks = marks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._inner.application(scope, receive, send)
            return
        name = MARK.lower().encode()
        marks = [value.decode() for field, value in scope["headers"] if field == name]
        headers = [each for each in scope["headers"] if each[0] not in {name, b"host"}]
        authority = self._inner.authority
        host, _, port = authority.partition(":")
        seen = {
            **scope,
            "headers": [(b"host", authority.encode()), *headers],
            "server": (host, int(port or 80)),
            "state": {**scope.get("state", {}), **self._inner.state},
        }
        what = self._marks.read(marks[0] if marks else None)
        if what is None:
            await self._inner.application(seen, receive, send)
        else:
            await self._marked(what, seen, receive, send)

    async def _marked(self, what: Interruption, scope: Any, receive: Any, send: Any) -> None:
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            if not what.died:
                started = True
                await send(message)

        current.set(what)  # the server gives each request a context of its own
        try:
            await self._inner.application(scope, receive, sending)
        except Exception:
            if not what.died:
                raise
        if what.died and not started:  # what a proxy says whose upstream is gone; a response that was begun is cut off
            length = (b"content-length", b"%d" % len(_NO_WORKER))
            await send({"type": "http.response.start", "status": 502, "headers": [length]})
            await send({"type": "http.response.body", "body": _NO_WORKER})


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    with suppress(SystemExit):  # how uvicorn says that the lifespan failed; it would end the loop
        await server.serve(sockets=[listener])


@asynccontextmanager
async def asgi_served(application: Any, lifespan: Literal["auto", "off"]) -> AsyncIterator[int]:
    """The application under uvicorn in this event loop; its port.

    Args:
        application: ASGI.
        lifespan: `auto` starts and ends it; `off` if somebody else does.

    Raises:
        CallerError: it did not start.
    """
    listener = socket.create_server((HOST, 0), backlog=_BACKLOG)
    how = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_S_MAX,
    )
    server = uvicorn.Server(how)
    running = asyncio.create_task(_serve(server, listener))
    try:
        while not (server.started or running.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(_POLL_S)
        if running.done():
            raise CallerError("the application did not start: its lifespan failed, and logged why")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


@contextmanager
def _asgi(inner: Behind, marks: Marks) -> Iterator[int]:
    """In the event loop in which the client started the application, or in one of its own."""
    front = Front(inner, marks)
    if inner.portal is not None:
        with inner.portal.wrap_async_context_manager(asgi_served(front, "off")) as port:
            yield port
    else:
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(asgi_served(front, "auto")) as port:
            yield port


# --- WSGI ---------------------------------------------------------------------------------------


class _Handler(WSGIRequestHandler):
    """One connection: the fields as they are, no line for each request, and an error that goes to the log."""

    server: _Server

    def get_environ(self) -> dict[str, Any]:
        """As the server's, with the host that the client would name."""
        host, _, port = self.server.authority.partition(":")
        named = {"HTTP_HOST": self.server.authority, "SERVER_NAME": host, "SERVER_PORT": port or "80"}
        return {**super().get_environ(), **named}

    def log_message(self, *_: Any) -> None:
        """Nothing: the verifier tells what came."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each connection; all have ended when it is closed."""

    daemon_threads = False
    request_queue_size = _BACKLOG
    authority = ""

    def handle_error(self, *_: Any) -> None:
        """A connection that broke is what the verifier wanted."""


@contextmanager
def _wsgi(inner: Behind, marks: Marks) -> Iterator[int]:
    server = _Server((HOST, 0), _Handler)
    server.authority = inner.authority
    server.set_app(_wsgi_front(inner.application, marks))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": _POLL_S}, name="retrysafe check")
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_STOP_S_MAX)


def _wsgi_front(application: Any, marks: Marks) -> Any:
    """The application, whose marked requests have what is to happen to them in their context."""
    name = "HTTP_" + MARK.upper().replace("-", "_")

    def serving(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        what = marks.read(environ.pop(name, None))
        # A server ends the content where its length says; this one would have the application wait for more.
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        if what is None:
            return application(environ, start_response)  # type: ignore[no-any-return] # whatever it is, the server takes it
        current.set(what)
        response: Any = ()
        try:
            response = application(environ, start_response)
            return [b"".join(response)]
        except WorkerDied:
            start_response("502 Bad Gateway", [("Content-Length", str(len(_NO_WORKER)))], sys.exc_info())
            return [_NO_WORKER]
        finally:
            current.set(None)
            getattr(response, "close", lambda: None)()

    return serving


def served(inner: Behind, marks: Marks) -> AbstractContextManager[int]:
    """What is behind a client, served for as long as the context lasts; the port on the loopback."""
    return _asgi(inner, marks) if inner.protocol == "asgi" else _wsgi(inner, marks)


@asynccontextmanager
async def served_here(inner: Behind, marks: Marks) -> AsyncIterator[int]:
    """The same in this event loop, which is that of the application; WSGI has threads of its own."""
    if inner.protocol == "asgi":
        async with asgi_served(Front(inner, marks), "off") as port:
            yield port
    else:
        with _wsgi(inner, marks) as port:
            yield port
