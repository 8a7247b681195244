"""One observed request at the WSGI door: the handler and the server speak to each other, and a sighting is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from retrysafe.server.environ import Environ, Resolver, head_of
from retrysafe.server.length import Length, number_in
from retrysafe.server.observing import OBSERVED, Watcher
from retrysafe.server.routes import Route
from retrysafe.server.sighting import Sighting
from retrysafe.server.wsgi_exchange import Application, StartResponse, Write

_log = logging.getLogger("retrysafe")


def observe(  # noqa: PLR0913, PLR0917 - what a request consists of here
    application: Application,
    environ: Environ,
    start_response: StartResponse,
    route: Route,
    watcher: Watcher,
    resolver: Resolver,
) -> Iterable[bytes]:
    """Serve a request exactly as without a door, and have it counted; what to return to the server.

    Args:
        application: the handler.
        environ: the server's.
        start_response: the server's.
        route: that the request falls under.
        watcher: of the door.
        resolver: finds the account.
    """
    is_first = OBSERVED not in environ  # of several doors around one application the outermost counts
    environ[OBSERVED] = True
    sighting = watcher.look_at(route, head_of(environ)) if is_first else None
    if sighting is None:
        return application(environ, start_response)
    sighting.belongs_to(account_of(resolver, dict(environ)))
    watch_content(environ, sighting)
    telling = _Telling(sighting, start_response)
    try:
        return telling.content(application(environ, telling.start), environ.get("wsgi.file_wrapper"))
    except BaseException as failure:
        sighting.end(failure)
        raise


def account_of(resolver: Callable[[Any], Any], request: Any) -> str | None:
    """Whose key it is; None if it cannot be found, for whatever reason. The request must not notice.

    Args:
        resolver: of the door.
        request: as it takes it.
    """
    try:
        account = resolver(request)
    except Exception as error:  # noqa: BLE001 - the application's own function
        _log.warning("scope= failed for an observed request: %s", type(error).__name__)
        return None
    return account if isinstance(account, str) else None


def watch_content(environ: Environ, sighting: Sighting) -> None:
    """Have the sighting told of what is read of the request's content, if it has one."""
    length = number_in(environ.get("CONTENT_LENGTH") or "")
    is_chunked = bool(environ.get("wsgi.input_terminated")) and bool(environ.get("HTTP_TRANSFER_ENCODING"))
    if length or (length is None and is_chunked):
        environ["wsgi.input"] = WatchedInput(environ["wsgi.input"], sighting, length)
    else:
        sighting.whole()


class WatchedInput:
    """A content as the server gives it, and a sighting is told of what is read. What it cannot do, this cannot.

    Args:
        source: the server's.
        sighting: of the request.
        length: of the content in bytes; None if it ends where reading finds nothing more.
    """

    def __init__(self, source: Any, sighting: Sighting, length: int | None) -> None:
        self._source = source
        self._sighting = sighting
        self._length = length
        self._is_astray = False

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._source, name)  # raises as the source does
        if name in ("read", "read1", "readline", "readlines"):
            return self._reading(name, own)
        if name in ("readinto", "readinto1"):
            return self._filling(own)
        if name == "seek":
            return self._seeking(own)
        if name in ("detach", "raw", "fileno"):  # by which it can be read past us
            self._sighting.let_go()
        return own

    def __iter__(self) -> Iterator[bytes]:
        for line in self._source:
            self._take(line, is_end=False)
            yield line
        self._take(b"", is_end=True)

    def __next__(self) -> bytes:
        line: bytes = next(self._source)
        self._take(line, is_end=False)
        return line

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(self, *failure: object) -> Any:
        return self._source.__exit__(*failure)

    def _reading(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any, **named: Any) -> Any:
            found = own(*arguments, **named)
            size = next(iter((*arguments, *named.values())), None)
            is_all = name in ("read", "readlines") and (size is None or size < 0)
            for piece in found if isinstance(found, list) else (found,):
                self._take(piece, is_end=not piece and size != 0)
            if is_all:
                self._take(b"", is_end=True)
            return found

        return read

    def _filling(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def fill(buffer: Any) -> Any:
            size = own(buffer)
            self._take(bytes(memoryview(buffer).cast("B")[: size or 0]), is_end=size == 0 < len(buffer))
            return size

        return fill

    def _seeking(self, own: Callable[..., int]) -> Callable[..., int]:
        def seek(*arguments: int) -> int:
            place = own(*arguments)
            self._is_astray = place != self._sighting.size
            return place

        return seek

    def _take(self, piece: bytes | None, *, is_end: bool) -> None:
        """What was read; the end of a content whose length is known is where that is reached."""
        if self._is_astray:  # something was read twice, or left out
            self._sighting.let_go()
        self._sighting.take(piece or b"")
        if is_end if self._length is None else self._sighting.size >= self._length:
            self._sighting.whole()


class _Telling:
    """What the handler says goes to the server, and the sighting is told of it."""

    def __init__(self, sighting: Sighting, start_response: StartResponse) -> None:
        self._sighting = sighting
        self._server_start = start_response
        self._length = Length()

    def start(self, status: str, headers: Any, *exc_info: Any, **named: Any) -> Write:
        """The handler's `start_response`."""
        write = self._server_start(status, headers, *exc_info, **named)
        code = number_in(status[:3])
        if code is not None:
            self._sighting.answer(code, headers)
            self._length.start(code, headers)
        return write

    def content(self, iterable: Iterable[bytes], file_wrapper: Any) -> Iterable[bytes]:
        """What to return to the server.

        The very object of the handler, where servers look at what it is: then the handler is through with it.
        """
        is_file = isinstance(file_wrapper, type) and isinstance(iterable, file_wrapper)
        if isinstance(iterable, list | tuple) or is_file:
            self._sighting.end()
            return iterable
        kind = _SizedContent if hasattr(iterable, "__len__") else _Content
        return kind(iterable, self._sighting, self._length)


class _Content:
    """A response that is made as it is sent; its end is told before the last piece, where that can be known."""

    def __init__(self, iterable: Iterable[bytes], sighting: Sighting, length: Length) -> None:
        self._iterable = iterable
        self._sighting = sighting
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._iterable:
                if self._length.reached(piece):
                    self._sighting.end()
                yield piece
        except BaseException as failure:
            self._sighting.end(failure)
            raise
        self._sighting.end()

    def close(self) -> None:
        """As the server does when the response is sent, or the client is gone."""
        try:
            if (close := getattr(self._iterable, "close", None)) is not None:
                close()
        finally:
            self._sighting.end(GeneratorExit())


class _SizedContent(_Content):
    """One that says how many pieces it has."""

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]  # it is made for those that have a length
