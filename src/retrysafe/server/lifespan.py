"""Opens the door's store before the application starts, and drains it after the application stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from retrysafe.errors import StoreError
from retrysafe.server.capture import Message
from retrysafe.server.exchange import Application, Receive, Send
from retrysafe.server.scope import Connection


class Lifespan:
    """The lifespan protocol around an application, which may or may not speak it.

    Args:
        application: the ASGI application.
        open_store: raises `StoreError` if requests cannot be protected.
        close_store: waits for running handlers first.
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
        self._started = False
        self._closed = False

    async def run(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Serve the lifespan connection."""
        startup = await receive()
        try:
            await self._open()
        except StoreError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        pending = [startup]

        async def receive_startup_again() -> Message:
            return pending.pop() if pending else await receive()

        async def send_when_closed(message: Message) -> None:
            self._started = self._started or message["type"] == "lifespan.startup.complete"
            if message["type"].startswith("lifespan.shutdown.") or message["type"] == "lifespan.startup.failed":
                await self._close_once()
            await send(message)

        try:
            await self._application(connection, receive_startup_again, send_when_closed)
        except Exception:
            if self._started:
                await self._close_once()
                raise
            await self._run_alone(receive, send)  # the application does not speak lifespan; the store needs it

    async def _run_alone(self, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close_once()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close_once(self) -> None:
        if not self._closed:
            self._closed = True
            await self._close()
