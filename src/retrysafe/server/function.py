"""The door of functions: the flow of a request around a call that HTTP has nothing to do with."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from retrysafe.drive import aio, sync
from retrysafe.errors import (
    CallerError,
    ConfigurationError,
    EarlierFailure,
    KeyExpired,
    KeyReused,
    OperationInProgress,
    OutcomeUnknown,
    Refused,
    ResultUnavailable,
    StoreUnavailable,
)
from retrysafe.model import Request, Response
from retrysafe.observe import LogObserver, Observer
from retrysafe.operation.handle import Begin, Operation, begin
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol import answers, effects
from retrysafe.protocol.answers import Ending
from retrysafe.protocol.effects import Answered, Ended, Execute, Fate, Outcome
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.call import Call, Calls, Codec, JsonCodec, Results
from retrysafe.server.named import full_name
from retrysafe.server.settings import Faults, encryption_of
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store

F = TypeVar("F", bound=Callable[..., Any])

_REFUSALS: dict[str, type[Refused]] = {
    "key-reused": KeyReused,
    "key-expired": KeyExpired,
    "outcome-unknown": OutcomeUnknown,
    "replay-unavailable": ResultUnavailable,
    "handler-failed": EarlierFailure,
    "commit-pending": OutcomeUnknown,
}


def once(  # noqa: PLR0913 - each is a setting of its own, by name
    *,
    key: str | Callable[..., str],
    scope: str | Callable[..., str],
    store: str | Store,
    name: str | None = None,
    compare: Sequence[str] | None = None,
    raises: Sequence[type[Exception]] = (),
    not_done: Sequence[type[Exception]] = (),
    codec: Codec | None = None,
    policy: Policy | None = None,
    namespace: str = "default",
    secret: str | bytes | None = None,
    encryption_keys: str | bytes | Sequence[str | bytes] | None = None,
    observer: Observer | None = None,
) -> Callable[[F], F]:
    """Make a function run once for each key: jobs, commands, tools of an agent, blocking or asynchronous.

    A second call with a key gets the result of the first, whatever process it is in; `0`, `""`, `[]` and `None` are
    results. `operation()` inside the function is as in an HTTP handler. Other calls than the first may raise `Refused`:
    `OperationInProgress`, `OutcomeUnknown`, `KeyReused`, `KeyExpired`, `ResultUnavailable`, `EarlierFailure`.

    Args:
        key: of a call: a format over its arguments, `"invoice-{invoice_id}"`, or a function of them.
        scope: whose key it is, the account: a name, or a function of the arguments.
        store: where the records are: a URL such as `sqlite:///jobs.db`, or a `Store`.
        name: under which the function's records stand, so that it may be renamed; its module and name by default.
        compare: names of the arguments that must be the same in each call with a key; None is all of them.
        raises: exceptions that are outcomes: a later call raises them again. Their arguments must be JSON.
        not_done: exceptions after which nothing has happened: a later call runs again.
        codec: of results; JSON by default.
        policy: lease, lifetime, recovery, `in_flight` and the like; what concerns HTTP is not looked at.
        namespace: of this deployment; environments that share a store differ in it (contract R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts results at rest (R110). Needs the extra `crypto`.
        observer: told of what happens; the default logs.

    Raises:
        ConfigurationError: with everything that is wrong, when the function is defined.
    """
    policy = _protecting(policy or Policy())
    faults = Faults()
    opened: Store = faults.collect(lambda: open_store(store) if isinstance(store, str) else store)
    encryption: Encryption | None = faults.collect(lambda: encryption_of(encryption_keys))
    faults.raise_any()
    engine = _Engine(opened, policy, namespace, secret, encryption, observer or LogObserver())
    results = Results(codec or JsonCodec(), raises, policy.response_bytes_max)

    def decorate(function: F) -> F:
        own_name = name or full_name(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError([f"{own_name} yields: it has no result that could be kept; return one"])
        calls = Calls(function, own_name, key, scope, compare)
        door = _Door(engine, function, own_name, results, tuple(not_done))
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def once_async(*arguments: Any, **named: Any) -> Any:
                return await door.run_async(calls.put(arguments, named), arguments, named)

            return once_async  # type: ignore[return-value]  # the same signature

        @functools.wraps(function)
        def once_blocking(*arguments: Any, **named: Any) -> Any:
            return door.run(calls.put(arguments, named), arguments, named)

        return once_blocking  # type: ignore[return-value]  # as above

    return decorate


def _protecting(policy: Policy) -> Policy:
    if policy.mode == "observe":
        raise ConfigurationError(
            ['policy.mode is "observe"; only HTTP requests are observed, and @once always protects']
        )
    return policy


class Renewing(Protocol):
    """What renews claims, in either colour."""

    def stop(self, effect: Execute) -> None:
        """Renew it no further."""


class _Engine:
    """The store of some functions, opened when it is first needed, and the drivers over it."""

    def __init__(  # noqa: PLR0913, PLR0917 - the settings of `once`
        self,
        store: Store,
        policy: Policy,
        namespace: str,
        secret: str | bytes | None,
        encryption: Encryption | None,
        observer: Observer,
    ) -> None:
        self.policy = policy
        self.aio = aio.Driver(store, observer)
        self.sync = sync.Driver(store, observer)
        self._observer = observer
        self._store = store
        self._namespace = namespace
        self._given_secret = secret.encode() if isinstance(secret, str) else secret
        self._encryption = encryption
        self._secret: bytes | None = None
        self._opening = threading.Lock()

    def begin(self, renewals: Renewing) -> Begin:
        """What makes the operations of one colour."""
        keeper = StoreKeeper(self._store, renewals.stop, self._encryption)
        return functools.partial(
            begin, make_steps=functools.partial(Notebook, self._store, self._observer), keeper=keeper
        )

    def open(self) -> None:
        """Make the store ready.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        with self._opening:
            if self._secret is None:
                self._secret = self._store.open(self._given_secret)

    async def open_async(self) -> None:
        """As `open`, beside the event loop."""
        if self._secret is None:
            await asyncio.to_thread(self.open)

    def terms(self, name: str) -> Terms:
        """What holds for one call; the store is open."""
        if self._secret is None:
            raise AssertionError("the store is not open")
        route = name[:255]
        return Terms(
            self.policy, self._namespace, self._secret, os.urandom(16), route=route, encryption=self._encryption
        )


class _Door:
    """One function behind its door."""

    def __init__(
        self,
        engine: _Engine,
        function: Callable[..., Any],
        name: str,
        results: Results,
        not_done: tuple[type[Exception], ...],
    ) -> None:
        self._engine = engine
        self._function = function
        self._name = name
        self.results = results
        self.not_done = not_done

    def run(self, call: Call, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """One call of a blocking function, on this thread."""
        self._engine.open()
        terms = self._engine.terms(self._name)
        exchange = _Exchange(
            self,
            call,
            terms,
            self._engine.begin(self._engine.sync.renewals),
            lambda: self._function(*arguments, **named),
        )
        answer = self._engine.sync.run(protect(call.request.head, terms), exchange)
        return exchange.result_of(answer)

    async def run_async(self, call: Call, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """One call of an asynchronous function; it runs on when its caller is cancelled."""
        await self._engine.open_async()
        terms = self._engine.terms(self._name)
        exchange = _AsyncExchange(
            self,
            call,
            terms,
            self._engine.begin(self._engine.aio.renewals),
            lambda: self._function(*arguments, **named),
        )
        await self._engine.aio.run(protect(call.request.head, terms), exchange)
        return exchange.result()


class _Once:
    """What both colours share."""

    def __init__(self, door: _Door, call: Call, terms: Terms, begin: Begin, work: Callable[[], Any]) -> None:
        self.route = terms.route
        self._door = door
        self._call = call
        self._terms = terms
        self._begin = begin
        self._work = work
        self._done: tuple[Any] | None = None
        self._error: BaseException | None = None

    def outcome_of(self, result: Any, operation: Operation) -> Outcome:
        """What is kept of a result; it is the caller's too, unless the function has recorded another itself."""
        if operation.recorded is not None:
            return operation.outcome(
                Answered(operation.recorded[0], whole=True, size=0, digest=b"", fate=operation.fate)
            )
        try:
            ended = self._door.results.returned(result, operation.fate)
        except Exception as error:  # noqa: BLE001 - the codec's, never one that the function declares: it has run
            self._error = error
            return effects.Raised(operation.fate)
        self._done = (result,)
        return ended

    def outcome_of_error(self, error: BaseException, operation: Operation) -> Outcome:
        """What an exception means for the record; the caller gets it as it is."""
        self._error = error
        return operation.outcome(self._end_by(error, operation))

    def _end_by(self, error: BaseException, operation: Operation) -> Ended:
        if isinstance(error, self._door.results.raises):
            return self._door.results.raised(error, operation.fate)
        if isinstance(error, self._door.not_done):
            return effects.Raised(Fate.NO_EFFECT)
        return effects.Raised(operation.fate) if isinstance(error, Exception) else effects.Cancelled(operation.fate)

    def result_of(self, answer: answers.Answer) -> Any:
        """The caller's result, from what the flow decided.

        Raises:
            Refused: the call was not run, or its result cannot be given.
            StoreUnavailable: the store cannot be asked: it was not run.
            Exception: what the function raised, now or in the first call.
        """
        if isinstance(answer, answers.Deliver):
            if self._error is None and self._done is not None:
                return self._done[0]
        elif isinstance(answer, answers.Respond) and not _is_problem(answer.response):
            return self._door.results.given(answer.response)  # recorded, by this call or another
        if self._error is not None and answer.ending != Ending.CLAIM_LOST:
            raise self._error
        if not isinstance(answer, answers.Respond):
            raise OutcomeUnknown
        raise _refusal(answer.response) from self._error


def _is_problem(response: Response) -> bool:
    return response.value(b"content-type") == b"application/problem+json"


def _refusal(response: Response) -> Exception:
    """The exception for a problem of the engine's."""
    problem = json.loads(response.body)
    code = problem["code"]
    if code == "in-progress":
        return OperationInProgress(problem["retry_after"])
    if code == "store-unavailable":
        return StoreUnavailable("the store of records cannot be reached: the function was not run")
    if code in _REFUSALS:
        return _REFUSALS[code]()
    return CallerError(f"{problem['title']}: {problem['detail']}")


class _Exchange(_Once):
    """One call, for the blocking driver."""

    def scope(self) -> str | None:
        """Whose key it is."""
        return self._call.scope

    def request(self, body_bytes_max: int) -> Request:  # noqa: ARG002 - arguments are in memory already
        """The call."""
        return self._call.request

    def authorize(self) -> bool:
        """Who can call the function may have its result."""
        return True

    def execute(self, effect: Execute) -> Outcome:
        """Run the function, in a context of its own, so that the caller's operation is the caller's again."""
        return contextvars.copy_context().run(self._executed, effect)

    def _executed(self, effect: Execute) -> Outcome:
        operation = self._begin(effect, self._terms)
        try:
            return self.outcome_of(self._work(), operation)
        except BaseException as error:  # noqa: BLE001 - the caller gets it from `result_of`
            return self.outcome_of_error(error, operation)


class _AsyncExchange(_Once):
    """One call, for the driver of asyncio."""

    _answer: answers.Answer | None = None

    async def scope(self) -> str | None:
        """Whose key it is."""
        return self._call.scope

    async def request(self, body_bytes_max: int) -> Request:  # noqa: ARG002 - arguments are in memory already
        """The call."""
        return self._call.request

    async def authorize(self) -> bool:
        """Who can call the function may have its result."""
        return True

    async def departure(self) -> None:
        """A caller leaves by being cancelled, which its own task is told of."""
        await asyncio.get_running_loop().create_future()

    async def execute(self, effect: Execute, conclude: aio.Conclude) -> None:
        """Run the function to its end."""
        operation = self._begin(effect, self._terms)
        work: Coroutine[Any, Any, Any] = self._work()
        try:
            outcome = self.outcome_of(await work, operation)
        except asyncio.CancelledError as error:
            await conclude(self.outcome_of_error(error, operation))
            raise
        except BaseException as error:  # noqa: BLE001 - the caller gets it from `result`
            outcome = self.outcome_of_error(error, operation)
        await conclude(outcome)

    async def answer(self, answer: answers.Answer) -> None:
        """Take what the flow decided."""
        self._answer = answer

    def leave(self) -> None:
        """The caller was cancelled; the function runs on."""

    def overdue(self) -> None:
        """The function is past `execution_max`; nothing can be told to it."""

    def result(self) -> Any:
        """The caller's result."""
        if self._answer is None:
            raise OutcomeUnknown
        return self.result_of(self._answer)
