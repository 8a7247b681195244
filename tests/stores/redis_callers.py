"""The three ways in which a process talks to a single server, each with the same few words for the tests."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from retrysafe.model import Claim
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, Read
from retrysafe.stores.redis import RedisStore
from retrysafe.stores.redis_place import place_of
from retrysafe.testing.subject import FINGERPRINT, KEEP_MS, LEASE_MS, token

T = TypeVar("T")

WAYS = ("blocking", "lean", "redis-py")


class Caller:
    """A store, used in one way.

    Args:
        way: one of `WAYS`.
        url: of the server.
    """

    def __init__(self, way: str, url: str) -> None:
        client = {"lean": "lean", "redis-py": "redis-py"}.get(way)
        query = f"{'&' if '?' in url else '?'}client={client}" if client else ""
        self.store = RedisStore(place_of(url + query))
        self._runner = None if way == "blocking" else asyncio.Runner()

    def do(self, transition: Transition[Any]) -> Any:
        """One transition."""
        if self._runner is None:
            return self.store.perform(transition)
        return self._runner.run(self._submit(transition))

    def warm_up(self) -> None:
        """Let the server have the scripts, so that the next answer is that of the transition itself."""
        claim = claiming()
        self.do(claim)
        self.do(CompleteIfHeld(claim_of(claim), b"", 1, 1))
        self.do(Read(claim.record_id))

    def together(self, transitions: Sequence[Transition[Any]]) -> list[Any]:
        """All at once, to their answers or errors."""

        async def run() -> list[Any]:
            return await asyncio.gather(*map(self.store.submit, transitions), return_exceptions=True)

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """On the caller's event loop."""
        assert self._runner is not None, "for event loops"
        return self._runner.run(coroutine)

    async def _submit(self, transition: Transition[Any]) -> Any:
        return await self.store.submit(transition)

    def close(self) -> None:
        """Let go of everything."""
        self.store.close()
        if self._runner is not None:
            self._runner.close()


@contextmanager
def caller(way: str, url: str, *, opened: bool = True) -> Iterator[Caller]:
    """A caller for as long as it is needed."""
    one = Caller(way, url)
    try:
        if opened:
            one.store.open()
        yield one
    finally:
        one.close()


def claiming() -> ClaimIfAbsent:
    """A first claim on a record of its own."""
    return ClaimIfAbsent(secrets.token_bytes(32), token(), FINGERPRINT, LEASE_MS, KEEP_MS)


def claim_of(claim: ClaimIfAbsent) -> Claim:
    """What its owner holds."""
    return Claim(claim.record_id, claim.token, 1)
