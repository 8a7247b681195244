"""The ASGI door: pure ASGI middleware around any application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrysafe.drive.aio import Driver
from retrysafe.drive.tally import Tally
from retrysafe.errors import ConfigurationError, StoreError
from retrysafe.observe import LogObserver, Observer, StoreFailed
from retrysafe.operation.handle import begin_without
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol.duration import Duration, milliseconds
from retrysafe.protocol.flow import Terms, protect, refuse_unready
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.exchange import PROTECTED, Authorizer, Exchange
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.lifespan import Lifespan
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import ANONYMOUS, Connection, Resolver, resolver
from retrysafe.stores.contract import CompletesWithin, Store
from retrysafe.stores.location import open_store


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
        namespace: of this deployment; environments that share a store differ in it (R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts stored responses at rest: 32 random bytes each, or these in hexadecimal or
            base64. The first encrypts, all decrypt (R110). Needs the extra `crypto`.
        authorize: asked with the ASGI connection scope before a replay: may this caller see the stored
            answer now (R60)? Needed where this layer stands before authorisation.
        drain: how long shutting down waits for running handlers.
        observer: told of what happens; the default logs.

    Raises:
        ConfigurationError: with everything that is wrong, at once.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by name
        self,
        app: Application,
        *,
        store: str | Store,
        scope: str | Resolver,
        policy: Policy | None = None,
        routes: Mapping[str, Policy | None] | None = None,
        namespace: str = "default",
        secret: str | bytes | None = None,
        encryption_keys: str | bytes | Sequence[str | bytes] | None = None,
        authorize: Authorizer | None = None,
        drain: Duration = "30s",
        observer: Observer | None = None,
    ) -> None:
        faults = _Faults()
        self.app = app
        self._owns_store = isinstance(store, str)
        self._store: Store = faults.collect(lambda: open_store(store) if isinstance(store, str) else store)
        self._routes: Routes = faults.collect(lambda: Routes(policy or Policy(), routes or {}))
        self._resolver: Resolver = faults.collect(lambda: resolver(scope))
        self._drain_s: float = faults.collect(lambda: _seconds("drain", drain))
        self._encryption: Encryption | None = faults.collect(lambda: _encryption(encryption_keys))
        faults.raise_any()
        if self._routes.transactional and not isinstance(self._store, CompletesWithin):
            raise ConfigurationError([_cannot_complete_within(self._routes.transactional, self._store)])
        self._anonymous = scope == ANONYMOUS
        self._namespace = namespace
        self._given_secret = secret.encode() if isinstance(secret, str) else secret
        self._secret: bytes | None = None
        self._authorizer = authorize
        self._observer = Tally(observer or LogObserver(), self._store)
        self._driver = Driver(self._store, self._observer)
        self._keeper = StoreKeeper(self._store, self._driver.renewals.stop, self._encryption)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await Lifespan(self.app, self.open, self.close).run(scope, receive, send)
            return
        if PROTECTED in scope:  # by a door further out: one is enough, and two over one store would refuse each other
            await self.app(scope, receive, send)
            return
        begin_without()
        route = self._route(scope) if scope["type"] == "http" else None
        if route is None:
            await self.app(scope, receive, send)
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
        )
        exchange = Exchange(
            self.app, scope, receive, send, route, terms, self._resolver, self._authorizer, self._keeper
        )
        flow = protect(exchange.head, terms) if ready else refuse_unready(exchange.head, terms)
        await self._driver.run(flow, exchange)

    def _route(self, scope: Connection) -> Route | None:
        method = scope["method"].upper()
        if method not in self._routes.methods:
            return None
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(root + "/"):  # the application is mounted: its table knows nothing of where
            path = path[len(root) :]
        return self._routes.find(method, path)

    async def open(self) -> None:
        """Make the store ready. A server's lifespan does it; else the first protected request.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        self._secret = await asyncio.to_thread(self._store.open, self._given_secret)
        self._driver.waiting.resume()

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
        await self._driver.drain(self._drain_s)
        await self._observer.flush()
        if self._owns_store:
            self._secret = None
            await asyncio.to_thread(self._store.close)


class _Faults:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def collect(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigurationError as error:
            self._faults.extend(error.faults)

    def raise_any(self) -> None:
        if self._faults:
            raise ConfigurationError(self._faults)


def _cannot_complete_within(entries: Sequence[str], store: Store) -> str:
    return (
        f"transactional=True is set for {', '.join(entries)}, and {store.name} cannot commit a record together with "
        "the work of a handler: name the application's own database in store= (postgresql://, mysql:// or sqlite:///)"
    )


def _encryption(keys: str | bytes | Sequence[str | bytes] | None) -> Encryption | None:
    if keys is None:
        return None
    from retrysafe.encryption import key_ring  # noqa: PLC0415 - needs an extra

    return key_ring(keys)


def _seconds(setting: str, duration: Duration) -> float:
    try:
        return milliseconds(duration) / 1_000
    except (ValueError, AttributeError) as error:
        raise ConfigurationError([f"{setting}: {error}"]) from None
