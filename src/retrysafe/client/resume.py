"""What a crash left in the journal, sent again: the same bytes under the same key (contract R85, R87, R94)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urljoin

from retrysafe.client.attempt import Certainty
from retrysafe.client.entry import Asked, Entry
from retrysafe.client.journal import Journal
from retrysafe.client.protection import Resuming, resuming, write_end
from retrysafe.errors import CallerError, OutcomeUnknown

C = TypeVar("C")  # a client
R = TypeVar("R")  # a response


@dataclass(frozen=True, slots=True)
class Resumed:
    """How an operation of the journal stands after it was resumed.

    Attributes:
        entry: the operation.
        certainty: `SETTLED`, then it is out of the journal; else `UNKNOWN`, then it is still there.
        response: the client's, if an answer came.
        failure: what was raised instead.
        state: what the server said of the key, if it was asked.
    """

    entry: Entry
    certainty: Certainty
    response: Any = field(default=None, repr=False)
    failure: Exception | None = None
    state: str | None = None


_Told = tuple[Any, Exception | None, int, bytes]  # response, or what was raised; status and content
_Step = Generator[Asked, _Told, list[Resumed]]


@dataclass(frozen=True, slots=True)
class Carrier(Generic[C, R]):
    """How a library sends one request as it is, and what its responses say.

    Attributes:
        send: with the client, the request.
        read: status and content of a response.
    """

    send: Callable[[C, Asked], R]
    read: Callable[[R], tuple[int, bytes]]

    def resume(
        self, journal: Journal, client: C, *, headers: Mapping[str, str] | None = None, status_path: str | None = None
    ) -> list[Resumed]:
        """Send again what the journal has and nobody is at work on, each under its own key; settle what is answered.

        Args:
            journal: what a crash left.
            client: a client with a transport of this module, under the profile that the calls were made with.
            headers: for every request, above what was kept: credentials, unless the journal is encrypted and has them.
            status_path: where the server says what became of a key, for those that are too old to be sent again.

        Returns:
            How each stands now. What is not settled stays in the journal: `journal.unsettled()`.
        """
        flow = _flow(journal, headers or {}, status_path)
        told: _Told | None = None
        try:
            while True:
                asked = flow.send(told)  # type: ignore[arg-type] # None starts it
                try:
                    response = self.send(client, asked)
                    told = (response, None, *self.read(response))
                except Exception as failure:  # noqa: BLE001 - each library has its own; it is handed on
                    told = (None, failure, 0, b"")
        except StopIteration as end:
            done: list[Resumed] = end.value
            return done
        finally:
            flow.close()


@dataclass(frozen=True, slots=True)
class AsyncCarrier(Generic[C, R]):
    """The same of a library for asyncio."""

    send: Callable[[C, Asked], Awaitable[R]]
    read: Callable[[R], Awaitable[tuple[int, bytes]]]

    async def resume(
        self, journal: Journal, client: C, *, headers: Mapping[str, str] | None = None, status_path: str | None = None
    ) -> list[Resumed]:
        """As `Carrier.resume`, for clients of asyncio."""
        flow = _flow(journal, headers or {}, status_path)
        told: _Told | None = None
        try:
            while True:
                asked = flow.send(told)  # type: ignore[arg-type] # None starts it
                try:
                    response = await self.send(client, asked)
                    told = (response, None, *await self.read(response))
                except Exception as failure:  # noqa: BLE001 - each library has its own; it is handed on
                    told = (None, failure, 0, b"")
        except StopIteration as end:
            done: list[Resumed] = end.value
            return done
        finally:
            flow.close()


def _flow(journal: Journal, headers: Mapping[str, str], status_path: str | None) -> _Step:
    """Each entry in turn that nobody is at work on. What is asked for is sent and answered by the driver."""
    done: list[Resumed] = []
    for entry in filter(journal.take, journal.unsettled()):
        resumed = yield from _one(journal, entry, headers, status_path)
        done.append(resumed)
    return done


def _one(
    journal: Journal, entry: Entry, headers: Mapping[str, str], status_path: str | None
) -> Generator[Asked, _Told, Resumed]:
    now = Resuming(entry)
    entered = resuming.set(now)
    try:
        response, failure, _, _ = yield _request(entry, headers)
    finally:
        resuming.reset(entered)
        write_end(journal, entry, now.ended)
    if now.ended is None and failure is None:
        raise CallerError("resume() needs a client with a transport of retrysafe: this one sent the call without")
    certainty = Certainty.UNKNOWN if now.ended is None else now.ended.certainty
    if not isinstance(failure, OutcomeUnknown) or status_path is None:
        return Resumed(entry, certainty, response, failure)
    # Its lifetime is over: it must not be sent again. But the server may still say what became of it.
    _, failure, status, content = yield _inquiry(entry, headers, status_path)
    state = _state(content) if failure is None and status == 200 else None
    if state != "completed":
        return Resumed(entry, certainty, failure=failure, state=state)
    journal.settle(entry)
    return Resumed(entry, Certainty.SETTLED, state=state)


def _request(entry: Entry, headers: Mapping[str, str]) -> Asked:
    given = {entry.header.lower(), *(name.lower() for name in headers)}
    kept = tuple((name, line) for name, line in entry.asked.headers if name.lower() not in given)
    fields = (*kept, *headers.items(), (entry.header, entry.key))
    return Asked(entry.asked.method, entry.asked.url, fields, entry.asked.content)


def _inquiry(entry: Entry, headers: Mapping[str, str], status_path: str) -> Asked:
    fields = tuple(
        (name, line) for name, line in _request(entry, headers).headers if not name.lower().startswith("content-")
    )
    return Asked("GET", urljoin(entry.asked.url, status_path), fields, b"")


def _state(content: bytes) -> str | None:
    try:
        state = json.loads(content)["state"]
    except (ValueError, KeyError, TypeError):
        return None
    return state if isinstance(state, str) else None
