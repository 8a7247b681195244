"""uvicorn's HTTP protocol, with what a gateway must add to it.

llhttp in its strict mode, under httptools, decides what a request is: of the parsers that uvicorn can
use it refuses most. h11 would take a bare line feed, a folded line, several lengths, and a length
together with chunks.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retrysafe.gateway.strict import TARGET

# A head, trailers or chunk extensions may be this long, and one read of the socket more.
UNDIGESTED_BYTES_MAX = 64 << 10


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a client."""

    _undigested_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the parser only ever collects: httptools has no limit of its own."""
        if self._undigested_bytes > UNDIGESTED_BYTES_MAX:
            self.send_400_response("The head or the trailers of the request are too large.")
            return
        self._undigested_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A new request."""
        self._undigested_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request on, with its target as it was received, and with its headers as they are now.

        httptools reports trailers as it does headers, uvicorn puts both in one list, and a trailer must not
        become a header after the fact: a proxy in front that vouches for the account has not looked there
        (RFC 9110 6.5.1). So what comes from here on goes to a list that nobody reads.
        """
        self._undigested_bytes = 0
        self.scope[TARGET] = self.url  # type: ignore[literal-required]  # ASGI knows no such entry, and allows it
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of content."""
        self._undigested_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request; but never in place of the answer to a request before them."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and (cycle.response_started or not cycle.more_body):
            self.transport.close()
        else:
            super().send_400_response(msg)
