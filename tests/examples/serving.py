"""The applications under `examples`, each under a real server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from retrysafe.demo.processes import Child, await_ready, free_port
from tests.forked import child
from tests.gateway.processes import environment as own_environment

ROOT = Path(__file__).parents[2]
EXAMPLES, SOURCE = ROOT / "examples", ROOT / "src"
PATIENCE_S = 30


@contextmanager
def example(name: str, place: Path, ready: str, *, module: str = "app", **environment: str) -> Iterator[Child]:
    """An application of an example under uvicorn, by itself so that it can be killed."""
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


@contextmanager
def started(name: str, place: Path, ready: str, **environment: str) -> Iterator[Child]:
    """An example started by its one command, in an empty folder and on free ports, for as long as the context lasts."""
    ports = {port: str(free_port()) for port in ("PORT", "PROVIDER_PORT", "PARCELS_PORT")}
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(SOURCE)}
    log = place / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["sh", EXAMPLES / name / "start.sh"],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=place,
            env={**own_environment(), **paths, **ports, **environment},
        )  # fmt: skip
    server = Child(name, int(ports["PORT"]), process, log)
    try:
        await_ready(server, ready)
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def suite(name: str, place: Path, **ports: int) -> Path:
    """The suite of an example, for the ports that it is at here: `p8000=` is where 8000 is."""
    text = (EXAMPLES / name / "verify.toml").read_text("utf-8")
    for port, here in ports.items():
        text = text.replace(f"127.0.0.1:{port.removeprefix('p')}", f"127.0.0.1:{here}")
    written = place / "verify.toml"
    written.write_text(text, "utf-8")
    return written


def node() -> None:
    """See to it that there is Node. Where it is not, root installs it with apt-get."""
    if shutil.which("node") is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError("this example needs Node: install it, on Debian by apt-get install nodejs")
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "nodejs"]):
        subprocess.run(["apt-get", "-qq", *command], check=True, capture_output=True)
