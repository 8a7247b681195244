"""The application of `apps`, as a blocking one: what a request tells it to do, behind the WSGI door."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from retrysafe import Policy
from retrysafe.operation import current_operation
from retrysafe.recovery import Identity
from retrysafe.server.environ import Environ
from retrysafe.server.wsgi_exchange import StartResponse
from retrysafe.wsgi import IdempotencyMiddleware
from tests.doors.gates import LEASE, failpoint, gate_blocking, note, routes, store

# --- handlers -------------------------------------------------------------------------------------


def answer(wish: dict[str, Any]) -> tuple[int, list[tuple[str, str]], Pieces]:
    """Do what a request tells, and have an effect: status, fields and content of the answer."""
    name = wish["name"]
    note(f"begun {name}")
    failpoint("before-effect")
    note(f"effect {name}")
    failpoint("after-effect")
    now = current_operation()
    if now is not None and "say" in wish:
        getattr(now, wish["say"])()
    gate_blocking(f"{name}-effect")
    if wish.get("raise") == "before":
        raise ZeroDivisionError(f"before {name}")
    pieces = [piece.encode() * wish.get("times", 1) for piece in wish.get("pieces", [f"order {name}"])]
    if wish.get("operation") and now is not None:
        pieces = [json.dumps({"attempt": now.attempt, "child": now.child_key("charge")}).encode()]
    headers = [(name, value) for name, value in wish.get("headers", [])]
    if wish.get("sized"):
        headers.append(("content-length", str(sum(map(len, pieces)))))
    return wish.get("status", 201), headers, Pieces(wish, pieces)


def told(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers as the content of the request says."""
    status, headers, pieces = answer(json.loads(environ["wsgi.input"].read()))
    start_response(f"{status} As Told", headers)
    return pieces


class Pieces:
    """A response that is made piece by piece, with something left to do when it is closed."""

    def __init__(self, wish: dict[str, Any], pieces: list[bytes]) -> None:
        self._wish = wish
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        name = self._wish["name"]
        for number, piece in enumerate(self._pieces):
            gate_blocking(f"{name}-{number}")
            if self._wish.get("raise") == ("between" if number else "first"):
                raise ZeroDivisionError(f"{self._wish['raise']} {name}")
            yield piece
        note(f"sent {name}")

    def close(self) -> None:
        """What is left to do when the answer has been sent."""
        gate_blocking(f"{self._wish['name']}-after")
        note(f"end {self._wish['name']}")


def _name(environ: Environ) -> str:
    query: str = environ["QUERY_STRING"]
    return parse_qs(query)["name"][0]


def numbers(name: str) -> Iterator[bytes]:
    """Five pieces, with a gate before each."""
    for number in range(5):
        gate_blocking(f"{name}-{number}")
        yield b"%d," % number


def ticks(name: str) -> Iterator[bytes]:
    """Three events, in the same way."""
    for number in range(3):
        gate_blocking(f"{name}-{number}")
        yield b"data: %d\n\n" % number


def _streamed(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    note(f"effect {_name(environ)}")
    start_response("201 Created", [])
    return numbers(_name(environ))


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
    start_response("200 OK", [("content-type", "text/event-stream")])
    return ticks(_name(environ))


def _nothing(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [])
    return [b""]


def _ready(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"ready"]


HANDLERS = {
    "/streamed": _streamed, "/file": _file, "/threaded": _threaded, "/size": _size, "/slash": _slash,
    "/slash/": _threaded, "/ticks": _ticks, "/ready": _ready,
}  # fmt: skip


def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The handlers."""
    path = environ["PATH_INFO"]
    handler = told if path.endswith("/told") else HANDLERS.get(path, _nothing)
    return handler(environ, start_response)


# --- the door, and what is around it --------------------------------------------------------------


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


_door = IdempotencyMiddleware(
    shop,
    store=store(),
    scope="header:X-Account",
    policy=Policy(lease=LEASE),
    routes=routes(),
    authorize=_authorized,
    status_path="/keys",
    **_recovery(),
)


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
