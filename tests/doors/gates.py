"""What the applications under test have in common: a ledger, gates, failpoints, a table of routes, and a held store.

Effects go to a ledger outside of the process, and tests hold it up with gates; both are files in the folder that the
environment variable `SHOP_PLACE` names. Who comes to a gate waits for as long as there is a file of the gate's name.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any, TypeVar

from retrysafe import Policy
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.stores.contract import Pending, Store
from retrysafe.stores.location import open_store

T = TypeVar("T")
GATE_S_MAX = 30
_POLL_S = 0.005
PLACE = Path(os.environ.get("SHOP_PLACE", "."))
LEASE = os.environ.get("SHOP_LEASE", "10s")

_WAITS = {"in_flight": "wait", "wait": "20s", "lease": LEASE}
TABLE: dict[str, dict[str, Any] | None] = {
    "POST /required/told": {"required": True}, "POST /open/told": None, "PUT /put/{name}/told": {},
    "POST /wait/told": _WAITS, "POST /rerun/told": {**_WAITS, "recovery": "rerun"},
    "POST /short/told": {"lease": "400ms"},
    "POST /small/told": {"request_bytes_max": 200}, "POST /kept/told": {"response_bytes_max": 1_000},
}  # fmt: skip


def routes() -> dict[str, Policy | None]:
    """The table, for a door that is configured in Python."""
    return {route: None if options is None else Policy(**options) for route, options in TABLE.items()}


def note(line: str) -> None:
    """One line for the ledger, in one write that no other process can split."""
    ledger = os.open(PLACE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{line}\n".encode())
    finally:
        os.close(ledger)


async def gate(name: str) -> None:
    """Wait until the gate is open."""
    async with asyncio.timeout(GATE_S_MAX):
        while (PLACE / name).exists():  # noqa: ASYNC110 - the gate is in the hands of another process
            await asyncio.sleep(_POLL_S)


def gate_blocking(name: str) -> None:
    """The same on a thread."""
    pause = threading.Event()
    for _ in range(int(GATE_S_MAX / _POLL_S)):
        if not (PLACE / name).exists():
            return
        pause.wait(_POLL_S)
    raise TimeoutError(name)


def _come(name: str) -> None:
    """Note who comes to a gate that is shut."""
    if (PLACE / name).exists():
        note(f"came {name}")


def failpoint(name: str) -> None:
    """Die as by `kill -9`, once, if the test has armed this point."""
    try:
        (PLACE / f"armed-{name}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class GatedStore:
    """A store, with a gate and failpoints before and after a record is claimed or completed.

    Args:
        inner: the store that does the work.
    """

    name = "gated"

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.open, self.close = inner.open, inner.close
        self._held: set[asyncio.Task[Any]] = set()

    def perform(self, transition: Transition[T]) -> T:
        """As the inner store, unless the test has something in mind."""
        moment = _moment(transition)
        if moment is None:
            return self.inner.perform(transition)
        failpoint(f"before-{moment}")
        _come(f"before-{moment}")
        gate_blocking(f"before-{moment}")
        answer = self.inner.perform(transition)
        failpoint(f"after-{moment}")
        return answer

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        """The same for an event loop."""
        moment = _moment(transition)
        if moment is None:
            return self.inner.submit(transition)
        pending: Pending[Any] = Pending()
        held = asyncio.get_running_loop().create_task(self._step_by_step(moment, transition, pending))
        self._held.add(held)
        held.add_done_callback(self._held.discard)
        return pending

    async def _step_by_step(self, moment: str, transition: Transition[Any], pending: Pending[Any]) -> None:
        failpoint(f"before-{moment}")
        _come(f"before-{moment}")
        await gate(f"before-{moment}")
        answer = await self.inner.submit(transition)
        failpoint(f"after-{moment}")
        pending.set_result(answer)


def _moment(transition: Transition[Any]) -> str | None:
    return {ClaimIfAbsent: "claim", CompleteIfHeld: "record"}.get(type(transition))


def store() -> GatedStore:
    """The store of this process: a file in the folder, unless `SHOP_STORE` names another."""
    return GatedStore(open_store(os.environ.get("SHOP_STORE", f"sqlite:///{PLACE / 'records.db'}")))
