"""The WSGI door: middleware around any blocking application."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from retrysafe.drive.sync import Driver
from retrysafe.drive.tally import BlockingTally
from retrysafe.errors import StoreError
from retrysafe.observe import LogObserver, Observer, StoreFailed
from retrysafe.operation.handle import begin, begin_without
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.transaction import StoreKeeper
from retrysafe.protocol.flow import Terms, protect, refuse_unready
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.environ import Environ, Resolver, path_of, resolver
from retrysafe.server.inquiry import check_path, contract_answer
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import ANONYMOUS
from retrysafe.server.settings import Faults, check_completes_within, encryption_of
from retrysafe.server.wsgi_exchange import PROTECTED, Application, Authorizer, Exchange, StartResponse, respond
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store


class IdempotencyMiddleware:
    """Makes the enrolled routes of a WSGI application safe to retry.

    A handler's outcome is durable before the last byte of its response is sent, and a retry gets the same response.
    The handler runs on the server's thread; its lease is renewed on a thread of this door's own. Requests that are
    not enrolled pass.

    Args:
        app: the WSGI application.
        store: where the records are: a URL such as `sqlite:///retrysafe.db`, or a `Store`.
        scope: whose key it is: `"header:NAME"`, `"authorization"`, `"user"` (the server's `REMOTE_USER`),
            `"anonymous"`, or a function of the WSGI environ. There is no default (contract R15-R17).
        policy: for every enrolled route that the table does not name.
        routes: `"METHOD /path/{name}"` to a policy; None takes a route out.
        namespace: of this deployment; environments that share a store differ in it (R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts stored responses at rest: 32 random bytes each, or these in hexadecimal or
            base64. The first encrypts, all decrypt (R110). Needs the extra `crypto`.
        authorize: asked with the WSGI environ before a replay: may this caller see the stored answer now
            (R60)? Needed where this layer stands before authorisation.
        contract_path: a path at which the door says what it promises, as JSON (R82), like
            "/.well-known/idempotency-contract"; problem documents link to it. Off unless given.
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
        contract_path: str | None = None,
        observer: Observer | None = None,
    ) -> None:
        faults = Faults()
        self.app = app
        self._owns_store = isinstance(store, str)
        self._store: Store = faults.collect(lambda: open_store(store) if isinstance(store, str) else store)
        self._routes: Routes = faults.collect(lambda: Routes(policy or Policy(), routes or {}))
        self._resolver: Resolver = faults.collect(lambda: resolver(scope))
        self._encryption: Encryption | None = faults.collect(lambda: encryption_of(encryption_keys))
        self._contract_path: str | None = faults.collect(
            lambda: check_path("contract_path", contract_path, "/.well-known/idempotency-contract")
        )
        faults.raise_any()
        check_completes_within(self._routes, self._store)
        self._scope = scope if isinstance(scope, str) else "function"
        self._anonymous = scope == ANONYMOUS
        self._namespace = namespace
        self._given_secret = secret.encode() if isinstance(secret, str) else secret
        self._secret: bytes | None = None
        self._opening = threading.Lock()
        self._authorizer = authorize
        self._observer = BlockingTally(observer or LogObserver(), self._store)
        self._driver = Driver(self._store, self._observer)
        self._begin = partial(
            begin,
            make_steps=partial(Notebook, self._store, self._observer),
            keeper=StoreKeeper(self._store, self._driver.renewals.stop, self._encryption),
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if self._contract_path is not None and PROTECTED not in environ and path_of(environ) == self._contract_path:
            return respond(start_response, contract_answer(self.published(), environ["REQUEST_METHOD"]))
        route = None if PROTECTED in environ else self.route_of(environ)
        if route is None:
            if PROTECTED not in environ:  # a server's thread comes from the request before
                begin_without()
            return self.app(environ, start_response)
        ready = self._secret is not None or self._open_late()
        terms = Terms(
            route.policy,
            self._namespace,
            self._secret or b"",
            os.urandom(16),
            self._anonymous,
            route.entry,
            self._encryption,
            place=("http", environ.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace")),
            contract_path=self._contract_path,
        )
        exchange = Exchange(
            self.app, environ, start_response, route, terms, self._begin, self._resolver, self._authorizer
        )
        flow = protect(exchange.head, terms) if ready else refuse_unready(exchange.head, terms)
        return exchange.answer(self._driver.run(flow, exchange))

    def published(self) -> Published:
        """What the door promises to clients."""
        return Published(self._scope, self._routes.entries())

    def route_of(self, environ: Environ) -> Route | None:
        """What a request falls under; None lets it pass. Glue of frameworks asks their routers first."""
        method = environ["REQUEST_METHOD"].upper()
        return self._routes.find(method, path_of(environ)) if method in self._routes.methods else None

    def open(self) -> None:
        """Make the store ready; the first protected request does it. Call it in each process after a fork, not before.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        with self._opening:
            if self._secret is None:
                self._secret = self._store.open(self._given_secret)
                self._driver.waiting.resume()
                _OPEN.add(self)

    def _open_late(self) -> bool:
        try:
            self.open()
        except StoreError as error:
            self._observer.notice(StoreFailed("open", str(error)))
            return False
        return True

    def end_waiting(self) -> None:
        """Send away who waits for another request. `close` does it; for servers that stop in steps."""
        self._driver.waiting.end()

    def close(self) -> None:
        """Let the store go; the end of the process does it. The server has ended its handlers before."""
        self._driver.waiting.end()
        self._observer.flush()
        if self._owns_store:
            self._secret = None
            self._store.close()


_OPEN: weakref.WeakSet[IdempotencyMiddleware] = weakref.WeakSet()


def _close_all() -> None:
    for door in list(_OPEN):
        door.close()


atexit.register(_close_all)
