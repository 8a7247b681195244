"""One connection to the upstream, and the exchange that it carries.

llhttp, under httptools, reads the answers, as it reads the requests of clients. An HTTP library would do,
but for two things. It answers for what is between its caller and the wire with words of its own, and here
everything hangs on knowing whether a request was sent. And what a library does for each request took three
quarters of the gateway's time.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Any

import httptools

from retrysafe.errors import RetrysafeError
from retrysafe.model import Headers

# The head of an answer, its trailers or chunk extensions may be this long, and one read of the socket more:
# answers carry long fields, security policies and cookies above all, and one that is cut off would make an
# outcome unknown. httptools has no limit of its own.
UNDIGESTED_BYTES_MAX = 256 << 10

# More than this is not read ahead of the client.
_AHEAD_BYTES_MAX = 64 << 10


class UpstreamFailed(RetrysafeError):
    """The request may have reached the upstream, and no usable answer came back."""


class UpstreamTimeout(UpstreamFailed):
    """The request may have reached the upstream, and it took too long to answer."""


class Link(asyncio.Protocol):
    """A connection to the upstream. It carries one exchange at a time, from `ask` to the end of the answer.

    Args:
        silence_s: how long the upstream may be silent, before its answer and within it.
        ended: told when the connection is gone.

    Attributes:
        status: of the answer; 0 until its head is there.
        fields: of the answer, names in lower case; complete as soon as there is a status.
        sent: the request was written to its end.
    """

    def __init__(self, silence_s: float, ended: Callable[[Link], None]) -> None:
        self._silence_s = silence_s
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: httptools.HttpResponseParser | None = None
        self._readable = select.poll()

        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.sent = False
        self._asked = False  # an answer is being waited for, or being read
        self._to_head = False
        self._interim = False  # what is being read is an answer before the answer
        self._kept = True  # the connection may be used again
        self._error: Exception | None = None
        self._pieces: list[bytes] = []
        self._ahead_bytes = self._undigested_bytes = 0
        self._reading_paused = self._writing_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

        # One timer for each connection, not one for each wait: it is late, and looks again.
        self._deadline_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- for whoever has a request ----------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """Whether the connection stands and the upstream said nothing on it unasked."""
        return self._kept and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Whether a kept connection is still fresh. It asks the system: the loop may not have looked for a while."""
        return self.fresh and not self._readable.poll(0)

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and left nothing behind, in either direction."""
        over = self.sent and not self._asked and not self._pieces
        return over and self.fresh and not self._transport.get_write_buffer_size()

    def ask(self, head: bytes, *, to_head: bool) -> None:
        """Begin an exchange: write the head of a request.

        Args:
            head: with the content, if that is whole.
            to_head: the request is a HEAD: the answer has no content, whatever it says.
        """
        self.status, self.fields, self.sent, self._error = 0, [], False, None
        self._asked, self._to_head = True, to_head
        self._undigested_bytes = 0
        if self._parser is None:
            self._parser = _parser(self)
        self._transport.write(head)

    async def write(self, data: bytes) -> None:
        """Write more of the request, and wait until there is room for the next piece.

        Raises:
            UpstreamFailed: the connection broke.
        """
        if not self._transport.is_closing():
            self._transport.write(data)
        while self._writing_paused and self._error is None:
            self._writer = self._loop.create_future()
            await self._writer
        if self._error is not None:
            raise self._error

    async def head(self) -> None:
        """Wait for the head of the answer; answers before it (1xx) are between neighbours and stop here.

        Raises:
            UpstreamFailed: none came.
        """
        self.hurry()
        try:
            while not self.status:
                await self._news()
        finally:
            self.rest()

    async def piece(self) -> bytes:
        """The next piece of the answer's content: all that has come. Empty only at the end.

        Raises:
            UpstreamFailed: the content broke off.
        """
        if not self._pieces and self._asked:
            self.hurry()
            try:
                while not self._pieces and self._asked:
                    await self._news()
            finally:
                self.rest()
        if not self._pieces and self._error is not None:
            raise self._error
        taken = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._ahead_bytes = 0
        if self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
        return taken

    @property
    def over(self) -> bool:
        """Whether all of the answer was taken."""
        return not self._asked and not self._pieces and self._error is None

    def hurry(self) -> None:
        """From now on the upstream may be silent for so long."""
        self._deadline_s = self._loop.time() + self._silence_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._look)

    def rest(self) -> None:
        """It is not the upstream who is waited for."""
        self._deadline_s = None

    def fail(self, error: Exception) -> None:
        """End the exchange and the connection; who waits for the answer is told why."""
        if self._asked:
            self._asked, self._error = False, error
        self._kept = False
        self._wake()
        self._transport.abort()

    def close(self) -> None:
        """End the connection, which is of no more use: at once, or a peer that reads nothing could hold it up."""
        self._kept = False
        self._transport.abort()

    def _look(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        left_s = self._deadline_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        elif self.status:
            self.fail(UpstreamTimeout(f"the upstream fell silent for {self._silence_s:g} s in its answer"))
        else:
            self.fail(UpstreamTimeout(f"the upstream was silent for {self._silence_s:g} s"))

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._reader = self._loop.create_future()
        await self._reader

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = transport
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._come_to_end(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._parser = None
        self._ended(self)

    def eof_received(self) -> None:
        """The upstream says nothing more; the transport closes itself."""
        self._come_to_end(None)

    def pause_writing(self) -> None:
        """The upstream does not keep up."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._writing_paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Read what the upstream says."""
        if not self._asked or self._parser is None:
            self.close()  # it has no request to answer: what it said must not be taken for an answer to the next
            return
        if self._undigested_bytes > UNDIGESTED_BYTES_MAX:
            self.fail(UpstreamFailed("the head of the upstream's answer is too large"))
            return
        self._undigested_bytes += len(data)
        status = self.status
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._kept = False
        except httptools.HttpParserError as error:
            if self._asked:
                self.status = status  # a head that came together with what is no HTTP is not begun to be sent on
            self.fail(UpstreamFailed(f"what the upstream said is no HTTP ({error})"))

    def _come_to_end(self, exc: Exception | None) -> None:
        self._kept = False
        if not self._asked:
            self._wake()
        elif self.status and exc is None and self._ends_with_connection():
            self._finish()
        else:
            self.fail(UpstreamFailed(f"the connection to the upstream broke ({reason(exc)})"))

    def _ends_with_connection(self) -> bool:
        return not any(
            name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower())
            for name, value in self.fields
        )

    # --- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins, or something that nobody asked for."""
        if not self._asked:
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; trailers, which come after it, are not for the client."""
        if not self.status:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The head is there."""
        parser = self._parser
        if parser is None or not self._asked:
            return
        self._undigested_bytes = 0
        status = parser.get_status_code()
        self._interim = 100 <= status < 200 and status != 101
        if self._interim:
            self.fields.clear()
            return
        self.status = status
        self._kept = self._kept and parser.should_keep_alive()
        if self._to_head:
            self._parser = None  # it cannot be told, and would wait for the content
            self._finish()
        else:
            self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of content."""
        if not self._asked:
            self._kept = False
            return
        self._undigested_bytes = 0
        self._pieces.append(body)
        self._ahead_bytes += len(body)
        if self._ahead_bytes > _AHEAD_BYTES_MAX and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._asked and not self._interim:
            self._finish()

    def _finish(self) -> None:
        self._asked = False
        self._wake()


def reason(error: Exception | None) -> str:
    """What an error says, without what it was about."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return "closed" if error is None else type(error).__name__


def head_of(method: str, target: bytes, fields: Headers) -> bytes:
    """The head of a request as it goes over the wire."""
    lines = [b"%s: %s\r\n" % field for field in fields]
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (method.encode(), target, b"".join(lines))


def _parser(link: Link) -> httptools.HttpResponseParser:
    """As strict as an upstream can be asked to be: old ones end lines with a line feed, or put spaces after a size."""
    parser = httptools.HttpResponseParser(link)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
