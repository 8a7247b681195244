"""An application whose handler takes two steps, in a process of its own that dies where a test wants it to.

`SHOP_PLACE` names its folder, `SHOP_STORE` its store if that is not a file there, `DOWNSTREAM` the port of the other
side. The path says how the second step is taken: `/POLICY/DEDUP`. A file `armed-MOMENT` in the folder makes the process
die at that moment, once.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from retrysafe import Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.operation import NOT_DONE, StepCall
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import CompleteIfHeld, KeepJournalIfHeld
from retrysafe.recovery import Completed, Identity, NotDone, RecordView, StillUnknown
from retrysafe.stores.contract import Pending, Store
from retrysafe.stores.location import open_store

PLACE = Path(os.environ.get("SHOP_PLACE", "."))
STORE = os.environ.get("SHOP_STORE") or f"sqlite:///{PLACE / 'records.db'}"
KEYS = "ab" * 32
LEASE = "400ms"


def failpoint(moment: str) -> None:
    """Die as by `kill -9`, once, if the test has armed this point."""
    try:
        (PLACE / f"armed-{moment}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _post(path: str, call: StepCall) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["DOWNSTREAM"]), timeout=10)
    try:
        connection.request("POST", path, call.input, {"Idempotency-Key": call.key})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


async def _call(path: str, call: StepCall) -> Any:
    answer = await asyncio.to_thread(_post, path, call)
    if b"charge" in (call.input or b""):
        failpoint("called")
    return answer


async def _find(call: StepCall) -> Any:
    found = await asyncio.to_thread(_post, "/find", call)
    return NOT_DONE if found is None else found


OPTIONS: dict[str, dict[str, Any]] = {
    "unknown": {},
    "resend": {"if_interrupted": "resend", "downstream_window": "1h"},
    "late": {"if_interrupted": "resend", "downstream_window": "1ms"},
    "verify": {"verify": _find},
}


async def order(request: Request) -> Response:
    """Reserve, then charge."""
    policy, dedup = request.path_params["policy"], request.path_params["dedup"]
    path = "/dedup/charge" if dedup == "dedup" else "/charge"
    now = operation()
    reserved = await now.step(
        "reserve", lambda call: _call(path, call), input={"what": "reserve"}, if_interrupted="resend",
        downstream_window="1h",
    )  # fmt: skip
    charged = await now.step("charge", lambda call: _call(path, call), input={"what": "charge"}, **OPTIONS[policy])
    return JSONResponse({"reserved": reserved, "charged": charged, "by": request.headers.get("x-by")}, 201)


class FailingStore:
    """The store, with failpoints around each write of the journal and around the record."""

    name = "failing"

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.open, self.perform, self.close = inner.open, inner.perform, inner.close
        self._writes = 0
        self._held: set[asyncio.Task[Any]] = set()

    def submit(self, transition: Transition[Any]) -> asyncio.Future[Any]:
        """As the inner store, with a chance to die before and after."""
        if isinstance(transition, KeepJournalIfHeld):
            self._writes += 1
            moment = f"journal-{self._writes}"
        elif isinstance(transition, CompleteIfHeld):
            moment = "record"
        else:
            return self.inner.submit(transition)
        pending: Pending[Any] = Pending()
        held = asyncio.get_running_loop().create_task(self._step_by_step(moment, transition, pending))
        self._held.add(held)
        held.add_done_callback(self._held.discard)
        return pending

    async def _step_by_step(self, moment: str, transition: Transition[Any], pending: Pending[Any]) -> None:
        failpoint(f"before-{moment}")
        answer = await self.inner.submit(transition)
        failpoint(f"after-{moment}")
        pending.set_result(answer)


def reauthenticate(account: str) -> Identity | None:
    """Everybody is still here, but for those who are gone."""
    return None if account.startswith("gone") else Identity(headers={"X-By": "completer"})


def reconcile(view: RecordView) -> Completed | NotDone | StillUnknown:
    """Ask the other side what became of the step that stands open."""
    open_steps = [step for step in view.steps if not step.is_done]
    if not open_steps:
        return StillUnknown()
    found = _post("/find", StepCall(open_steps[0].key, b"{}", 1))
    if found is None:
        return NotDone()
    return Completed({"reconciled": found}, 201)


def make(**settings: Any) -> IdempotencyMiddleware:
    """The application behind its door."""
    application = Starlette(
        routes=[
            Route("/ready", lambda _: PlainTextResponse("ready")),
            Route("/{policy}/{dedup}", order, methods=["POST"]),
        ]
    )
    recovering = os.environ.get("SHOP_RECOVERS")
    return IdempotencyMiddleware(
        application,
        **{
            "store": FailingStore(open_store(STORE)),
            "scope": "header:X-Account",
            "policy": Policy(recovery="rerun", lease=LEASE),
            "encryption_keys": KEYS,
            "reauthenticate": reauthenticate,
            "reconcile": reconcile if recovering else None,
            "complete_abandoned": recovering,
            **settings,
        },
    )


application = make()
