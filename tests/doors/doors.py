"""Every door under a real server: how it is started, and what cannot be said through it, with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from retrysafe.demo.processes import HOST, await_ready, free_port
from tests.doors.gates import TABLE
from tests.doors.servers import Shop, command, until
from tests.forked import child

_ONCE = {
    "spelling": "a key is an argument as it stands, and whose it is another: there is no field to misread or to forget",
    "answers": "a function has a result, which has no status and no fields",
    "pieces": "a result is whole when it is returned",
    "contents": "arguments are values: nothing is uploaded",
    "routes": "a function has no path and no method",
    "authorize": "whoever calls a function may call it",
    "redirects": "a function does not send its caller elsewhere",
    "files": "as pieces",
    "after": "a function that has returned is over",
    "problems": "what it raised is raised",
    "asgi": "nothing of ASGI is around it",
}
_WSGI = {"asgi": "it is no application of ASGI: a WSGI server has the paths unescaped, and no websockets"}
_FLASK = {**_WSGI, "problems": "Flask makes a page of what a view raised, which is an answer like any other"}
_LITESTAR = {"problems": "Litestar makes an answer of what a handler raised before the door hears of it"}
_DJANGO = {
    "redirects": "its redirect to a path with a slash is for GET alone: it would lose the content",
    "asgi": "Django unescapes paths, and has no websockets",
}
_GATEWAY = {
    "operation": "the handler is another program, which answers with `Idempotency-Effect` instead",
    "problems": "what it raised is its own server's to answer",
    "asgi": "it is a server itself, around which there are no layers; it forwards no websockets",
    "holds": "it opens its store by a URL, so that no test can hold it up there",
}

# The last line of each traceback, and what asyncio says when it is too late for one.
_RAISED = re.compile(r"Traceback \(most recent call last\):\n(?:[ ].*\n|\n)*(\S.*)|(.*never retrieved.*)")
_TOLD = (  # what scenarios cause to be logged, in the words of the handlers and of their frameworks
    "ZeroDivisionError: ",
    "litestar.exceptions.base_exceptions.LitestarException: Exception caught after response started",
    "ValueError: Django can only handle ASGI/HTTP connections, not websocket.",
    "retrysafe.errors.IncompleteResponse: the response was broken off",
)


@dataclass(frozen=True, slots=True)
class Door:
    """A door and the server that it is tried under.

    Attributes:
        server: of `servers.command`.
        application: what it serves; empty for the gateway, which is a server itself.
        environment: of the process.
        cannot: what scenarios may need and there is not, each with its reason.
        same_as: another door, whose code it is; then only what servers differ in is tried.
        keeps_connections: it serves several requests on one connection.
        reads_ahead: contents are read before the door is asked.
    """

    server: str
    application: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    same_as: str = ""
    keeps_connections: bool = True
    reads_ahead: bool = False


_APPS, _BLOCKING, _GLUE = (
    f"tests.doors.{module}" for module in ("apps:application", "wsgi_apps:application", "framework_apps")
)
_PROJECT = "tests.doors.django_apps:application"

DOORS = {
    "asgi": Door("uvicorn", _APPS),
    "asgi-h11": Door("uvicorn with h11", _APPS, same_as="asgi"),
    "asgi-hypercorn": Door("hypercorn", _APPS, same_as="asgi"),
    "asgi-granian": Door("granian", _APPS, same_as="asgi"),
    "starlette": Door("uvicorn", f"{_GLUE}:starlette"),
    "fastapi": Door("uvicorn", f"{_GLUE}:fastapi"),
    "litestar": Door("uvicorn", f"{_GLUE}:litestar", cannot=_LITESTAR),
    "wsgi": Door("waitress", _BLOCKING, cannot=_WSGI, reads_ahead=True),
    "wsgi-gunicorn": Door("gunicorn", _BLOCKING, cannot=_WSGI, same_as="wsgi", keeps_connections=False),
    "wsgi-gthread": Door("gunicorn with threads", _BLOCKING, cannot=_WSGI, same_as="wsgi"),
    "flask": Door("waitress", "tests.doors.flask_apps:application", cannot=_FLASK, reads_ahead=True),
    "django": Door("waitress", _PROJECT, cannot=_DJANGO, reads_ahead=True),
    "django-async": Door("uvicorn", _PROJECT, {"SHOP_ASYNC": "yes"}, _DJANGO, reads_ahead=True),
    "gateway": Door("gateway", cannot=_GATEWAY),
    "once": Door("uvicorn", "tests.doors.once_apps:blocking", cannot=_ONCE),
    "once-async": Door("uvicorn", "tests.doors.once_apps:asynchronous", cannot=_ONCE),
}


class Opened(Shop):
    """The shop behind a door.

    Args:
        door: which.
        place: the folder of its ledger and its gates.
    """

    def __init__(self, door: Door, place: Path) -> None:
        self.door = door
        self.place = place
        self._running = ExitStack()
        self._behind = ExitStack()
        self._starts = 0
        self._upstream = ""
        self._logs: list[Path] = []

    def start(self) -> None:
        """Start it; once more, if it has died."""
        self._starts += 1
        if not self.door.application and not self._upstream:
            self._upstream = self._start("upstream", "uvicorn", "tests.doors.apps:shop", self._behind)
        self._start(f"door-{self._starts}", self.door.server, self.door.application, self._running)

    def _start(self, name: str, server: str, application: str, running: ExitStack) -> str:
        port = free_port()
        module = self._gateway(port) if server == "gateway" else command(server, port, application)
        store = f"sqlite:///{self.place / 'records.db'}"
        environment = {"SHOP_PLACE": str(self.place), "SHOP_STORE": store, **self.door.environment}
        process = running.enter_context(child(name, module, port, self.place, environment))
        await_ready(process, "/ready")
        self._logs.append(process.log)
        self.process, self.port = process, port
        return process.url

    def _gateway(self, port: int) -> tuple[str, ...]:
        """The gateway is told in a file what the other doors are told in Python."""
        lines = [
            f'upstream = "{self._upstream}"', f'listen = "{HOST}:{port}"', 'scope = "header:X-Account"',
            f'store = "sqlite:///{self.place / "records.db"}"', 'authorize = "/allowed"', "[policy]", 'lease = "10s"',
        ]  # fmt: skip
        for route, options in TABLE.items():
            lines.append(f'[routes."{route}"]')
            said = {"enrolled": False} if options is None else options
            lines += [f"{name} = {json.dumps(value)}" for name, value in said.items()]
        (self.place / "gateway.toml").write_text("\n".join(lines))
        return ("retrysafe", "serve", "--config", str(self.place / "gateway.toml"))

    def kill(self) -> None:
        """As by `kill -9`; what is in front of nothing else dies with it."""
        self.process.process.kill()
        self.process.process.wait()
        self._running.close()

    def close(self) -> None:
        """Stop it."""
        with self._behind, self._running:
            pass

    def logged(self) -> str:
        """What its processes have logged."""
        return "".join(log.read_text() for log in self._logs)

    def unexpected(self) -> list[str]:
        """Errors that they have logged and no scenario has caused."""
        raised = [last or late for last, late in _RAISED.findall(self.logged())]
        return [line for line in raised if not line.startswith(_TOLD)]

    def until_logged(self, words: str) -> None:
        """Wait until one of them has logged this."""
        until(lambda: words in self.logged())


@contextmanager
def opened(name: str, place: Path) -> Iterator[Opened]:
    """The shop behind a door, for as long as the context lasts."""
    shop = Opened(DOORS[name], place)
    try:
        shop.start()
        yield shop
    finally:
        shop.close()
