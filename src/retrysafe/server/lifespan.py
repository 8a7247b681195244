"""Opens the door's store before the application starts, and drains it before the application stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from retrysafe.errors import StoreError
from retrysafe.server.capture import Message
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection

_STARTED, _FAILED = "lifespan.startup.complete", "lifespan.startup.failed"
_STOP, _STOPPED = "lifespan.shutdown", "lifespan.shutdown.complete"


class Lifespan:
    """One lifespan connection around an application, which may or may not speak it.

    Args:
        application: the ASGI application.
        open_store: raises `StoreError` if requests cannot be protected.
        close_store: waits for running handlers first. It is called before the application is told to
            stop, because they use what the application then takes down.
    """

    def __init__(
        self,
        application: Application,
        open_store: Callable[[], Awaitable[None]],
        close_store: Callable[[], Awaitable[None]],
    ) -> None:
        self._application = application
        self._open = open_store
        self._close = close_store
        self._said: set[str] = set()
        self._stopping = False

    async def run(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Serve the lifespan connection."""
        startup = [await receive()]
        try:
            await self._open()
        except StoreError as error:
            await send({"type": _FAILED, "message": str(error)})
            return

        async def receive_startup_again() -> Message:
            return startup.pop() if startup else await self._receive(receive)

        async def send_and_note(message: Message) -> None:
            self._said.add(message["type"])
            if message["type"] == _FAILED:
                await self._close()
            await send(message)

        try:
            await self._application(connection, receive_startup_again, send_and_note)
        except Exception:
            if self._said:
                raise
        await self._speak_for_application(receive, send)

    async def _receive(self, receive: Receive) -> Message:
        message = await receive()
        if message["type"] == _STOP:
            self._stopping = True
            await self._close()
        return message

    async def _speak_for_application(self, receive: Receive, send: Send) -> None:
        """It is over with the lifespan, perhaps because it does not speak it; the store still needs the end."""
        if not self._said:
            self._said.add(_STARTED)
            await send({"type": _STARTED})
        if self._said == {_STARTED}:
            if not self._stopping:
                await self._receive(receive)
            await send({"type": _STOPPED})
