"""A TCP proxy that can lose an answer: it lets a request through, waits until the server has answered, and hangs up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class CuttingProxy:
    """Between a client and a server on the loopback.

    Attributes:
        port: where it listens.
        requests: what clients sent, from one answer to the next: so many are the round trips.
        deaf: the next answer that is as long as this is not passed on, and its connection is cut. None: no answer is.
    """

    def __init__(self, server_port: int) -> None:
        self.requests: list[bytearray] = []
        self._unanswered: dict[asyncio.StreamWriter, bytearray] = {}
        self.deaf: int | None = None
        self._mute = False
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Meanwhile no answer is passed on, and each cuts its connection, once the server has done all it was asked."""
        self._mute = True
        try:
            yield
        finally:
            self._mute = False

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            if self._tasks:
                await asyncio.wait(list(self._tasks))

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        answers = asyncio.create_task(self._answer(far_reader, far_writer, writer))
        try:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    if writer not in self._unanswered:  # what is sent in one go may come in pieces
                        self._unanswered[writer] = bytearray()
                        self.requests.append(self._unanswered[writer])
                    self._unanswered[writer] += data
                    far_writer.write(data)
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            far_writer.close()
            writer.close()
            self._writers.discard(writer)
            self._unanswered.pop(writer, None)

    async def _answer(
        self, far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await far_reader.read(1 << 16):
                self._unanswered.pop(writer, None)
                if self._mute:
                    far_writer.write_eof()
                    await far_reader.read()  # until the server hangs up: after it has done what it was asked
                    break
                if self.deaf is not None and len(data) >= self.deaf:
                    self.deaf = None
                    break
                writer.write(data)
        writer.transport.abort()
