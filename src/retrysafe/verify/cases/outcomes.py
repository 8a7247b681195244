"""What becomes of a key whose request failed?"""

from __future__ import annotations

import asyncio

from retrysafe.verify.case import Group
from retrysafe.verify.message import Answer
from retrysafe.verify.probe import Intent, Probe
from retrysafe.verify.verdict import MUST, SHOULD, Inconclusive

group = Group()
case = group.case

_RETRY_AFTER_S_MAX = 60


async def failed(t: Probe, name: str) -> tuple[Intent, Answer]:
    """An intent of an operation that fails, and how it failed."""
    intent = t.intent(name)
    answer = await t.send(intent)
    if answer.success:
        raise Inconclusive(f"the operation {name} did not fail: {answer}")
    return intent, answer


async def come_back(answer: Answer) -> None:
    """Wait as long as the answer says."""
    wait = answer.value("retry-after") or ""
    await asyncio.sleep(min(int(wait), _RETRY_AFTER_S_MAX) if wait.isdigit() else 0)


@case(
    "OUT-01",
    SHOULD,
    "contract R51",
    "A typo costs the customer the order, although it was corrected.",
    needs=["fields"],
    core=True,
)
async def corrected(t: Probe) -> None:
    """A request that was invalid is corrected under the same key; it is done once, or refused for good."""
    intent = t.intent()
    given = "invalid" in t.target.operations
    first = await t.send(intent.saying(t.intent("invalid").request.body) if given else intent.holding({}))
    if not first.refused:
        t.skip(f"content without fields is answered {first}; --with invalid='POST ...' says what is invalid")
    answer = await t.send(intent)
    t.expect(answer.success or answer.refused, "2xx, or a stable 4xx", answer)
    await t.expect_effects(intent, 1 if answer.success else 0)


@case(
    "OUT-02",
    MUST,
    "contract R51",
    "A client that logs in again can never finish what it began.",
    needs=["account"],
    core=True,
)
async def authenticated_later(t: Probe) -> None:
    """A request without credentials leaves nothing behind: with them, under the same key, it is done once."""
    intent = t.intent()
    first = await t.send(intent.by(()))
    if first.status not in {401, 403}:
        t.skip(f"a request without credentials is answered {first}")
    t.must((await t.send(intent)).success, "2xx", "a refusal")
    await t.expect_effects(intent, 1)


@case(
    "OUT-03",
    MUST,
    "contract R55",
    "A client that was told to slow down is refused for ever.",
    needs=["limited"],
    core=True,
)
async def limited(t: Probe) -> None:
    """A 429 is not recorded: later, under the same key, the request is done once."""
    intent, first = await failed(t, "limited")
    if first.status != 429:
        t.skip(f"the operation was answered {first}")
    await come_back(first)
    answer = await t.send(intent)
    t.must(answer.success, "2xx", answer)
    await t.expect_effects(intent, 1)


@case("OUT-04", SHOULD, "draft 2.6", "A card that was declined is charged by the retry.", needs=["decline"])
async def declined(t: Probe) -> None:
    """A refusal by the business is replayed, or judged anew, as documented; it has no effect."""
    intent, first = await failed(t, "decline")
    again = await t.send(intent)
    if 4 in t.profile.records:
        t.expect(again.status == first.status, f"{first.status}, as at first", again)
        t.expect(again.body == first.body, "the same content", "other content")
    await t.expect_at_most_one(intent)


@case(
    "OUT-05",
    MUST,
    "contract R51",
    "A failure that did nothing stands in the way of the retry for ever.",
    needs=["fail-before"],
    core=True,
)
async def failed_before(t: Probe) -> None:
    """A failure before any effect: the retry is done once, or gets the same failure, marked as a replay."""
    intent, first = await failed(t, "fail-before")
    answer = await t.until_final(intent)
    same = answer.status == first.status
    t.must(answer.success or same or t.is_unknown(answer), f"2xx, or {first.status} again", answer)
    await t.expect_at_most_one(intent)


@case(
    "OUT-06",
    MUST,
    "contract R52",
    "The charge was made, the answer was 500, and the retry charges again.",
    needs=["fail-after", "effects"],
    core=True,
)
async def failed_after(t: Probe) -> None:
    """A failure behind the effect: the retry has no second effect."""
    intent, _ = await failed(t, "fail-after")
    await t.until_final(intent)
    await t.expect_effects(intent, 1)


@case("OUT-07", SHOULD, "contract R51", "A short outage becomes a failure for good.", needs=["unavailable"])
async def unavailable(t: Probe) -> None:
    """A 503 that says that nothing was done is not recorded: the retry is done."""
    intent, first = await failed(t, "unavailable")
    await come_back(first)
    answer = await t.until_final(intent)
    t.expect(answer.success, "2xx", answer)
    await t.expect_at_most_one(intent)


async def _die(t: Probe, name: str) -> Intent:
    """An intent whose worker dies at work; another worker is there when this returns."""
    intent = t.intent(name if name in t.target.operations else "slow")
    first = asyncio.create_task(t.send(intent))
    if "kill" in t.target.hooks:
        await asyncio.wait([first], timeout=t.settings.head_start_s)
        await t.hook("kill")
    await first
    await t.until_back()
    return intent


@case(
    "OUT-08",
    MUST,
    "contract R44",
    "A key whose worker died is in progress for ever.",
    needs=["die-before", "lease"],
    alone=True,
)
async def died_before(t: Probe) -> None:
    """The worker dies before the effect; past the lease the retry is done once, or says that nobody knows."""
    intent = await _die(t, "die-before")
    await asyncio.sleep(t.target.lease_s or 0)
    answer = await t.until_final(intent)
    t.note(f"past the lease a retry is answered {answer}")
    t.must(answer.success or t.is_unknown(answer), "2xx, or a document that says unknown", answer)
    await t.expect_effects(intent, 1 if answer.success else 0)


@case(
    "OUT-09",
    MUST,
    "contract R44",
    "A worker dies behind the charge, and the retry charges again.",
    needs=["die-after", "lease", "effects"],
    core=True,
    alone=True,
)
async def died_after(t: Probe) -> None:
    """The worker dies behind the effect; no retry has a second one, also past the lease."""
    intent = await _die(t, "die-after")
    await t.send(intent)
    await asyncio.sleep(t.target.lease_s or 0)
    t.note(f"past the lease a retry is answered {await t.until_final(intent)}")
    await t.expect_at_most_one(intent)


@case(
    "OUT-10",
    SHOULD,
    "contract R48",
    "While the store is away, every retry is a second charge.",
    needs=["store-down", "store-up"],
    alone=True,
)
async def store_down(t: Probe) -> None:
    """While keys cannot be stored, a request with a key is refused, and nothing is done."""
    intent = t.intent()
    await t.hook("store-down")
    try:
        answer = await t.send(intent)
    finally:
        await t.hook("store-up")
    unprotected = "unprotected" in (answer.value("idempotency-status") or "")
    t.expect(answer.status == 503 or unprotected, "503, or a sign that it ran unprotected", answer)
    if not unprotected:
        await t.expect_effects(intent, 0)


@case(
    "OUT-11",
    MUST,
    "contract R49",
    "The success that could not be recorded is done a second time.",
    needs=["unrecorded"],
    core=True,
    alone=True,
)
async def unrecorded(t: Probe) -> None:
    """The store fails when the request has been done: the client gets its answer, and no retry does it again."""
    intent = t.intent("unrecorded")
    first = await t.send(intent)
    t.must(first.success, "the answer of the operation", first)
    await t.until_final(intent)
    await t.expect_effects(intent, 1)


@case(
    "OUT-12",
    MUST,
    "contract R51",
    "A gateway gives up, the handler goes on, and the retry charges again.",
    needs=["impatient"],
    core=True,
)
async def gave_up(t: Probe) -> None:
    """A gateway gives up while the handler goes on; the retries end, and there is one effect."""
    intent, _ = await failed(t, "impatient")
    await t.until_final(intent)
    await t.expect_at_most_one(intent)


@case("OUT-13", SHOULD, "contract R58", "A client retries a failure that can never change.", needs=["decline"])
async def failure_marked(t: Probe) -> None:
    """The replay of a failure is marked like any other."""
    if not t.profile.marker or 4 not in t.profile.records:
        t.skip("the profile marks no replays of failures")
    intent, first = await failed(t, "decline")
    again = await t.send(intent)
    if again.status == first.status:
        t.expect(t.replayed(again), f"{t.profile.marker} on the replay", f"{again} without it")
