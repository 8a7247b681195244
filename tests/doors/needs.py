"""What scenarios need of a door beyond one request and one answer, and how it is seen whether a door has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.doors.connections import Answer
from tests.doors.doors import DOORS, Opened
from tests.doors.servers import connect, request_bytes, until


def twice(shop: Opened, name: str, target: str = "POST /told", **wish: Any) -> list[Answer]:
    """The first answer, and that of a retry."""
    return [shop.ask(target, key=name, **{"name": name, **wish}) for _ in range(2)]


def _spelling(shop: Opened, name: str) -> bool:
    return [shop.ask(key=key, name=name).replayed for key in (name, f'"{name}"')] == [False, True]


def _answers(shop: Opened, name: str) -> bool:
    return shop.ask(key=name, name=name, status=202).status == 202


def _contents(shop: Opened, name: str) -> bool:
    return shop.ask(f"POST /size?name={name}", key=name, content=b"\1").body == b"1 1"


def _routes(shop: Opened, name: str) -> bool:
    return not any(answer.replayed for answer in twice(shop, name, "POST /open/told"))


def _redirects(shop: Opened, name: str) -> bool:
    return shop.ask(f"POST /slash?name={name}", key=name).status in {307, 308}


def _files(shop: Opened, name: str) -> bool:
    return shop.ask("POST /file", key=name).body.startswith(b'"""')


def _operation(shop: Opened, name: str) -> bool:
    return b"attempt" in shop.ask(key=name, name=name, operation=True).body


def _problems(shop: Opened, name: str) -> bool:
    return shop.ask(key=name, name=name, **{"raise": "before"}).code == "handler-failed"


def _authorize(shop: Opened, name: str) -> bool:
    shop.ask(key=name, name=name)
    return shop.ask(key=name, name=name, fields=[("X-Revoked", "yes")]).status == 403


def _pieces(shop: Opened, name: str) -> bool:
    return _goes_out(shop, b"one", f"{name}-1", key=name, name=name, pieces=["one", "two"])


def _after(shop: Opened, name: str) -> bool:
    return _goes_out(shop, f"order {name}".encode(), f"{name}-after", key=name, name=name, sized=True)


def _goes_out(shop: Opened, wanted: bytes, gate: str, **request: Any) -> bool:
    """Whether these bytes go out while the handler is still at that gate."""
    shop.shut(gate)
    with connect(shop.port) as client:
        client.send(request_bytes(**request))
        goes_out = client.comes(wanted)
        shop.open(gate)
        if not goes_out:
            client.answer()
    return goes_out


def _holds(shop: Opened, name: str) -> bool:
    """Whether the store is at the gate before there is an answer."""
    shop.shut("before-record")
    with connect(shop.port) as client:
        client.send(request_bytes(key=name, name=name, sized=True))
        until(lambda: shop.ledger("came", "before-record") or not client.is_silent())
        holds = client.is_silent()
        shop.open("before-record")
        client.answer()
    return holds


def echoes(shop: Opened, name: str) -> bool:
    """Whether a websocket is opened, echoes, and closes, with a key in its headers."""
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
              ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip
    head = request_bytes("GET /echo", key=name, fields=fields, content=b"")
    with connect(shop.port) as client:
        client.send(head.replace(b"Content-Length: 0\r\n", b""))
        if b" 101 " not in client.received(b"\r\n\r\n"):
            return False
        client.send(b"\x81\x85\0\0\0\0hello")  # one masked text frame
        return bool(client.received(b"\x81\x05hello"))


NEEDS: dict[str, Callable[[Opened, str], bool]] = {
    "spelling": _spelling, "answers": _answers, "contents": _contents, "routes": _routes, "redirects": _redirects,
    "files": _files, "operation": _operation, "problems": _problems, "authorize": _authorize, "pieces": _pieces,
    "after": _after, "holds": _holds, "asgi": echoes,
}  # fmt: skip
_SCENARIOS: dict[str, tuple[frozenset[str], bool]] = {}


def scenario(*needs: str, of_server: bool = False) -> Callable[[Any], Any]:
    """A test that every door is put to.

    Args:
        needs: names of `NEEDS`; doors that cannot do them are left out.
        of_server: servers differ in it.
    """
    assert set(needs) <= set(NEEDS)

    def register(test: Any) -> Any:
        _SCENARIOS[test.__name__] = (frozenset(needs), of_server)
        return test

    return register


def doors_of(test: Any) -> list[str]:
    """The doors that a test is for."""
    needs, of_server = _SCENARIOS[test.__name__]
    return [name for name, door in DOORS.items() if not needs & set(door.cannot) and (of_server or not door.same_as)]
