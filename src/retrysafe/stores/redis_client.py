"""Plans through redis-py: on the caller's thread, and on an event loop where the lean connection does not serve.

It never tries a command a second time by itself: what was sent once is in doubt, and whoever sent it looks
whether it was applied.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar, cast

from retrysafe.errors import StoreError, StoreUnusable
from retrysafe.stores.redis_errors import DEMOTED, in_doubt, refused, unreachable
from retrysafe.stores.redis_place import OVERRIDE, Kind, RedisPlace
from retrysafe.stores.redis_plan import RECORDS_A_PAGE, Call, Keys, Page, Plan, Reads, Step, Wait
from retrysafe.stores.url import lacking

try:
    import redis
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.asyncio.sentinel
    import redis.cluster
    import redis.sentinel
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import MaxConnectionsError, NoScriptError, RedisClusterException, RedisError
    from redis.retry import Retry
except ModuleNotFoundError as missing:
    raise lacking("redis", missing) from missing

T = TypeVar("T")

CONNECTIONS_MAX = 64  # of an event loop; who comes then waits for one

_MAJOR_MIN = 7
_FAILURES = (RedisError, RedisClusterException, OSError)
_NO_EVICTION = "noeviction"


class BlockingClient:
    """Runs plans on the thread of whoever asks. Any number of threads.

    Args:
        place: the servers.
    """

    def __init__(self, place: RedisPlace) -> None:
        self._place = place
        self._connecting = threading.Lock()
        self._made: tuple[Any, list[Any]] | None = None

    def run(self, plan: Plan[T]) -> T:
        """Do a plan.

        Raises:
            StoreError: what it came to.
        """
        client = self._client()
        if not self._place.replicas:
            return self._drive(client, plan)
        try:
            alone = client.client()  # replicas are counted for the writes of one connection
        except _FAILURES as error:
            raise failure_of(self._place.name, error) from error
        with alone:
            return self._drive(alone, plan)

    def check(self) -> None:
        """Look whether these servers may hold records.

        Raises:
            StoreUnusable: they are too old, or forget records when their memory is full.
            StoreUnavailable: they cannot be reached.
        """
        client = self._client()
        where = {"target_nodes": "all"} if self._place.kind is Kind.CLUSTER else {}
        try:
            said = client.execute_command("INFO", **where)
        except _FAILURES as error:
            raise failure_of(self._place.name, error) from error
        for node in [said] if "maxmemory_policy" in said else said.values():
            _check(self._place, node)

    def close(self) -> None:
        """Let go of every connection."""
        with self._connecting:
            made, self._made = self._made, None
        if made is not None:
            for client in (made[0], *made[1]):
                client.close()

    def _client(self) -> Any:
        """The client, which of a cluster has looked at its nodes."""
        with self._connecting:
            if self._made is None:
                try:
                    self._made = _blocking(self._place)
                except _FAILURES as error:
                    raise failure_of(self._place.name, error) from error
            return self._made[0]

    def _drive(self, client: Any, plan: Plan[T]) -> T:
        answer: Any = None
        failure: StoreError | None = None
        try:
            while True:
                step = plan.send(answer) if failure is None else plan.throw(failure)
                answer, failure = self._outcome(client, step)
        except StopIteration as end:
            return cast(T, end.value)

    def _outcome(self, client: Any, step: Step) -> tuple[Any, StoreError | None]:
        try:
            return self._do(client, step), None
        except _FAILURES as error:
            if code_of(error) == DEMOTED and self._place.kind is Kind.SINGLE:
                client.connection_pool.disconnect(inuse_connections=False)
            return None, failure_of(self._place.name, error)

    def _do(self, client: Any, step: Step) -> Any:
        if isinstance(step, Reads):
            return _whole(_pipeline(client, step).execute(raise_on_error=False))
        command, where = _command(client, step)
        try:
            answer = client.execute_command(*command, **where)
        except NoScriptError:
            assert isinstance(step, Call), "only a script can be missing"
            client.execute_command("SCRIPT LOAD", step.script.text)
            answer = client.execute_command(*command)
        return _answer(client, step, answer)


class AsyncClient:
    """Runs the plans of one event loop, each in a task of its own that nobody else can cancel.

    Args:
        place: the servers.
    """

    def __init__(self, place: RedisPlace) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._client, self._sentinels = _asyncio(place)
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: AsyncGenerator[None, None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def run(self, plan: Plan[Any], future: asyncio.Future[Any]) -> None:
        """Begin a plan; the future gets what it comes to."""
        task = self._loop.create_task(self._run(plan, future), name="retrysafe: ask redis")
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            """Leave nobody waiting, not even for a task that was cancelled before its first step."""
            self._tasks.discard(task)
            if not future.done():
                future.set_exception(in_doubt(self._place.name, "the event loop is ending"))

        task.add_done_callback(ended)

    def close(self) -> None:
        """Finish what was begun, then let go of every connection. On the loop's own thread."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._finish(), name="retrysafe: leave redis")

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        for client in (self._client, *self._sentinels):
            await _let_go(client)

    async def _run(self, plan: Plan[Any], future: asyncio.Future[Any]) -> None:
        if self._end is None:
            self._end = self._at_the_end()
            await anext(self._end)
        try:
            async with self._free:
                answer = await self._drive(plan)
        except StoreError as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - who waits must be told
            failure = StoreError(f"an answer that no server gives: {type(error).__name__}")
            failure.__cause__ = error
            future.set_exception(failure)
        else:
            future.set_result(answer)

    async def _drive(self, plan: Plan[Any]) -> Any:
        if not self._place.replicas:
            return await self._drive_through(self._client, plan)
        alone = self._client.client()  # replicas are counted for the writes of one connection
        try:
            await alone.initialize()
        except _FAILURES as error:
            raise failure_of(self._place.name, error) from error
        async with alone:
            return await self._drive_through(alone, plan)

    async def _drive_through(self, client: Any, plan: Plan[Any]) -> Any:
        answer: Any = None
        failure: StoreError | None = None
        try:
            while True:
                step = plan.send(answer) if failure is None else plan.throw(failure)
                answer, failure = await self._outcome(client, step)
        except StopIteration as end:
            return end.value

    async def _outcome(self, client: Any, step: Step) -> tuple[Any, StoreError | None]:
        try:
            return await self._do(client, step), None
        except _FAILURES as error:
            if code_of(error) == DEMOTED and self._place.kind is Kind.SINGLE:
                await client.connection_pool.disconnect(inuse_connections=False)
            return None, failure_of(self._place.name, error)

    async def _do(self, client: Any, step: Step) -> Any:
        if self._place.kind is Kind.CLUSTER:
            await client.initialize()
        if isinstance(step, Reads):
            return _whole(await _pipeline(client, step).execute(raise_on_error=False))
        command, where = _command(client, step)
        try:
            answer = await client.execute_command(*command, **where)
        except NoScriptError:
            assert isinstance(step, Call), "only a script can be missing"
            await client.execute_command("SCRIPT LOAD", step.script.text)
            answer = await client.execute_command(*command)
        return _answer(client, step, answer)

    async def _at_the_end(self) -> AsyncGenerator[None, None]:
        """Event loops close their asynchronous generators as the last thing, when all tasks are over: and this one
        the connections, which would otherwise be left open behind them.
        """
        try:
            yield
        finally:
            if self._closing is not None:  # a loop that ends may have cancelled it in the middle
                await asyncio.wait([self._closing])
            await self._finish()


async def _let_go(client: Any) -> None:
    """Close a client, also one whose closing was cancelled in the middle, which a cluster's own would leave there."""
    if isinstance(client, redis.asyncio.RedisCluster):
        for nodes in ("nodes_cache", "startup_nodes"):
            await client.nodes_manager.aclose(nodes)
    await client.aclose()


# --- steps and their answers ----------------------------------------------------------------------


def _pipeline(client: Any, reads: Reads) -> Any:
    pipeline = client.pipeline(transaction=False)
    for command in reads.commands:
        pipeline.execute_command(*command)
    return pipeline


def _whole(answers: list[Any]) -> list[Any]:
    """All answers, or the first failure."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _command(client: Any, step: Call | Wait | Page) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The command of a step, and the node that it is for if it does not say so itself."""
    match step:
        case Call(script, keys, arguments):
            return ("EVALSHA", script.sha, len(keys), *keys, *arguments), {}
        case Wait(replicas, wait_ms):
            return ("WAIT", replicas, wait_ms), {}
        case Page(pattern, cursor):
            node, position = cursor or (0, 0)
            primaries = _primaries(client)
            where = {"target_nodes": primaries[node]} if primaries else {}
            return ("SCAN", position, "MATCH", pattern, "COUNT", RECORDS_A_PAGE), where


def _answer(client: Any, step: Call | Wait | Page, answer: Any) -> Any:
    if not isinstance(step, Page):
        return answer
    position, keys = answer
    if isinstance(position, dict):  # of a cluster, by node
        (position,) = position.values()
    node = step.cursor[0] if step.cursor else 0
    if position:
        return Keys(keys, (node, position))
    return Keys(keys, (node + 1, 0) if node + 1 < len(_primaries(client)) else None)


def _primaries(client: Any) -> list[Any]:
    """The nodes that have records, in an order that stands; none unless it is a cluster."""
    if not isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return []
    return sorted(client.get_primaries(), key=lambda node: str(node.name))


# --- clients --------------------------------------------------------------------------------------


def _options(place: RedisPlace, retry: Any) -> dict[str, Any]:
    timeout_s = place.timeout_ms / 1_000
    options: dict[str, Any] = {
        "username": place.username,
        "password": place.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "retry": retry,
        "protocol": 2,
    }
    if place.tls is not None:
        options |= {
            "ssl": True,
            "ssl_ca_certs": place.tls.ca,
            "ssl_certfile": place.tls.cert,
            "ssl_keyfile": place.tls.key,
        }
    return options


def _sentinel_options(place: RedisPlace, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "username": place.sentinel_username, "password": place.sentinel_password}


# These modules of redis-py have no types.
_SENTINEL: Any = redis.sentinel
_ASYNC_SENTINEL: Any = redis.asyncio.sentinel
_CLUSTER: Any = redis.cluster

_UNBOUNDED = 1 << 20  # a thread needs one connection, and there are as many threads as there are


def _blocking(place: RedisPlace) -> tuple[Any, list[Any]]:
    """A client, and those of the sentinels that it asks."""
    options = _options(place, Retry(NoBackoff(), 0)) | {"max_connections": _UNBOUNDED}
    match place.kind:
        case Kind.SINGLE:
            ((host, port),) = place.hosts
            return redis.Redis(host=host, port=port, db=place.database, client_name="retrysafe", **options), []
        case Kind.SENTINEL:
            sentinels = _SENTINEL.Sentinel(place.hosts, sentinel_kwargs=_sentinel_options(place, options), **options)
            return sentinels.master_for(place.service, db=place.database, client_name="retrysafe"), sentinels.sentinels
        case Kind.CLUSTER:
            nodes = [_CLUSTER.ClusterNode(host, port) for host, port in place.hosts]
            return redis.RedisCluster(startup_nodes=nodes, **options), []


def _asyncio(place: RedisPlace) -> tuple[Any, list[Any]]:
    """The same for an event loop."""
    options = _options(place, AsyncRetry(NoBackoff(), 0)) | {"max_connections": 2 * CONNECTIONS_MAX}
    match place.kind:
        case Kind.SINGLE:
            ((host, port),) = place.hosts
            return redis.asyncio.Redis(host=host, port=port, db=place.database, client_name="retrysafe", **options), []
        case Kind.SENTINEL:
            sentinels = _ASYNC_SENTINEL.Sentinel(
                list(place.hosts), sentinel_kwargs=_sentinel_options(place, options), **options
            )
            return sentinels.master_for(place.service, db=place.database, client_name="retrysafe"), sentinels.sentinels
        case Kind.CLUSTER:
            nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in place.hosts]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, **options), []


# --- what goes wrong ------------------------------------------------------------------------------


def code_of(error: BaseException) -> str | None:
    """The code of what a server refused; None if it is not the server that said no."""
    return getattr(error, "status_code", None)


def failure_of(name: str, error: Exception) -> StoreError:
    """What an error of redis-py comes to."""
    code = code_of(error)
    failure: StoreError
    if isinstance(error, MaxConnectionsError):
        failure = unreachable(name, "there are too many connections to it")
    elif code is not None and code != "ERR":
        failure = refused(name, code)
    elif isinstance(error, redis.ResponseError):
        failure = refused(name, str(error))
    elif isinstance(error, RedisClusterException):
        failure = unreachable(name, f"{type(error).__name__}: its slots are not served")
    else:
        failure = in_doubt(name, f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _check(place: RedisPlace, said: Mapping[str, Any]) -> None:
    """What a server says of itself must let it hold records."""
    version, policy = str(said["redis_version"]), str(said["maxmemory_policy"])
    if int(version.partition(".")[0]) < _MAJOR_MIN:
        raise StoreUnusable(f"{place.name} is Redis {version}; use Redis {_MAJOR_MIN} or newer, or Valkey")
    if policy != _NO_EVICTION and not place.evicting:
        raise StoreUnusable(
            f"{place.name} has maxmemory-policy {policy}: when its memory is full it forgets records, and what they "
            f"protect runs again. Set it to {_NO_EVICTION}; or, if it may run twice, put {OVERRIDE}=true into the URL"
        )
