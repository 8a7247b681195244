"""The raw application, which also counts the different keys that it has seen: by which a client is proved."""

from __future__ import annotations

from bench.bare import App, Bare, Message, Receive, Send


class Seen(Bare):
    """Answers `GET /keys` too."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: set[bytes] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "http" and scope["path"] == "/keys":
            await self._answer(send, 200, str(len(self._keys)).encode())
            return
        if scope["type"] == "http":
            self._keys.update(value for name, value in scope["headers"] if name == b"idempotency-key")
        await super().__call__(scope, receive, send)


def seen() -> App:
    """The application, for `uvicorn --factory`."""
    return Seen()
