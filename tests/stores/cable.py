"""A cable between a store and its server, which counts what goes through, and can be cut at the worst moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

QUERY = 3  # MySQL's COM_QUERY


class Cable:
    """Carries connections to a port of this host; its own port is `port`."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.queries = 0
        self._lose_replies = False
        self._lose_requests = False
        self._ends = []
        self._threads = []
        self._carry(self._accept)

    def lose_reply(self):
        """The next question arrives and is answered; nothing of the answer does, and whoever waits for it gives up."""
        self._lose_replies = True

    def lose_request(self):
        """The next question does not arrive, and the connection ends."""
        self._lose_requests = True

    def close(self):
        """Cut everything, and leave nothing that runs."""
        self._end(self._listener, *self._ends)
        for thread in self._threads:
            thread.join()

    def _carry(self, work, *ends):
        thread = threading.Thread(target=work, args=ends, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends += [near, far]
            self._carry(self._carry_questions, near, far)
            self._carry(self._carry_answers, far, near)

    def _carry_questions(self, near, far):
        with suppress(OSError):
            while data := near.recv(1 << 20):
                if data[3] == 0 and data[4] == QUERY:
                    self.queries += 1
                    if self._lose_requests:
                        self._lose_requests = False
                        break
                far.sendall(data)
        self._end(near, far)

    def _carry_answers(self, far, near):
        with suppress(OSError):
            while data := far.recv(1 << 20):
                if self._lose_replies:
                    self._lose_replies, near = False, None
                if near is not None:
                    near.sendall(data)
        if near is not None:
            self._end(near, far)

    def _end(self, *ends):
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
