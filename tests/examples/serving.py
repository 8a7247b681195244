"""The applications under `examples`, each under a real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from retrysafe.demo.processes import Child, await_ready, child, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 30


@contextmanager
def example(name: str, place: Path, ready: str, *, module: str = "app", **environment: str) -> Iterator[Child]:
    """An application under uvicorn, for as long as the context lasts."""
    port = free_port()
    line = ("uvicorn", "--app-dir", str(EXAMPLES / name), f"{module}:app", "--port", str(port))
    with child(f"{name}-{module}", line, port, place, environment) as process:
        await_ready(process, ready)
        yield process


def kill(server: Child) -> None:
    """As by `kill -9`."""
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(PATIENCE_S)


def post(server: Child, path: str, key: str | None, content: dict[str, Any], account: str = "ann") -> httpx2.Response:
    """One attempt."""
    headers = {"X-Account": account, **({"Idempotency-Key": key} if key else {})}
    return httpx2.post(server.url + path, json=content, headers=headers, timeout=PATIENCE_S)


def get(server: Child, path: str, account: str = "ann") -> Any:
    """What there is."""
    return httpx2.get(server.url + path, headers={"X-Account": account}, timeout=PATIENCE_S).json()
