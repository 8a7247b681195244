"""One run of a client, on a core of its own, and what proves that it did what it is measured for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench import proof
from bench.cases import Caller
from bench.load import SpoiltError
from bench.servers import ROOT, Server

_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Calls:
    """What a client saw.

    Attributes:
        calls: all that it made, to warm up too.
        requests: of those that were measured.
        elapsed_s: they took together.
        p50_us, p99_us: of a call.
        cpu_us: processor time of the client for each call.
        resident_mib: its memory in the end.
    """

    calls: int
    requests: int
    elapsed_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    resident_mib: float

    @property
    def per_second(self) -> float:
        """Calls, one after the other."""
        return self.requests / self.elapsed_s


def fire(url: str, caller: Caller, *, folder: Path, core: int, seconds: int) -> Calls:
    """Let a client call for so long.

    Args:
        url: of the server.
        caller: the library, and what is with it.
        folder: for its journal.
        core: the only one that it may use.
        seconds: how long it is measured.

    Raises:
        SpoiltError: it failed, or a call did.
    """
    command = ["taskset", "--cpu-list", str(core), sys.executable, "-m", "bench.caller", caller.library, caller.mode]
    command += [f"{url}/charges", str(folder), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=seconds + _PATIENCE_S
    )
    if done.returncode:
        raise SpoiltError(f"{caller.library}, {caller.mode}: {done.stderr[-2_000:]}")
    return Calls(**json.loads(done.stdout))


def prove(server: Server, caller: Caller, seen: Calls) -> None:
    """Each call was one request; with a transport each had a key of its own, and without one none.

    Raises:
        SpoiltError: it is not so.
    """
    keys = 0 if caller.mode == "bare" else seen.calls
    found = (proof.runs(server), _keys(server))
    if found != (seen.calls, keys):
        raise SpoiltError(f"{seen.calls} calls were {found[0]} requests with {found[1]} keys, expected {keys} keys")


def _keys(server: Server) -> int:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/keys")
        return int(connection.getresponse().read())
    finally:
        connection.close()
