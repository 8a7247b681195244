"""Our own doors around the shop, as processes, and how the verifier gets at all of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from retrysafe.demo.processes import HOST, Child, await_ready, free_port
from retrysafe.lab.mutants.correct import ORIGINS
from retrysafe.lab.mutants.serving import HOOKS, OPERATIONS, ORDER
from retrysafe.verify.options import Given, build
from retrysafe.verify.probe import Run, Settings
from tests.forked import child
from tests.stores import dynamodb_service, mariadb, postgres_server, redis_servers
from tests.verify.shop_app import LEASE_S, LIFETIME_S, STORE

SETTINGS = Settings(width=8, flood=100, samples=30, timeout_s=60, patience_s=60, head_start_s=0.2)
NONE: Mapping[str, str] = {}
_OWN = {
    "slow": f"POST /orders?delay=1500 {ORDER}",
    "outlasting": f"POST /short?delay=3500 {ORDER}",
    "impatient": f"POST /orders?delay=4500 {ORDER}",
}


@contextmanager
def asgi(place: Path) -> Iterator[Run]:
    """The ASGI door over SQLite."""
    with _asgi(place, {}) as run:
        yield run


@contextmanager
def asgi_postgres(place: Path) -> Iterator[Run]:
    """The ASGI door over PostgreSQL."""
    server = postgres_server.PostgresServer()
    try:
        with _asgi(place, {"SHOP_STORE": server.url()}) as run:
            yield run
    finally:
        server.remove()


@contextmanager
def asgi_mysql(place: Path) -> Iterator[Run]:
    """The ASGI door over MariaDB."""
    server = mariadb.Mariadb().start()
    address = server.database("shop")
    login = f"{quote(address.user)}:{quote(address.password)}"
    try:
        with _asgi(place, {"SHOP_STORE": f"mysql://{login}@{address.host}:{address.port}/shop"}) as run:
            yield run
    finally:
        server.remove()


@contextmanager
def asgi_redis(place: Path) -> Iterator[Run]:
    """The ASGI door over Redis, which is given up after a second."""
    with redis_servers.server(place) as server:
        variables = {"SHOP_STORE": f"redis://{server.address}/0?timeout=1s", "SHOP_STORE_PID": str(server.process.pid)}
        with _asgi(place, variables) as run:
            yield run


@contextmanager
def asgi_dynamodb(place: Path) -> Iterator[Run]:
    """The ASGI door over DynamoDB, as moto has it."""
    credentials = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    with dynamodb_service.running() as service:
        url = f"dynamodb://shop-keys?region=eu-central-1&endpoint_url={service.url}"
        with _asgi(place, {"SHOP_STORE": url, **credentials}) as run:
            yield run


@contextmanager
def _asgi(place: Path, variables: Mapping[str, str]) -> Iterator[Run]:
    """Two processes with one store, and a sandbox in the same store."""
    with ExitStack() as running:
        ports = [free_port() for _ in range(3)]
        for name, port in zip(("live", "replica", "sandbox"), ports, strict=True):
            namespace = "sandbox" if name == "sandbox" else "live"
            running.enter_context(_shop(place, name, "protected", port, namespace, variables))
        yield _run(*(f"http://{HOST}:{port}" for port in ports), without=("impatient",), origins=ORIGINS)


@contextmanager
def gateway(place: Path) -> Iterator[Run]:
    """The gateway over SQLite: two with one store, and a sandbox in the same store."""
    with ExitStack() as running:
        upstream = free_port()
        running.enter_context(_shop(place, "upstream", "bare", upstream, ""))
        ports = [free_port() for _ in range(3)]
        for name, port in zip(("live", "replica", "sandbox"), ports, strict=True):
            running.enter_context(_gateway(place, name, port, upstream))
        yield _run(*(f"http://{HOST}:{port}" for port in ports), without=("public",), names_account=True)


@contextmanager
def _shop(  # noqa: PLR0917 - a process has many circumstances
    place: Path, name: str, application: str, port: int, namespace: str, variables: Mapping[str, str] = NONE
) -> Iterator[Child]:
    command = ("hypercorn", "--workers", "0", "--bind", f"{HOST}:{port}", f"tests.verify.shop_app:{application}()")
    environment = {"SHOP_PLACE": str(place), "SHOP_NAMESPACE": namespace, **variables}
    with child(name, ("tests.verify.supervised", *command), port, place, environment) as process:
        await_ready(process, "/lab/ready")
        yield process


@contextmanager
def _gateway(place: Path, name: str, port: int, upstream: int) -> Iterator[Child]:
    settings = place / f"{name}.toml"
    settings.write_text(f"""
upstream = "http://{HOST}:{upstream}"
listen = "{HOST}:{port}"
store = "sqlite:///{place / STORE}"
scope = "header:X-Account-Id"
namespace = "{"sandbox" if name == "sandbox" else "live"}"
authorize = "/orders?reference=none"
upstream_timeout = "4s"
upstream_connect_timeout = "2s"
[policy]
required = true
lease = "{LEASE_S}s"
[routes."POST /short"]
lifetime = "{LIFETIME_S}s"
[routes."DELETE /orders"]
required = false
[routes."POST /plain"]
enrolled = false
[routes."POST /lab/{{name}}"]
enrolled = false
""")
    with child(f"gateway-{name}", ("retrysafe", "serve", "--config", str(settings)), port, place, {}) as process:
        await_ready(process, "/lab/ready")
        yield process


def _run(
    base: str,
    replica: str,
    sandbox: str,
    *,
    without: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    names_account: bool = False,
) -> Run:
    operations = {name: text for name, text in (OPERATIONS | _OWN).items() if name not in {"status", *without}}

    def account(name: str, credential: str) -> tuple[str, ...]:
        named = (f"X-Account-Id: {name}",) if names_account else ()
        return (*named, f"Authorization: Bearer {credential}")

    given = Given(
        operation=f"POST {base}/orders",
        json=ORDER,
        account=account("alice", "alice"),
        other_account=account("bob", "bob"),
        second_credential=account("alice", "alice-2"),
        effects="GET /orders?reference={{unique}} $.total",
        with_=operations,
        hook=HOOKS,
        origin=origins,
        replica=replica,
        sandbox=sandbox,
        lifetime_s=LIFETIME_S,
        lease_s=LEASE_S + 0.5,
        required=True,
        profile="retrysafe",
    )
    return build(given, replace(SETTINGS))
