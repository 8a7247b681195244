"""The setting `IDEMPOTENCY`, read once for each middleware; all that is wrong with it is told at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from retrysafe.django.database import url_of
from retrysafe.django.scope import Resolver, resolver
from retrysafe.errors import ConfigurationError
from retrysafe.observe import LogObserver, Observer
from retrysafe.protocol.policy import OPTIONS, Policy
from retrysafe.protocol.snapshot import Encryption
from retrysafe.server.inquiry import check_path, status_route
from retrysafe.server.recovery import check_recovery
from retrysafe.server.routes import Route, Routes
from retrysafe.server.scope import ANONYMOUS
from retrysafe.server.settings import Faults, check_completes_within, encryption_of, every_s, only_observes, seconds
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store

SETTING = "IDEMPOTENCY"
IN_DATABASE = "database:"

_NAMES = (
    "STORE", "SCOPE", "POLICY", "ROUTES", "MODE", "NAMESPACE", "SECRET", "ENCRYPTION_KEYS", "AUTHORIZE", "OBSERVER",
    "DRAIN", "STATUS_PATH", "CONTRACT_PATH", "REAUTHENTICATE", "RECONCILE", "COMPLETE_ABANDONED",
)  # fmt: skip


_STORES: dict[str, Store] = {}
_MAKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `IDEMPOTENCY` says.

    Attributes:
        store: of the records; the database `default`, unless it says otherwise.
        owns_store: it was made here, from a URL.
        policy: of enrolled routes that no mark and no entry of the table names.
        routes: the table.
        resolver: finds the account.
        anonymous: there are no accounts.
        only_observes: nothing is done to any request.
        namespace: of this deployment.
        secret: that keys are digested with; None if the store keeps its own.
        encryption: of stored responses at rest; None keeps them as they are.
        authorize: asked with the request before a replay; None allows every replay.
        observer: told of what happens.
        drain_s: how long the end of an ASGI process waits for running handlers.
        scope: whose key it is, as it was said; `function` for one of the project's.
        status: the path at which clients ask what became of a key, as a route; None: they cannot.
        contract_path: at which the door says what it promises; None: nowhere.
        reauthenticate: from an account to an `Identity`; with it, requests that may run again are stored.
        reconcile: asked about records whose outcome is unknown.
        every_s: how often each process looks for operations that nobody drives any more; None: it does not.
    """

    store: Store
    owns_store: bool
    policy: Policy
    routes: Routes
    resolver: Resolver
    anonymous: bool
    only_observes: bool
    namespace: str
    secret: bytes | None
    encryption: Encryption | None
    authorize: Any
    observer: Observer
    drain_s: float
    scope: str
    status: Route | None
    contract_path: str | None
    reauthenticate: Any
    reconcile: Any
    every_s: float | None

    def observes(self, policy: Policy) -> bool:
        """Whether a route with this policy is only observed."""
        return self.only_observes or policy.mode == "observe"


def configuration() -> Configuration:
    """What `settings.IDEMPOTENCY` says.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    said = _said()
    faults = Faults()
    if unknown := sorted(set(said) - set(_NAMES)):
        raise ConfigurationError([f"{SETTING} has no entry {name}; it has {', '.join(_NAMES)}" for name in unknown])
    store, scope, secret = said.get("STORE", f"{IN_DATABASE}default"), said.get("SCOPE", "user"), said.get("SECRET")
    policy: Policy = faults.collect(lambda: _policy("POLICY", said.get("POLICY", {}))) or Policy()
    found = Configuration(
        store=faults.collect(lambda: _store(store)),
        owns_store=isinstance(store, str),
        policy=policy,
        routes=faults.collect(lambda: Routes(policy, _table(said.get("ROUTES", {}), policy))),
        resolver=faults.collect(
            lambda: resolver(_imported(scope) if isinstance(scope, str) and "." in scope else scope)
        ),
        anonymous=scope == ANONYMOUS,
        only_observes=faults.collect(lambda: only_observes(said.get("MODE", "protect"))),
        namespace=said.get("NAMESPACE", "default"),
        secret=secret.encode() if isinstance(secret, str) else secret,
        encryption=faults.collect(lambda: encryption_of(said.get("ENCRYPTION_KEYS"))),
        authorize=faults.collect(lambda: _imported(said.get("AUTHORIZE"))),
        observer=faults.collect(lambda: _imported(said.get("OBSERVER"))) or LogObserver(),
        drain_s=faults.collect(lambda: seconds("DRAIN", said.get("DRAIN", "30s"))),
        scope=scope if isinstance(scope, str) and "." not in scope else "function",
        status=faults.collect(lambda: _as_here(lambda: status_route(said.get("STATUS_PATH"), policy))),
        contract_path=faults.collect(
            lambda: check_path("CONTRACT_PATH", said.get("CONTRACT_PATH"), "/.well-known/idempotency-contract")
        ),
        reauthenticate=faults.collect(lambda: _imported(said.get("REAUTHENTICATE"))),
        reconcile=faults.collect(lambda: _imported(said.get("RECONCILE"))),
        every_s=faults.collect(lambda: _as_here(lambda: every_s(said.get("COMPLETE_ABANDONED")))),
    )
    faults.collect(lambda: _as_here(lambda: check_recovery(scope, *(said.get(name) for name in _OF_RECOVERY))))
    faults.raise_any()
    check_completes_within(found.routes, found.store)
    return _observing(found) if found.only_observes else found


def _observing(found: Configuration) -> Configuration:
    """The same for a door that only observes: it answers nothing itself, and recovers nothing."""
    return replace(found, status=None, contract_path=None, reauthenticate=None, reconcile=None, every_s=None)


_AS_ELSEWHERE = re.compile(r"\b(reauthenticate|reconcile|encryption_keys|complete_abandoned|status_path)\b")


def _as_here(make: Callable[[], Any]) -> Any:
    """What is made; what is wrong with it is told by the names that settings have here.

    Raises:
        ConfigurationError: with what is wrong.
    """
    try:
        return make()
    except ConfigurationError as error:
        faults = [_AS_ELSEWHERE.sub(lambda name: name[0].upper(), fault) for fault in error.faults]
        raise ConfigurationError(faults) from None


_OF_RECOVERY = ("REAUTHENTICATE", "RECONCILE", "ENCRYPTION_KEYS", "COMPLETE_ABANDONED")


def records_alias() -> str | None:
    """The alias of the database that the records are in; None if they are elsewhere."""
    store = _said().get("STORE", f"{IN_DATABASE}default")
    return store.removeprefix(IN_DATABASE) if isinstance(store, str) and store.startswith(IN_DATABASE) else None


def _said() -> Mapping[str, Any]:
    said = getattr(settings, SETTING, {})
    if not isinstance(said, Mapping):
        raise ConfigurationError([f"{SETTING} must be a dictionary"])
    return said


def _store(said: Any) -> Store:
    if isinstance(said, str):
        alias = said.removeprefix(IN_DATABASE)
        return _of_url(said if alias == said else url_of(alias))
    if not isinstance(said, Store):
        raise ConfigurationError(['STORE must be "database:ALIAS", the URL of a store, or a Store'])
    return said


def _of_url(url: str) -> Store:
    """The store of this process that a URL names: one for all of its middleware, of which each test client has some."""
    with _MAKING:
        if url not in _STORES:
            _STORES[url] = open_store(url)
        return _STORES[url]


def close_stores() -> None:
    """Let go of every store that was made here. What uses one afterwards opens it again."""
    with _MAKING:
        for store in _STORES.values():
            store.close()


def _table(said: Mapping[str, Any], policy: Policy) -> dict[str, Policy | None]:
    base = {name: getattr(policy, name) for name in OPTIONS}
    faults = Faults()
    table = {entry: faults.collect(partial(_entry, entry, options, base)) for entry, options in said.items()}
    faults.raise_any()
    return table


def _entry(entry: str, options: Any, base: Mapping[str, Any]) -> Policy | None:
    return None if options is None else _policy(f'ROUTES["{entry}"]', options, base)


def _policy(where: str, said: Any, base: Mapping[str, Any] | None = None) -> Policy:
    if isinstance(said, Policy):
        return said
    if not isinstance(said, Mapping) or (unknown := sorted(set(said) - set(OPTIONS))):
        what = f"has no option {', '.join(unknown)}" if isinstance(said, Mapping) else "must be a dictionary of options"
        raise ConfigurationError([f"{where} {what}; those of retrysafe.Policy are"])
    return Policy(**{**(base or {}), **said})


def _imported(said: Any) -> Any:
    if not isinstance(said, str):
        return said
    try:
        return import_string(said)
    except ImportError as error:
        raise ConfigurationError([f'"{said}" names nothing: {error}']) from None
