"""The ASGI door: pure ASGI middleware around any application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from retrysafe.drive.aio import Driver
from retrysafe.drive.tally import Tally
from retrysafe.errors import CallerError, StoreError
from retrysafe.model import Response
from retrysafe.observe import LogObserver, Observer, StoreFailed
from retrysafe.operation.handle import begin, begin_without
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.recovery import Means, Reconcile, Report
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.duration import Duration
from retrysafe.protocol.effects import Flow
from retrysafe.protocol.flow import Terms, protect, refuse_unready
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.protocol.snapshot import Encryption
from retrysafe.protocol.status import inquire
from retrysafe.server.asgi_redrive import AsgiRedrive
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.exchange import PROTECTED, Authorizer, Exchange
from retrysafe.server.handling import Application, Receive, Send, messages_of
from retrysafe.server.inquiry import check_path, own_answer, status_route
from retrysafe.server.lifespan import Lifespan
from retrysafe.server.observed_asgi import observe
from retrysafe.server.observing import Watcher
from retrysafe.server.recovery import Recovery, RecoveryOnALoop, check_recovery
from retrysafe.server.redrive import Reauthenticate
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import ANONYMOUS, Connection, Resolver, resolver
from retrysafe.server.settings import (
    Faults,
    check_completes_within,
    encryption_of,
    every_s,
    only_observes,
    protected_entries,
    seconds,
)
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store

# In the connection scope of a lifespan: a list for the doors that it reaches, by whoever recovers instead of them.
DOORS = "retrysafe.doors"


class IdempotencyMiddleware:
    """Makes the enrolled routes of an ASGI application safe to retry.

    It owns the execution of a request that carries a key: the handler is not cancelled when the client
    leaves, its outcome is durable before the last byte of its response is sent, and a retry gets the
    same response. Requests that are not enrolled, websockets and lifespan pass.

    Args:
        app: the ASGI application.
        store: where the records are: a URL such as `sqlite:///retrysafe.db`, or a `Store`.
        scope: whose key it is: `"header:NAME"`, `"authorization"`, `"user"`, `"anonymous"`, or a function
            of the ASGI connection scope. There is no default (contract R15-R17).
        policy: for every enrolled route that the table does not name.
        routes: `"METHOD /path/{name}"` to a policy; None takes a route out.
        mode: `protect`; or `observe`: whatever policies say, nothing is done to any request, nothing is answered at
            the paths below, and what protection would have done is counted. `Policy` has the same for one route.
        namespace: of this deployment; environments that share a store differ in it (R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts stored responses at rest: 32 random bytes each, or these in hexadecimal or
            base64. The first encrypts, all decrypt (R110). Needs the extra `crypto`.
        reauthenticate: from an account to the `Identity` in whose name a stored request of it is sent again, or None
            if that is gone; may be a coroutine function. With it, requests of routes whose `recovery` is `rerun` are
            stored, without credentials; so it needs `encryption_keys` (R45).
        reconcile: asked with a `RecordView` about each record whose outcome is unknown; says `Completed`, `NotDone`
            or `StillUnknown`; may be a coroutine function.
        complete_abandoned: about how often this process looks for operations that nobody drives any more; None:
            something else does, `retrysafe recover`, say.
        authorize: asked with the ASGI connection scope before a replay: may this caller see the stored
            answer now (R60)? Needed where this layer stands before authorisation.
        status_path: a path at which clients ask what became of a key, by GET and with the key in its header
            (R98); like "/idempotency/requests". Off unless given; then the application does not see it.
        contract_path: a path at which the door says what it promises, as JSON (R82), like
            "/.well-known/idempotency-contract"; problem documents link to it. Off unless given.
        drain: how long shutting down waits for running handlers.
        observer: told of what happens; the default logs.

    Raises:
        ConfigurationError: with everything that is wrong, at once.
    """

    is_gateway: ClassVar[bool] = False

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by name
        self,
        app: Application,
        *,
        store: str | Store,
        scope: str | Resolver,
        policy: Policy | None = None,
        routes: Mapping[str, Policy | None] | None = None,
        mode: str = "protect",
        namespace: str = "default",
        secret: str | bytes | None = None,
        encryption_keys: str | bytes | Sequence[str | bytes] | None = None,
        authorize: Authorizer | None = None,
        status_path: str | None = None,
        contract_path: str | None = None,
        reauthenticate: Reauthenticate | None = None,
        reconcile: Reconcile | None = None,
        complete_abandoned: Duration | None = None,
        drain: Duration = "30s",
        observer: Observer | None = None,
    ) -> None:
        faults = Faults()
        self.app = app
        self._owns_store = isinstance(store, str)
        self._store: Store = faults.collect(lambda: open_store(store) if isinstance(store, str) else store)
        self._routes: Routes = faults.collect(lambda: Routes(policy or Policy(), routes or {}))
        self._resolver: Resolver = faults.collect(lambda: resolver(scope))
        self._drain_s: float = faults.collect(lambda: seconds("drain", drain))
        self._encryption: Encryption | None = faults.collect(lambda: encryption_of(encryption_keys))
        self._status: Route | None = faults.collect(lambda: status_route(status_path, policy or Policy()))
        self._contract_path: str | None = faults.collect(
            lambda: check_path("contract_path", contract_path, "/.well-known/idempotency-contract")
        )
        interval_s: float | None = faults.collect(lambda: every_s(complete_abandoned))
        faults.collect(lambda: check_recovery(scope, reauthenticate, reconcile, encryption_keys, complete_abandoned))
        self._only_observes: bool = faults.collect(lambda: only_observes(mode))
        faults.raise_any()
        check_completes_within(self._routes, self._store)
        if self._only_observes:
            self._status = self._contract_path = None
        self._answers_itself = self._status is not None or self._contract_path is not None
        self._scope = scope if isinstance(scope, str) else "function"
        self._anonymous = scope == ANONYMOUS
        self._namespace = namespace
        self._given_secret = secret.encode() if isinstance(secret, str) else secret
        self._secret: bytes | None = None
        self._authorizer = authorize
        observer = observer or LogObserver()
        self._watcher = Watcher(
            self._store, self._given_secret, namespace, self._encryption, observer, anonymous=self._anonymous
        )
        self._observer = Tally(observer, self._store)
        self._driver = Driver(self._store, self._observer)
        self._begin = partial(
            begin,
            make_steps=partial(Notebook, self._store, self._observer),
            keeper=StoreKeeper(self._store, self._driver.renewals.stop, self._encryption),
        )
        self._reauthenticate = reauthenticate
        self._reconcile = reconcile
        self._surroundings: dict[str, Any] = {}
        self._recovery: Recovery | None = None
        self._recovering = RecoveryOnALoop(interval_s)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            self._take_note(scope)
            await Lifespan(self.app, self.open, self.close).run(scope, receive, send)
            return
        if PROTECTED in scope:  # by a door further out: one is enough, and two over one store would refuse each other
            await self.app(scope, receive, send)
            return
        begin_without()
        is_http = scope["type"] == "http"
        if is_http and self._answers_itself and (own := self._own_answer(scope)) is not None:
            for message in messages_of(own):
                await send(message)
            return
        route = self._route(scope) if is_http else None
        if route is None:
            await self.app(scope, receive, send)
            return
        if self.observes(route):
            await observe(self.app, scope, receive, send, route, self._watcher, self._resolver)
            return
        ready = self._secret is not None or await self._open_late()
        terms = Terms(
            route.policy,
            self._namespace,
            self._secret or b"",
            os.urandom(16),
            self._anonymous,
            route.entry,
            self._encryption,
            self._reauthenticate is not None,
            (scope.get("scheme", "http"), scope.get("root_path", "")),
            self._contract_path and scope.get("root_path", "") + self._contract_path,
            self._authorizer is not None,
        )
        exchange = Exchange(self.app, scope, receive, send, route, terms, self._begin, self._resolver, self._authorizer)
        flow: Flow[Answer]
        if not ready:
            flow = refuse_unready(exchange.head, terms)
        elif route is self._status:
            flow = inquire(exchange.head, terms, self._routes.policy_of)
        else:
            flow = protect(exchange.head, terms)
        await self._driver.run(flow, exchange)

    def observes(self, route: Route) -> bool:
        """Whether a route is only observed."""
        return self._only_observes or route.policy.mode == "observe"

    def _own_answer(self, scope: Connection) -> Response | None:
        """The answer at a path of the door itself that needs no look at a record; None for every other request."""
        return own_answer(scope["method"], _path_of(scope), self._status, self._contract_path, self.published)

    @property
    def own_paths(self) -> list[str]:
        """The paths at which it answers by itself, under where the application is mounted."""
        status_path = None if self._status is None else self._status.entry
        return [path for path in (status_path, self._contract_path) if path is not None]

    @property
    def routes_table(self) -> Routes:
        """The routes table."""
        return self._routes

    @property
    def store(self) -> Store:
        """Where the records are."""
        return self._store

    def route_for(self, method: str, endpoint: Endpoint) -> Route | None:
        """What requests to a handler fall under; None if it is not enrolled."""
        return self._routes.find(method, endpoint.path)

    def published(self) -> Published:
        """What the door promises to clients; of routes that are only observed nothing."""
        status_path = None if self._status is None else self._status.entry
        entries = protected_entries(self._routes.entries(), only_observes=self._only_observes)
        return Published(self._scope, entries, status_path, self.is_gateway)

    def _route(self, scope: Connection) -> Route | None:
        method = scope["method"].upper()
        if self._status is None and method not in self._routes.methods:
            return None
        path: str = _path_of(scope) if scope.get("root_path") else scope["path"]
        if self._status is not None and path == self._status.entry:
            return self._status
        return self._find(method, path, scope)

    def _find(self, method: str, path: str, connection: Connection) -> Route | None:  # noqa: ARG002 - a framework asks it
        """The route of a request that is not for the door itself; None if it is not enrolled."""
        return self._routes.find(method, path)

    async def open(self) -> None:
        """Make the store ready. A server's lifespan does it; else the first protected request.

        A door that only observes starts without its store.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        if self._only_observes:
            return
        self._secret = await asyncio.to_thread(self._store.open, self._given_secret)
        self._driver.waiting.resume()
        self._recovery = recovery = self._make_recovery(self._secret)
        self._recovering.ensure(lambda: recovery)

    async def _open_late(self) -> bool:
        """Open the store for a server without lifespan, or one that was away at start-up; whether that went well."""
        try:
            await self.open()
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))
            return False
        return True

    def end_waiting(self) -> None:
        """Send away who waits for another request. `close` does it; for servers that stop in steps."""
        self._driver.waiting.end()

    async def close(self) -> None:
        """Wait for running handlers as long as `drain` says, then let the store go. A server's lifespan does it."""
        await self._recovering.end()
        await self._driver.drain(self._drain_s)
        await self._observer.flush()
        if self._watcher.has_begun:
            await asyncio.to_thread(self._watcher.close)
        if self._owns_store:
            self._secret = None
            await asyncio.to_thread(self._store.close)

    # --- recovery ---------------------------------------------------------------------------------

    @property
    def recovers(self) -> bool:
        """It was told what to do about operations that nobody drives any more, and does not only observe."""
        if self._only_observes:
            return False
        return self._reauthenticate is not None or self._reconcile is not None

    async def recover(self, told: Callable[[Report], None] = lambda _: None) -> Report:
        """Look once for operations that nobody drives any more. The door must be open.

        Args:
            told: now and then, with what was done up to then.

        Raises:
            StoreError: the store failed; what was done by then stays so.
            CallerError: the door is not open.
        """
        if self._recovery is None:
            raise CallerError("the door is not open: its store cannot be asked")
        return await self._recovery.once(told)

    def _make_recovery(self, secret: bytes) -> Recovery:
        means = Means(self._store, self._namespace, secret, self._encryption)
        redrive = AsgiRedrive(
            self.app,
            self._routes,
            self._find,
            self._resolver,
            self._driver,
            self._begin,
            self._reauthenticate,
            means,
            self._surroundings,
        )
        return Recovery(redrive, means, self._reconcile, self._observer)

    def _take_note(self, lifespan: Connection) -> None:
        """What each request of this server has in its connection scope; and whether somebody else recovers."""
        self._surroundings = {name: item for name, item in lifespan.items() if name not in ("type", "asgi", DOORS)}
        if DOORS in lifespan:
            self._recovering.never()
            lifespan[DOORS].append(self)


def _path_of(scope: Connection) -> str:
    path: str = scope["path"]
    root = scope.get("root_path", "")
    if root and path.startswith(root + "/"):  # the application is mounted: its table knows nothing of where
        return path[len(root) :]
    return path
