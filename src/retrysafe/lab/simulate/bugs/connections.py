"""Connections to the store that are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from retrysafe.errors import StoreError
from retrysafe.lab.simulate.bugs.stores import Blind
from retrysafe.lab.simulate.network import START_MS, Connection
from retrysafe.lab.simulate.worker import Worker
from retrysafe.model import Claim, Found, Record, State
from retrysafe.protocol import transitions
from retrysafe.protocol.effects import Transition


class View:
    """A connection with something in between."""

    name = "wrong"

    def __init__(self, connection: Connection, worker: Worker) -> None:
        self.inner = connection
        self.worker = worker
        self.open = connection.open
        self.close = connection.close
        self.perform = connection.perform

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        return self.inner.submit(transition)

    def then(self, future: asyncio.Future[Any], change: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """A future with another answer."""
        changed: asyncio.Future[Any] = self.worker.world.loop.create_future()

        def copy(done: asyncio.Future[Any]) -> None:
            error = done.exception()
            if changed.done():
                return
            if error is not None:
                changed.set_exception(error)
            else:
                changed.set_result(change(done.result()))

        future.add_done_callback(copy)
        return changed


class ChecksThenActs(View):
    """Looks whether there is a record, and then writes one."""

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        if not isinstance(transition, transitions.ClaimIfAbsent):
            return super().submit(transition)
        answer: asyncio.Future[Any] = self.worker.world.loop.create_future()
        self.worker.world.loop.spawn(self.worker.actor, self._claim(transition, answer))
        return answer

    async def _claim(self, claim: transitions.ClaimIfAbsent, answer: asyncio.Future[Any]) -> None:
        try:
            found = await self.inner.submit(transitions.Read(claim.record_id))
            if found is None:
                blind = Blind(claim.record_id, claim.token, claim.fingerprint, claim.lease_ms, claim.forget_after_ms)
                found = await self.inner.submit(blind)
        except StoreError as error:
            if not answer.done():
                answer.set_exception(error)
            return
        if not answer.done():
            answer.set_result(found)


class GoesByItsOwnClock(View):
    """Whether a lease is over is judged by the worker's clock."""

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        if not isinstance(transition, transitions.ClaimIfAbsent):
            return super().submit(transition)
        own_ms = START_MS + int((self.worker.world.loop.time() - 1_000) * 1_000)
        return self.then(super().submit(transition), lambda found: Found(found.record, own_ms))


class SaysDoneTooEarly(View):
    """A completion counts as durable when it is sent."""

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        sent_off = super().submit(transition)
        if not isinstance(transition, transitions.CompleteIfHeld):
            return sent_off
        sent_off.add_done_callback(lambda done: done.exception())
        done: asyncio.Future[Any] = self.worker.world.loop.create_future()
        done.set_result(True)
        return done


class RetriesWithoutToken(View):
    """A completion that is tried again is written whoever holds the record by then, and whatever stands in it."""

    def __init__(self, connection: Connection, worker: Worker) -> None:
        super().__init__(connection, worker)
        self._tried: set[bytes] = set()

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        if isinstance(transition, transitions.CompleteIfHeld):
            record = self.worker.world.server.records.get(transition.claim.record_id)
            is_again = transition.claim.token in self._tried
            self._tried.add(transition.claim.token)
            if is_again and record is not None and (forced := _forced(transition, record)) is not None:
                return self.inner.submit(forced)
        return super().submit(transition)


def _forced(completion: transitions.CompleteIfHeld, record: Record) -> Transition[bool] | None:
    """The completion without regard for the token, in whichever state the record is."""
    record_id = completion.claim.record_id
    if record.state is State.IN_PROGRESS:
        held = Claim(record_id, record.token, record.attempt)
        ends = completion.lifetime_ms, completion.forget_after_ms
        return transitions.CompleteIfHeld(held, completion.response, *ends)
    if record.state is State.COMPLETED and record.response is not None:
        return transitions.ReplaceResponseIfSame(record_id, record.token, record.response, completion.response)
    return None
