"""A worker process: the real driver and the real flow, and a handler whose effect is in a ledger elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from retrysafe.drive.aio import Conclude, Driver
from retrysafe.lab.evidence import Call, Effect
from retrysafe.lab.simulate.loop import Actor, Choices, SimulatedLoop
from retrysafe.lab.simulate.network import Connection, Server
from retrysafe.lab.simulate.scenario import CallPlan, Ends
from retrysafe.model import BytesBody, Head, Headers, Request, Response
from retrysafe.observe import Event
from retrysafe.protocol import answers, effects
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Ended, Execute, Fate, Flow, Outcome
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.policy import Policy
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from retrysafe.value import value

POLICY_FIELD = b"idempotency-key"
PATIENCE_S = 0.5  # of a shutdown
_STATED = {Ends.DECLINES: (Fate.NO_EFFECT, 503), Ends.BUSY: (Fate.RAN, 429), Ends.UNKNOWN: (Fate.UNKNOWN, 500)}
_CODES = {Ends.DECLINES: "stated-no-effect", Ends.UNKNOWN: "stated-unknown"}


class Surroundings(Protocol):
    """What a worker knows of the world that it is in."""

    @property
    def loop(self) -> SimulatedLoop:
        """That everything runs in."""

    @property
    def choices(self) -> Choices:
        """How long things take."""

    @property
    def parts(self) -> Parts:
        """What is simulated."""

    @property
    def server(self) -> Server:
        """The store's, for those who look into it."""

    @property
    def policy(self) -> Policy:
        """Of the route."""

    @property
    def secret(self) -> bytes:
        """That keys are digested with."""

    def terms(self) -> Terms:
        """Of a new request."""

    def exchange(self, worker: Worker, sent: Sent) -> Exchange:
        """A request at the door."""

    def keeps(self, plan: CallPlan, step: str, attempt: int) -> None:
        """A handler learnt that the result of a step is durable."""

    def happen_once(self, effect: Effect, answer: asyncio.Future[int]) -> None:
        """On the other side: an effect, unless it knows the key."""

    def number(self) -> int:
        """A number that was not given before."""

    def happen(self, effect: Effect, done: asyncio.Future[None]) -> None:
        """On the other side: an effect."""

    def runs(self, effect: Execute, plan: CallPlan, node: str) -> int:
        """A handler begins; the number to end it with."""

    def ran(self, place: int) -> None:
        """A handler is over."""

    def answer(self, worker: Worker, sent: Sent, answered: tuple[Response, str, bool]) -> None:
        """An answer sets out for its client."""


class HandlerError(Exception):
    """What a handler raises."""


class Silent:
    """An observer that is not interested."""

    def notice(self, event: Event) -> None:
        """Nothing."""


@lru_cache(maxsize=64)
def request_of(key: str, content: str) -> Request:
    """The request that a client sends."""
    fields = ((POLICY_FIELD, key.encode()), (b"content-type", b"text/plain"))
    return Request(Head("POST", b"/charges", b"", fields), BytesBody(content.encode()))


class Sent:
    """A call as its client sees it."""

    __slots__ = ("answered", "invoked_ns", "left", "number", "plan", "returned_ns", "task", "waiting")

    def __init__(self, number: int, plan: CallPlan, invoked_ns: int) -> None:
        self.number = number
        self.plan = plan
        self.invoked_ns = invoked_ns
        self.returned_ns: int | None = None
        self.answered: tuple[Response, str, bool] | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.left = False

    def evidence(self) -> Call:
        """What the client writes down."""
        plan = self.plan
        base = Call(
            self.number,
            plan.scope,
            plan.key,
            self.invoked_ns,
            plan.content,
            f"n{plan.node}",
            authorized=plan.authorized,
        )
        if self.answered is None or self.returned_ns is None:
            return base
        response, stated, unrecorded = self.answered
        code = stated or _problem_code(response)
        return Call(
            base.id,
            base.scope,
            base.key,
            base.invoked_ns,
            base.fingerprint,
            base.node,
            returned_ns=self.returned_ns,
            status=response.status,
            code=code,
            body=response.body.decode(),
            headers=_digest_of(response.headers),
            replayed=response.value(b"idempotent-replayed") is not None,
            unrecorded=unrecorded or response.value(b"idempotency-status") is not None,
            canaries=() if code else (response.body.decode().split(":")[0],),
            authorized=plan.authorized,
        )


def _problem_code(response: Response) -> str:
    if response.value(b"content-type") != b"application/problem+json":
        return ""
    problem = json.loads(response.body)
    final = problem["code"] != "handler-failed" or not problem["retryable"]
    return str(problem["code"]) if final else "handler-failed-retryable"


def _digest_of(headers: Headers) -> str:
    return ";".join(line.decode() for name, line in headers if name.lower() == b"x-order")


class Worker:
    """One worker process, from its start to its end.

    Args:
        world: that it is in.
        number: of the worker; the one after a restart has the same.
        actor: what runs of it.
        connection: to the store.
    """

    def __init__(self, world: Surroundings, number: int, actor: Actor, connection: Connection) -> None:
        self.world = world
        self.number = number
        self.name = actor.name
        self.actor = actor
        self.connection = connection
        self.driver: Driver = world.parts.driver(world.parts.view(connection, self), Silent())
        self.accepts = True

    def accept(self, sent: Sent) -> None:
        """A request arrives."""
        if self.accepts and self.actor.alive:
            sent.task = self.world.loop.spawn(self.actor, self._serve(sent))

    async def _serve(self, sent: Sent) -> None:
        exchange = self.world.exchange(self, sent)
        request = request_of(sent.plan.key, sent.plan.content)
        try:
            await self.driver.run(self.world.parts.protect(request.head, self.world.terms()), exchange)
        except HandlerError:
            return  # for the server's log

    async def stop(self) -> None:
        """Shut down in order."""
        self.accepts = False
        await self.driver.drain(PATIENCE_S)


class Exchange:
    """One request at a simulated door, which knows nothing of protocols: `drive.aio.Exchange`."""

    route = "*"

    def __init__(self, worker: Worker, sent: Sent) -> None:
        self.worker = worker
        self.sent = sent
        self.plan = sent.plan
        self.muted = False
        self.conclude: Conclude | None = None
        self.fate = Fate.RAN
        self.pieces_sent = False
        self.ready: Response | None = None
        self.code = ""

    async def scope(self) -> str | None:
        """The account."""
        return self.plan.scope

    async def request(self, body_bytes_max: int) -> Request | effects.Unread:  # noqa: ARG002 - none is large here
        """The request; its content came with it."""
        return request_of(self.plan.key, self.plan.content)

    async def authorize(self) -> bool:
        """As it was planned."""
        return self.plan.authorized

    async def departure(self) -> None:
        """Return when the client has gone."""
        if not self.sent.left:
            self.sent.waiting = asyncio.get_running_loop().create_future()
            await self.sent.waiting

    async def execute(self, effect: Execute, conclude: Conclude) -> None:
        """Run the handler to its end; see `server.handling`, which does this for real ones."""
        self.conclude = conclude
        ran = self.worker.world.runs(effect, self.plan, self.worker.name)
        try:
            await self.handle(effect)
        except asyncio.CancelledError:
            await self._conclude_early(effects.Cancelled(self.fate))
            raise
        except HandlerError:
            await self._conclude_early(effects.Raised(self.fate))
            raise
        finally:
            self.worker.world.ran(ran)

    async def handle(self, effect: Execute) -> None:
        """The handler."""
        behaviour, ends = self.plan.behaviour, self.plan.behaviour.ends
        await asyncio.sleep(behaviour.before_s)
        if ends is Ends.RAISES_BEFORE:
            raise HandlerError
        if ends not in (Ends.DECLINES, Ends.BUSY):
            await self.take_effect(effect)
        await asyncio.sleep(behaviour.after_s)
        if ends is Ends.RAISES_AFTER:
            raise HandlerError
        if ends is Ends.BREAKS:
            self.pieces_sent = True
            raise HandlerError
        self.fate, status = _STATED.get(ends, (Fate.RAN, 201))
        self.code = _CODES.get(ends, "")
        await self.respond(self.answer_of(effect, status))

    async def take_effect(self, effect: Execute) -> None:
        """A call to the other side, which writes it into its ledger."""
        world = self.worker.world
        done = world.loop.create_future()
        line = self.effect_of(effect)
        latency_s = world.choices.latency_s(self.worker.actor)
        world.loop.post(world.loop.world, latency_s, world.happen, line, done)
        await done

    def effect_of(self, effect: Execute) -> Effect:
        """What the other side will write down."""
        plan = self.plan
        attempt = effect.claim.attempt
        return Effect(0, plan.scope, plan.key, self.sent.number, self.worker.name, plan.content, attempt)

    def answer_of(self, effect: Execute, status: int) -> Response:  # noqa: ARG002 - for those who look
        """An answer that no other execution gives."""
        number = self.worker.world.number()
        return Response(status, ((b"content-type", b"text/plain"), (b"x-order", b"%d" % number)), self._body(number))

    def _body(self, number: int) -> bytes:
        return f"{self.plan.scope}:{number}".encode()

    async def respond(self, response: Response) -> None:
        """The message that completes the response: it waits for the record."""
        self.ready = response
        answered = effects.Answered(response, whole=True, size=len(response.body), digest=b"", fate=self.fate)
        await self._take_conclude()(self.outcome_of(answered))

    def outcome_of(self, ended: Ended) -> Outcome:
        """What an end of the handler means; more than itself in other modes."""
        return ended

    async def answer(self, answer: answers.Answer) -> None:
        """Send what the flow decided."""
        match answer:
            case answers.Deliver(recorded=recorded) if self.ready is not None:
                self.send(self.ready, self.code, unrecorded=not recorded)
            case answers.Respond(response) if not self.pieces_sent:
                self.send(response)
            case _:
                return  # nothing whole will come

    def send(self, response: Response, code: str = "", *, unrecorded: bool = False) -> None:
        """An answer sets out."""
        if not self.muted:
            self.worker.world.answer(self.worker, self.sent, (response, code, unrecorded))

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.muted = True

    def overdue(self) -> None:
        """It is a handler that does not care."""

    async def _conclude_early(self, ended: Ended) -> None:
        if self.conclude is not None:
            await self._take_conclude()(self.outcome_of(effects.Broken() if self.pieces_sent else ended))

    def _take_conclude(self) -> Conclude:
        conclude, self.conclude = self.conclude, None
        if conclude is None:
            raise AssertionError("an outcome was concluded twice")
        return conclude


def _as_it_is(connection: Connection, worker: Worker) -> Store:  # noqa: ARG001 - others look at it
    return connection


@value
class Parts:
    """What is simulated: the product, or a product in which one part is another.

    Attributes:
        protect: the flow of a request.
        driver: drives it.
        store: makes the store's records from a clock.
        view: what a worker sees of its connection to the store.
        exchange: a request at the door; None is the one of the mode.
    """

    protect: Callable[[Head, Terms], Flow[Answer]] = protect
    driver: Callable[[Any, Any], Driver] = Driver
    store: Callable[[Callable[[], int]], MemoryStore] = MemoryStore
    view: Callable[[Connection, Worker], Store] = _as_it_is
    exchange: Callable[[Worker, Sent], Exchange] | None = None


PRODUCT = Parts()
