"""The application of `apps`, as a blocking one: what a request tells it to do, behind the WSGI door."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from retrysafe import Policy
from retrysafe.operation import current_operation
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.recovery import Identity
from retrysafe.server.environ import Environ
from retrysafe.server.wsgi_exchange import StartResponse
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store
from retrysafe.wsgi import IdempotencyMiddleware
from tests.doors.apps import _POLL_S, GATE_S_MAX, _place, failpoint, note

T = TypeVar("T")


def gate(name: str) -> None:
    """Wait until the gate is open."""
    pause = threading.Event()
    for _ in range(int(GATE_S_MAX / _POLL_S)):
        if not (_place / name).exists():
            return
        pause.wait(_POLL_S)
    raise TimeoutError(name)


# --- handlers -------------------------------------------------------------------------------------


def told(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers as the content of the request says."""
    wish = json.loads(environ["wsgi.input"].read())
    name = wish["name"]
    note(f"begun {name}")
    failpoint("before-effect")
    note(f"effect {name}")
    failpoint("after-effect")
    now = current_operation()
    if now is not None and "say" in wish:
        getattr(now, wish["say"])()
    gate(f"{name}-effect")
    if wish.get("raise") == "before":
        raise ZeroDivisionError(f"before {name}")
    pieces = [piece.encode() * wish.get("times", 1) for piece in wish.get("pieces", [f"order {name}"])]
    if wish.get("operation") and now is not None:
        pieces = [json.dumps({"attempt": now.attempt, "child": now.child_key("charge")}).encode()]
    headers = [(name, value) for name, value in wish.get("headers", [])]
    if wish.get("sized"):
        headers.append(("content-length", str(sum(map(len, pieces)))))
    write = start_response(f"{wish.get('status', 201)} As Told", headers)
    if wish.get("by_write"):
        for piece in pieces:
            write(piece)
        return []
    return _Pieces(wish, pieces)


class _Pieces:
    """A response that is made piece by piece, with something left to do when it is closed."""

    def __init__(self, wish: dict[str, Any], pieces: list[bytes]) -> None:
        self._wish = wish
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        name = self._wish["name"]
        for number, piece in enumerate(self._pieces):
            gate(f"{name}-{number}")
            if self._wish.get("raise") == "between" and number:
                raise ZeroDivisionError(f"between {name}")
            yield piece
        note(f"sent {name}")

    def close(self) -> None:
        gate(f"{self._wish['name']}-after")
        note(f"end {self._wish['name']}")


def _name(environ: Environ) -> str:
    query: str = environ["QUERY_STRING"]
    return parse_qs(query)["name"][0]


def _streamed(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    name = _name(environ)
    note(f"effect {name}")
    start_response("201 Created", [])

    def numbers() -> Iterator[bytes]:
        for number in range(5):
            gate(f"{name}-{number}")
            yield b"%d," % number

    return numbers()


def _threaded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    now = current_operation()
    note(f"effect {_name(environ)}")
    start_response("201 Created", [("content-type", "text/plain")])
    return [now.key.encode() if now is not None else b"unprotected"]


def _size(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    note(f"effect {_name(environ)}")
    content = environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"%d %d" % (len(content), sum(content))]


def _slash(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response(
        "307 Temporary Redirect", [("location", f"/slash/?{environ['QUERY_STRING']}"), ("content-length", "0")]
    )
    return []


def _file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](Path(__file__).open("rb"))  # noqa: SIM115 - closed by the server
    return wrapped


def _ticks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    name = _name(environ)
    start_response("200 OK", [("content-type", "text/event-stream")])

    def ticks() -> Iterator[bytes]:
        for number in range(3):
            gate(f"{name}-{number}")
            yield b"data: %d\n\n" % number

    return ticks()


def _ready(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"ready"]


_HANDLERS = {
    "/streamed": _streamed, "/file": _file, "/threaded": _threaded, "/size": _size, "/slash": _slash,
    "/slash/": _threaded, "/ticks": _ticks, "/ready": _ready,
}  # fmt: skip


def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The handlers."""
    path = environ["PATH_INFO"]
    handler = told if path.endswith("/told") else _HANDLERS[path]
    return handler(environ, start_response)


# --- the door, and what is around it --------------------------------------------------------------


class GatedStore:
    """The store, with a gate and failpoints before and after a record is completed.

    Args:
        inner: the store that does the work.
    """

    name = "gated"

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.open, self.submit, self.close = inner.open, inner.submit, inner.close

    def perform(self, transition: Transition[T]) -> T:
        """As the inner store, unless the test has something in mind."""
        moment = {ClaimIfAbsent: "claim", CompleteIfHeld: "record"}.get(type(transition))
        if moment is None:
            return self.inner.perform(transition)
        failpoint(f"before-{moment}")
        gate(f"before-{moment}")
        answer = self.inner.perform(transition)
        failpoint(f"after-{moment}")
        return answer


def _authorized(environ: Environ) -> bool:
    return environ.get("HTTP_X_REVOKED") != "yes"


def _recovery() -> dict[str, Any]:
    """Settings of a door that sends abandoned requests again, if the test wants that; now and then, or when asked."""
    if "SHOP_RECOVERS" not in os.environ:
        return {}
    return {
        "encryption_keys": "ab" * 32,
        "reauthenticate": lambda account: Identity(headers={"X-Account": account}),
        "complete_abandoned": os.environ["SHOP_RECOVERS"] or None,
    }


_LEASE = os.environ.get("SHOP_LEASE", "10s")

_door = IdempotencyMiddleware(
    shop,
    store=GatedStore(open_store(f"sqlite:///{_place / 'records.db'}")),
    scope="header:X-Account",
    policy=Policy(lease=_LEASE),
    routes={
        "POST /required/told": Policy(required=True), "POST /open/told": None, "PUT /put/{name}/told": Policy(),
        "POST /wait/told": Policy(in_flight="wait", wait="20s", lease=_LEASE),
        "POST /rerun/told": Policy(in_flight="wait", wait="20s", lease=_LEASE, recovery="rerun"),
        "POST /small/told": Policy(request_bytes_max=200), "POST /kept/told": Policy(response_bytes_max=1_000),
    },
    authorize=_authorized,
    status_path="/keys",
    **_recovery(),
)  # fmt: skip


door = _door


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """What servers serve."""
    return _door(environ, _dying(start_response))


def _dying(start_response: StartResponse) -> Callable[..., Any]:
    """The server's, with a failpoint before the first byte of an answer."""

    def starting(*arguments: Any) -> Any:
        failpoint("before-answer")
        return start_response(*arguments)

    return starting
