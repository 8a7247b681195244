"""Doors that are wrong."""

from __future__ import annotations

import asyncio
from typing import Any

from retrysafe.lab.simulate.loop import SimulatedLoop
from retrysafe.lab.simulate.worker import Exchange, request_of
from retrysafe.model import Claim, Response
from retrysafe.protocol import effects
from retrysafe.protocol.effects import Execute, Fate
from retrysafe.protocol.key import Key


class Remembering(Exchange):
    """A door that knows what it executes."""

    effect: Execute | None = None

    async def handle(self, effect: Execute) -> None:
        self.effect = effect
        await super().handle(effect)

    async def unprotected(self) -> None:
        """Run the handler without a record."""
        world = self.worker.world
        line = Claim(b"", b"", 1)
        request = request_of(self.plan.key, self.plan.content)
        effect = Execute(line, Key(self.plan.key), self.plan.scope, request, world.policy)
        await self.take_effect(effect)
        self.send(self.answer_of(effect, 201))


class ReleasesOnFailure(Exchange):
    """A handler that raises has done nothing."""

    async def _conclude_early(self, ended: effects.Ended) -> None:
        is_raised = isinstance(ended, effects.Raised)
        await super()._conclude_early(effects.Raised(Fate.NO_EFFECT) if is_raised else ended)


class ReleasesOnCancel(Exchange):
    """A handler that is cancelled has done nothing."""

    async def _conclude_early(self, ended: effects.Ended) -> None:
        is_cancelled = isinstance(ended, effects.Cancelled)
        await super()._conclude_early(effects.Cancelled(Fate.NO_EFFECT) if is_cancelled else ended)


class DiscardsOnBreak(Exchange):
    """An answer that breaks off leaves no record."""

    async def _conclude_early(self, ended: effects.Ended) -> None:
        self.pieces_sent = False
        await super()._conclude_early(effects.Raised(Fate.NOT_RUN) if isinstance(ended, effects.Raised) else ended)


class TakesTheHandlerAlong(ReleasesOnCancel):
    """The client's leaving cancels the handler."""

    runner: asyncio.Task[Any] | None = None

    async def handle(self, effect: Execute) -> None:
        self.runner = asyncio.current_task()
        await super().handle(effect)

    def leave(self) -> None:
        super().leave()
        if self.runner is not None and self.conclude is not None:
            self.runner.cancel()


class RespondsThenRecords(Exchange):
    """The answer goes out while its record is under way."""

    async def respond(self, response: Response) -> None:
        self.send(response, self.code)
        await super().respond(response)


class LeavesOutTheScope(Exchange):
    """Keys belong to everybody."""

    async def scope(self) -> str | None:
        return "everybody"


class ShowsItToAnybody(Exchange):
    """Nobody is asked before a replay."""

    async def authorize(self) -> bool:
        return True


class LosesFields(Exchange):
    """A replay has another set of fields."""

    def send(self, response: Response, code: str = "", *, unrecorded: bool = False) -> None:
        kept = tuple(field for field in response.headers if field[0] != b"x-order")
        is_replay = response.value(b"idempotent-replayed") is not None
        super().send(
            Response(response.status, kept, response.body) if is_replay else response, code, unrecorded=unrecorded
        )


class DoesNotMark(Exchange):
    """A replay does not say that it is one."""

    def send(self, response: Response, code: str = "", *, unrecorded: bool = False) -> None:
        kept = tuple(field for field in response.headers if field[0].lower() != b"idempotent-replayed")
        super().send(Response(response.status, kept, response.body), code, unrecorded=unrecorded)


class AnswersBeforeItActs(Exchange):
    """The effect is left to a task after the answer."""

    async def take_effect(self, effect: Execute) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.spawn(self.worker.actor, self._later(effect))

    async def _later(self, effect: Execute) -> None:
        await asyncio.sleep(1.0)
        await super().take_effect(effect)
