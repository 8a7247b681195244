"""Many hosts that recover, beside clients that retry: each operation is finished once, on real stores."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from retrysafe import Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.model import State
from retrysafe.recovery import Completed, Identity, NotDone, RecordView, StillUnknown
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store
from tests.doors.connections import Connection
from tests.operation.abandoned import KEYS, SECRET, leave, records_of
from tests.stores.postgres_server import schema_of, server

HOSTS, OPERATIONS = 3, 12
LAPSED = Policy(recovery="rerun", lease="50ms")
LAPSED_MANUAL = Policy(lease="50ms")


@pytest.fixture(params=["sqlite", "postgres"])
def connect(request, tmp_path) -> Iterator[Callable[[], Store]]:
    """Makes stores over the same records, one for each host."""
    if request.param == "sqlite":
        yield lambda: open_store(f"sqlite:///{tmp_path / 'records.db'}")
    else:
        url = f"{server().url()}?schema={schema_of(tmp_path)}"
        yield lambda: open_store(url)


class Everybody:
    """Hosts over one set of records, and clients that retry through any of them."""

    def __init__(self, connect: Callable[[], Store], seed: int) -> None:
        self.random = random.Random(seed)
        self.runs: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self.hosts = [self.host(connect()) for _ in range(HOSTS)]

    def host(self, store: Store) -> IdempotencyMiddleware:
        """A door that recovers all the time."""
        app = Starlette(routes=[Route("/{kind}", self.handle, methods=["POST"])])
        return IdempotencyMiddleware(
            app, store=store, scope="header:X-Account", secret=SECRET, encryption_keys=KEYS,
            policy=Policy(recovery="rerun"), routes={"POST /manual": Policy()}, complete_abandoned="50ms",
            reauthenticate=lambda account: Identity(), reconcile=self.reconcile,
        )  # fmt: skip

    async def handle(self, _: Any) -> Any:
        """Count how often each operation runs."""
        self.runs[operation().key] += 1
        await asyncio.sleep(0)
        return JSONResponse({"by": operation().attempt, "token": os.urandom(8).hex()}, 201)

    async def reconcile(self, view: RecordView) -> Completed | NotDone | StillUnknown:
        """What became of it: by its name, half of them happened."""
        await asyncio.sleep(0)
        name = self.names[view.record_id]
        return Completed({"found": name}, 201) if name.endswith("happened") else NotDone()

    async def client(self, path: str, key: str) -> list[bytes]:
        """Retries until it has an answer twice, from whatever host."""
        answers: list[bytes] = []
        async with asyncio.timeout(30):
            while len(answers) < 2:
                host = self.random.choice(self.hosts)
                answer = await Connection(f"POST {path}?q=%31", key=key).run(host)
                if answer.status == 201:
                    answers.append(answer.body)
                else:
                    assert answer.code in ("in-progress", "outcome-unknown")
                    await asyncio.sleep(self.random.uniform(0.01, 0.1))
        return answers


def test_everybody_at_once(connect):
    """Operations that run again, and operations that nobody may run again: one outcome each, and one effect at most."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}: give it to Everybody to replay")  # noqa: T201 - how to replay
    asyncio.run(_everybody(connect, seed))


async def _everybody(connect: Callable[[], Store], seed: int) -> None:
    store = connect()
    store.open(SECRET)
    everybody = Everybody(connect, seed)
    again = [f"again-{number}" for number in range(OPERATIONS)]
    manual = [f"{number}-{what}" for number in range(OPERATIONS) for what in ("happened", "not")]
    for key in again:
        leave(store, "/again", key=key, policy=LAPSED)
    for key in manual:
        left = leave(store, "/manual", key=key, policy=LAPSED_MANUAL, route="POST /manual")
        everybody.names[left._execute.claim.record_id.hex()] = key
    for host in everybody.hosts:
        await host.open()
    work = [everybody.client("/again", key) for key in again[::2]]  # the clients of the others have given up
    work += [everybody.client("/manual", key) for key in manual]
    for answers in await asyncio.gather(*work):
        assert len(set(answers)) == 1
    async with asyncio.timeout(30):
        while set(records_of(store)) != {State.COMPLETED}:  # noqa: ASYNC110 - any host may be the one
            await asyncio.sleep(0.02)
    for host in everybody.hosts:
        await host.close()
    assert everybody.runs == {**dict.fromkeys(again, 1), **dict.fromkeys(manual[1::2], 1)}
    store.close()
