"""The whole gateway: the front, the door and the upstream, under uvicorn, from start to orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.gateway.config import Address, GatewayConfig
from retrysafe.gateway.forwarding import Rules
from retrysafe.gateway.front import Front
from retrysafe.gateway.health import Health
from retrysafe.server.handling import Application
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store

try:
    import uvicorn

    from retrysafe.gateway.upstream import Upstream
    from retrysafe.gateway.wire import GatewayProtocol
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'the gateway needs {missing.name}: pip install "retrysafe[gateway]"']) from missing

# A proxy in front keeps connections open, commonly for 60 s. The side that opened a connection should be the one
# that ends it, or a request meets a connection that is being closed.
_CLIENT_KEEPALIVE_S = 75

# After the drain: how long the answers to handlers that were cut off may take to reach their clients.
_FAREWELL_S = 2.0

_BACKLOG = 2_048

# New objects until the garbage collector looks at them: more than those of some hundred requests that wait.
_COLLECTED_AFTER = 20_000


class AddressUnavailable(RetrysafeError):
    """The gateway cannot listen where it should."""


def serve(config: GatewayConfig, announce: Callable[[str], None]) -> None:
    """Run the gateway until SIGTERM or SIGINT; a second signal ends the patience with running requests.

    Args:
        config: checked.
        announce: told one line about what was started.

    Raises:
        AddressUnavailable: something else listens there.
        StoreError: the store cannot be reached, or must not be used.
    """
    _log_to_stderr(config.log_level)
    listener = _bind("listen", config.listen)
    health_listener = _bind("health_listen", config.health_listen) if config.health_listen else None
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(config, listener, health_listener, announce))


async def _run(
    config: GatewayConfig,
    listener: socket.socket,
    health_listener: socket.socket | None,
    announce: Callable[[str], None],
) -> None:
    store = open_store(config.store)
    try:
        async with _upstream(config) as upstream:
            door = _door(config, store, upstream)
            await door.open()
            health = Health(store if config.mode == "protect" else None)
            server = _server(Front(door, config.policy.problems_url))
            async with _alongside(health, health_listener):
                _spare_the_collector()
                announce(_summary(config, listener, store))
                serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
                await _until_signals(server, serving, health, door, config.drain_ms / 1_000)
                await door.close()  # handlers that still run are cut off: records unknown, clients told
                await upstream.close()  # and so are requests without a key
                await asyncio.wait({serving}, timeout=_FAREWELL_S)
                serving.cancel()
                with suppress(asyncio.CancelledError):
                    await serving
    finally:
        await asyncio.to_thread(store.close)


@asynccontextmanager
async def opened_doors(config: GatewayConfig) -> AsyncIterator[Sequence[IdempotencyMiddleware]]:
    """The gateway's one door, open and with nothing listening in front of it: for recovery beside running gateways.

    Args:
        config: checked.

    Raises:
        StoreError: the store cannot be reached, or must not be used.
    """
    store = open_store(config.store)
    try:
        async with _upstream(config) as upstream:
            door = _door(replace(config, complete_abandoned=None), store, upstream)
            await door.open()
            yield (door,)
            await door.close()
    finally:
        await asyncio.to_thread(store.close)


def _spare_the_collector() -> None:
    """Let the garbage collector pass over what was started, and look less often.

    What a request leaves behind is no garbage that a collector must find, but it does count objects: with
    many requests waiting it would look all the time, at everything there is, for a tenth of the processor.
    This process is the gateway's own, so its collector is too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, *gc.get_threshold()[1:])


async def _until_signals(
    server: uvicorn.Server, serving: asyncio.Task[None], health: Health, door: IdempotencyMiddleware, drain_s: float
) -> None:
    """Serve. On the first signal accept nothing more, and let run what runs: `drain_s`, or until a second signal."""
    stop, hurry = _signals()
    await _wait(serving, stop)
    health.draining = True
    server.should_exit = True
    door.end_waiting()
    await _wait(serving, hurry, drain_s)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """What the first SIGTERM or SIGINT sets, and what the next one does."""
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return first, second


async def _wait(serving: asyncio.Task[None], event: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until the server has ended, or the event has come, or the time is over."""
    waiting = asyncio.get_running_loop().create_task(event.wait())
    await asyncio.wait({serving, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


@asynccontextmanager
async def _alongside(application: Application, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve another application for as long as the context lasts, if there is a listener for it."""
    if listener is None:
        yield
        return
    server = _server(application)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


# --- the parts ------------------------------------------------------------------------------------


def _upstream(config: GatewayConfig) -> Upstream:
    policies = [config.policy, *(policy for policy in config.routes.values() if policy is not None)]
    scope = config.scope.removeprefix("header:") if config.scope.startswith("header:") else ""
    rules = Rules(
        forwarded=config.forwarded,
        host=config.host,
        keys=frozenset(policy.header_field for policy in policies),
        scope=scope.strip().lower().encode() or None,
        markers=frozenset(policy.replay_field for policy in policies),
    )
    return Upstream(
        config.upstream,
        rules=rules,
        timeout_s=config.upstream_timeout_ms / 1_000,
        connect_timeout_s=config.upstream_connect_timeout_ms / 1_000,
        keepalive_s=config.upstream_keepalive_ms / 1_000,
        problems_url=config.policy.problems_url,
    )


class _Door(IdempotencyMiddleware):
    """A door whose clients meet the problems of a gateway too."""

    is_gateway = True


def _door(config: GatewayConfig, store: Store, upstream: Upstream) -> IdempotencyMiddleware:
    return _Door(
        upstream,
        store=store,
        scope=config.scope,
        policy=config.policy,
        routes=config.routes,
        mode=config.mode,
        namespace=config.namespace,
        secret=config.secret,
        encryption_keys=config.encryption_keys,
        authorize=upstream.authorizer(config.authorize) if config.authorize else None,
        reauthenticate=config.reauthenticate,
        reconcile=config.reconcile,
        complete_abandoned=config.complete_abandoned,
        status_path=config.status_path,
        contract_path=config.contract_path,
        drain="0s",  # waiting for handlers is one with waiting for connections, and done here
    )


class _Server(uvicorn.Server):
    """uvicorn without its own way with signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the gateway, which has more than one server to stop."""
        yield


def _server(application: Application) -> uvicorn.Server:
    settings = uvicorn.Config(
        application,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",  # the door is opened and closed here, where its faults can be told
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_CLIENT_KEEPALIVE_S,
    )
    return _Server(settings)


def _bind(setting: str, address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressUnavailable(
            f"{setting} is {address}, and that cannot be listened on: {error.strerror}; choose another address, "
            "or stop what listens there"
        ) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    server_log = logging.getLogger("uvicorn.error")
    server_log.addFilter(_is_no_cancellation)
    if level != "debug":  # else anybody could fill the log with bytes that are no HTTP
        server_log.setLevel(logging.ERROR)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Requests that are cancelled when the patience is over are no defects, and uvicorn logs them like those."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _summary(config: GatewayConfig, listener: socket.socket, store: Store) -> str:
    """One line that says what runs, and what it promises."""
    policy = config.policy
    host, port = listener.getsockname()[:2]
    routes = f", {len(config.routes)} routes of their own" if config.routes else ""
    return (
        f"retrysafe serves http://{Address(host, port)} for {config.upstream}; store {store.name}, "
        f"scope {config.scope}, namespace {config.namespace}; {' '.join(policy.methods)} with {policy.header}"
        f"{' (required)' if policy.required else ''}{routes}; lease {policy.lease}, lifetime {policy.lifetime}, "
        f"recovery {policy.recovery}: {_guarantee(config)}"
    )


def _guarantee(config: GatewayConfig) -> str:
    """The class of guarantee, in the words of docs/guarantees.md; of the weakest route."""
    policies = [config.policy, *(policy for policy in config.routes.values() if policy is not None)]
    if config.mode == "observe" or all(policy.mode == "observe" for policy in policies):
        return "it observes, and protects nothing"
    if any(policy.recovery == "rerun" for policy in policies):
        return "at least once, one outcome, where recovery is rerun"
    return "at most once, the outcome may be unknown"
