"""What stands between a client and the shop: the chaos proxy on a thread of its own, and the shop's ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retrysafe.demo.processes import Child, await_ready, free_port
from retrysafe.faults import ChaosProxy, Fault, Nothing
from tests.doors.servers import command
from tests.forked import child

PATIENCE_S = 30


class Shop:
    """The shop, its folder, and what is in its ledger."""

    def __init__(self, process: Child, place: Path) -> None:
        self.process, self.place, self.port = process, place, process.port

    def lines(self, kind: str) -> list[list[str]]:
        """The words of each line of that kind."""
        ledger = self.place / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(f"{kind} ")]

    def effects(self) -> list[list[str]]:
        """Key and digest of what took effect."""
        return self.lines("effect")

    def keys(self) -> list[str]:
        """The key of each request that arrived."""
        return [words[0] for words in self.lines("seen")]

    def reset(self) -> None:
        """Begin a new page."""
        (self.place / "ledger").unlink(missing_ok=True)


@contextmanager
def shop_in(place: Path) -> Iterator[Shop]:
    """The shop under uvicorn, for as long as the context lasts."""
    place.mkdir(exist_ok=True)
    port = free_port()
    variables = {"SHOP_PLACE": str(place)}
    with child("shop", command("uvicorn", port, "tests.client.shop:application"), port, place, variables) as process:
        await_ready(process, "/ready")
        yield Shop(process, place)


class Network:
    """A proxy whose faults are those of a list, one for each connection, and then none."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()

    @contextmanager
    def faulty(self, port: int, faults: Sequence[Fault]) -> Iterator[ChaosProxy]:
        """A proxy in front of a port."""
        with self.running(port, lambda number: faults[number] if number < len(faults) else Nothing()) as proxy:
            yield proxy

    @contextmanager
    def running(self, port: int, fault: Callable[[int], Fault]) -> Iterator[ChaosProxy]:
        """A proxy in front of a port, with a function that says what each connection meets."""
        proxy = ChaosProxy(f"http://127.0.0.1:{port}", fault)
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), self.loop).result(PATIENCE_S)
        try:
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(), self.loop).result(PATIENCE_S)
