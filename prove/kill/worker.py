"""What runs in a forked process: a real server with a real door, every part of it with its failpoints."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from prove.kill.handlers import Surroundings
from prove.kill.modes import MODES, Mode
from prove.kill.orders import SECRET, Action, Order
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.gateway import app as gateway
from retrysafe.gateway.config import Address, GatewayConfig
from retrysafe.lab.failpoints import Failpoints, point_every_line, pointed, pointed_driver, pointed_store
from retrysafe.lab.ledger import Ledger
from retrysafe.server.handling import Application
from retrysafe.stores.location import open_store

_HELD_S_MAX = 60


def serve(order: Order, listener: socket.socket, control: socket.socket) -> None:
    """Serve until SIGTERM, or until the point comes.

    Args:
        order: what to be.
        listener: to serve at.
        control: a byte goes out when a point is reached where this process is not to die, and one comes back when
            it may go on.
    """
    mode = MODES[order.mode]
    points = Failpoints(_actor(order, control))
    around = Surroundings(points, Ledger(Path(order.ledger)), order)
    if mode.beside is not None and not order.beside:
        _run(mode.beside(around), listener, lifespan="off")
        return
    if order.lines:
        point_every_line(points)
    with pointed_driver(points):
        if mode.handler is None:
            _serve_gateway(order, mode, listener, points)
        else:
            door = IdempotencyMiddleware(
                pointed(mode.handler(around), points, "handler"),
                store=pointed_store(open_store(order.store), points),
                scope="header:X-Account",
                policy=mode.policy,
                secret=SECRET,
            )
            _run(pointed(door, points, "door"), listener, lifespan="on")


def _run(application: Application, listener: socket.socket, lifespan: Any) -> None:
    settings = uvicorn.Config(
        application, lifespan=lifespan, interface="asgi3", ws="none", access_log=False, log_config=None
    )
    uvicorn.Server(settings).run(sockets=[listener])


def _serve_gateway(order: Order, mode: Mode, listener: socket.socket, points: Failpoints) -> None:
    """The gateway as it is, its parts exchanged for the same with failpoints."""
    parts: Any = gateway
    front, door = parts.Front, parts.IdempotencyMiddleware
    parts.open_store = lambda url: pointed_store(open_store(url), points)
    parts._bind = lambda *_: listener
    parts.Front = lambda *settings: pointed(front(*settings), points, "door")
    parts.IdempotencyMiddleware = lambda upstream, **settings: door(pointed(upstream, points, "upstream"), **settings)
    gateway.serve(
        GatewayConfig(
            upstream=f"http://127.0.0.1:{order.beside}",
            store=order.store,
            scope="header:X-Account",
            listen=Address("127.0.0.1", 0),
            secret=SECRET.encode(),
            policy=mode.policy,
        ),
        logging.getLogger("retrysafe").info,
    )


def _actor(order: Order, control: socket.socket) -> Callable[[str], None]:
    """Writes down every point, and does at the one of the order what is to be done there."""
    trace = os.open(order.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def act(point: str) -> None:
        os.write(trace, f"{point}\n".encode())
        if point != order.point:
            return
        match order.action:
            case Action.KILL:  # of this thread, so that it is dead before another statement of it runs
                signal.pthread_kill(threading.get_ident(), signal.SIGKILL)
            case Action.STOP:
                control.send(b"!")
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case Action.STORE:
                control.settimeout(_HELD_S_MAX)
                control.send(b"!")
                control.recv(1)
            case Action.NONE:
                pass

    return act
