"""The chaos proxy on its own, for as long as somebody wants it."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.faults import Chance, ChaosProxy, Fault, Nothing, Plan
from retrysafe.faults.fault import to_json


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asked for.

    Attributes:
        to: the server, as HOST:PORT or with a scheme that says its protocol.
        chances: the faults.
        seed: of them.
        listen: HOST:PORT, the port 0 for any.
        as_json: events are JSON.
    """

    to: str
    chances: Sequence[Chance]
    seed: int
    listen: str
    as_json: bool = False

    @property
    def url(self) -> str:
        """The server with its protocol; without one it is HTTP."""
        return self.to if "://" in self.to else f"http://{self.to}"

    @property
    def again(self) -> str:
        """The command that gives the same fault to the exchange of the same number."""
        words = [word for chance in self.chances for word in ("--fault", str(chance))]
        return shlex.join(["retrysafe", "lab", "proxy", "--to", self.to, *words, "--seed", str(self.seed)])


async def run(wanted: Wanted, say: Callable[[str], None]) -> None:
    """Carry connections until SIGINT or SIGTERM, and say what happens to which exchange.

    Raises:
        ConfigurationError: the address cannot be carried, or is not one to listen at.
        RetrysafeError: it cannot be listened there.
    """
    host, port = _address(wanted.listen)
    if any(chance.kind == "deliver-twice" for chance in wanted.chances) and not wanted.url.startswith("http"):
        raise ConfigurationError(
            ["--fault deliver-twice: only a request of HTTP can be delivered on another connection"]
        )

    def tell(number: int, fault: Fault) -> None:
        if wanted.as_json:
            say(json.dumps({"exchange": number, **to_json(fault)}))
        elif not isinstance(fault, Nothing):
            say(f"exchange {number}: {_spoken(fault)}")

    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    proxy = ChaosProxy(wanted.url, Plan(wanted.seed, wanted.chances), host=host, port=port, tell=tell)
    try:
        async with proxy:
            for line in _heading(wanted, proxy):
                say(line)
            await over.wait()
    except OSError as error:
        raise RetrysafeError(f"nothing can listen at {wanted.listen}: {error.strerror}") from error
    say(_sum(wanted, proxy.met))


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError([f"--listen takes HOST:PORT, and {listen!r} is none"])
    return host.strip("[]"), int(port)


def _heading(wanted: Wanted, proxy: ChaosProxy) -> list[str]:
    listens = f"{proxy.host}:{proxy.port}"
    if wanted.as_json:
        faults = [str(chance) for chance in wanted.chances]
        return [json.dumps({"listens": listens, "to": wanted.url, "faults": faults, "seed": wanted.seed})]
    return [
        f"listens  {listens}",
        f"carries  to {wanted.url}",
        f"faults   {', '.join(map(str, wanted.chances))}",
        f"seed     {wanted.seed}; the same again: {wanted.again}",
    ]


def _spoken(fault: Fault) -> str:
    """The fault as a user would write it."""
    members = to_json(fault)
    name = members.pop("fault")
    given = ",".join(f"{value}ms" if member.endswith("_ms") else str(value) for member, value in members.items())
    return f"{name}:{given}" if given else str(name)


def _sum(wanted: Wanted, met: Counter[str]) -> str:
    if wanted.as_json:
        return json.dumps({"exchanges": met.total(), "met": dict(met)})
    kinds = ", ".join(f"{count:,} {name}" for name, count in met.most_common())
    return f"{met.total():,} exchanges{f': {kinds}' if kinds else ''}"
