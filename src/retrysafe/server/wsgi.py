"""The WSGI door: middleware around any blocking application."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from retrysafe.drive.sync import Driver
from retrysafe.drive.tally import BlockingTally
from retrysafe.errors import CallerError, StoreError
from retrysafe.model import Head, Response
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
from retrysafe.server.endpoint import Endpoint
from retrysafe.server.environ import Environ, Resolver, path_of, resolver
from retrysafe.server.inquiry import check_path, own_answer, status_route
from retrysafe.server.observed_wsgi import observe
from retrysafe.server.observing import Watcher
from retrysafe.server.recovery import Recovery, RecoveryOnThreads, check_recovery
from retrysafe.server.redrive import Reauthenticate
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import ANONYMOUS
from retrysafe.server.settings import (
    Faults,
    check_completes_within,
    encryption_of,
    every_s,
    only_observes,
    protected_entries,
)
from retrysafe.server.wsgi_exchange import PROTECTED, Application, Authorizer, Exchange, StartResponse, respond
from retrysafe.server.wsgi_redrive import WsgiRedrive
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
        mode: `protect`; or `observe`: whatever policies say, nothing is done to any request, nothing is answered at
            the paths below, and what protection would have done is counted. `Policy` has the same for one route.
        namespace: of this deployment; environments that share a store differ in it (R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts stored responses at rest: 32 random bytes each, or these in hexadecimal or
            base64. The first encrypts, all decrypt (R110). Needs the extra `crypto`.
        authorize: asked with the WSGI environ before a replay: may this caller see the stored answer now
            (R60)? Needed where this layer stands before authorisation.
        status_path: a path at which clients ask what became of a key, by GET and with the key in its header
            (R98); like "/idempotency/requests". Off unless given; then the application does not see it.
        reauthenticate: from an account to the `Identity` in whose name a stored request of it is sent again, or None
            if that is gone. With it, requests of routes whose `recovery` is `rerun` are stored, without credentials;
            so it needs `encryption_keys` (R45).
        reconcile: asked with a `RecordView` about each record whose outcome is unknown; says `Completed`, `NotDone`
            or `StillUnknown`.
        complete_abandoned: about how often each process looks for operations that nobody drives any more, from its
            first protected request on; None: something else does, `retrysafe recover`, say.
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
        mode: str = "protect",
        namespace: str = "default",
        secret: str | bytes | None = None,
        encryption_keys: str | bytes | Sequence[str | bytes] | None = None,
        authorize: Authorizer | None = None,
        status_path: str | None = None,
        reauthenticate: Reauthenticate | None = None,
        reconcile: Reconcile | None = None,
        complete_abandoned: Duration | None = None,
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
        self._status: Route | None = faults.collect(lambda: status_route(status_path, policy or Policy()))
        interval_s: float | None = faults.collect(lambda: every_s(complete_abandoned))
        faults.collect(lambda: check_recovery(scope, reauthenticate, reconcile, encryption_keys, complete_abandoned))
        self._contract_path: str | None = faults.collect(
            lambda: check_path("contract_path", contract_path, "/.well-known/idempotency-contract")
        )
        self._only_observes: bool = faults.collect(lambda: only_observes(mode))
        faults.raise_any()
        check_completes_within(self._routes, self._store)
        if self._only_observes:
            self._status = self._contract_path = None
            _OPEN.add(self)  # no request opens it, and at the end it is to be closed
        self._scope = scope if isinstance(scope, str) else "function"
        self._anonymous = scope == ANONYMOUS
        self._namespace = namespace
        self._given_secret = secret.encode() if isinstance(secret, str) else secret
        self._secret: bytes | None = None
        self._opening = threading.Lock()
        self._authorizer = authorize
        observer = observer or LogObserver()
        self._watcher = Watcher(
            self._store, self._given_secret, namespace, self._encryption, observer, anonymous=self._anonymous
        )
        self._observer = BlockingTally(observer, self._store)
        self._driver = Driver(self._store, self._observer)
        self._begin = partial(
            begin,
            make_steps=partial(Notebook, self._store, self._observer),
            keeper=StoreKeeper(self._store, self._driver.renewals.stop, self._encryption),
        )
        self._reauthenticate = reauthenticate
        self._reconcile = reconcile
        self._recovering = RecoveryOnThreads(self._recovery, interval_s)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if PROTECTED not in environ and (own := self._own_answer(environ)) is not None:
            return respond(start_response, own)
        route = None if PROTECTED in environ else self.route_of(environ)
        if route is None:
            if PROTECTED not in environ:  # a server's thread comes from the request before
                begin_without()
            return self.app(environ, start_response)
        if self.observes(route):
            begin_without()
            return observe(self.app, environ, start_response, route, self._watcher, self._resolver)
        ready = self._secret is not None or self._open_late()
        if ready:
            self._recovering.ensure()
        terms = Terms(
            route.policy,
            self._namespace,
            self._secret or b"",
            os.urandom(16),
            self._anonymous,
            route.entry,
            self._encryption,
            self._reauthenticate is not None,
            (environ["wsgi.url_scheme"], environ.get("SCRIPT_NAME", "")),
            self._contract_path and _mounted_at(environ) + self._contract_path,
        )
        exchange = Exchange(
            self.app, environ, start_response, route, terms, self._begin, self._resolver, self._authorizer
        )
        return exchange.drive(self._driver, self._flow(route, exchange.head, terms, ready=ready))

    def observes(self, route: Route) -> bool:
        """Whether a route is only observed."""
        return self._only_observes or route.policy.mode == "observe"

    def _own_answer(self, environ: Environ) -> Response | None:
        """The answer at a path of the door itself that needs no look at a record; None for every other request."""
        if self._status is None and self._contract_path is None:
            return None
        method, path = environ["REQUEST_METHOD"], path_of(environ)
        return own_answer(method, path, self._status, self._contract_path, self.published)

    def _flow(self, route: Route, head: Head, terms: Terms, *, ready: bool) -> Flow[Answer]:
        if not ready:
            return refuse_unready(head, terms)
        return inquire(head, terms, self._routes.policy_of) if route is self._status else protect(head, terms)

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
        return Published(self._scope, entries, status_path)

    def route_of(self, environ: Environ) -> Route | None:
        """What a request falls under; None lets it pass. Glue of frameworks asks their routers first."""
        method = environ["REQUEST_METHOD"].upper()
        if self._status is not None and path_of(environ) == self._status.entry:
            return self._status
        return self._routes.find(method, path_of(environ)) if method in self._routes.methods else None

    def open(self) -> None:
        """Make the store ready; the first protected request does it. Call it in each process after a fork, not before.

        A door that only observes starts without its store.

        Raises:
            StoreError: it cannot be reached, or must not be used.
        """
        if self._only_observes:
            return
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
        self._recovering.end()
        self._driver.waiting.end()
        self._observer.flush()
        self._watcher.close()
        if self._owns_store:
            self._secret = None
            self._store.close()

    # --- recovery ---------------------------------------------------------------------------------

    @property
    def recovers(self) -> bool:
        """It was told what to do about operations that nobody drives any more, and does not only observe."""
        if self._only_observes:
            return False
        return self._reauthenticate is not None or self._reconcile is not None

    async def recover(self, told: Callable[[Report], None] = lambda _: None) -> Report:
        """Look once for operations that nobody drives any more; handlers run on threads. The door must be open.

        Args:
            told: now and then, with what was done up to then.

        Raises:
            StoreError: the store failed; what was done by then stays so.
            CallerError: the door is not open.
        """
        return await self._recovery().once(told)

    def _recovery(self) -> Recovery:
        if self._secret is None:
            raise CallerError("the door is not open: its store cannot be asked")
        means = Means(self._store, self._namespace, self._secret, self._encryption)
        redrive = WsgiRedrive(
            self.app, self._routes, self._resolver, self._driver, self._begin, self._reauthenticate, means
        )
        return Recovery(redrive, means, self._reconcile, self._observer)


def _mounted_at(environ: Environ) -> str:
    name: str = environ.get("SCRIPT_NAME", "")
    return name.encode("latin-1").decode("utf-8", "replace")


_OPEN: weakref.WeakSet[IdempotencyMiddleware] = weakref.WeakSet()


def _close_all() -> None:
    for door in list(_OPEN):
        door.close()


atexit.register(_close_all)
