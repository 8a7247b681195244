"""For how long is a key remembered, and what happens then?"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
import uuid
from dataclasses import replace

from retrysafe.verify.case import Group
from retrysafe.verify.content import duration_s
from retrysafe.verify.message import Answer, Sent
from retrysafe.verify.openapi import operation_at
from retrysafe.verify.probe import Intent, Probe
from retrysafe.verify.verdict import MUST, SHOULD, Inconclusive
from retrysafe.verify.wire import Wire

group = Group()
case = group.case

_LIFETIME = re.compile(r"\b\d+\s*(?:-\s*)?(?:minute|hour|day|min|h)s?\b", re.IGNORECASE)
_ISO_DURATION = re.compile(r"\bP(?:\d+[WD])*(?:T(?:\d+(?:\.\d+)?[HMS])+)?\b")
_LONG_AGO = "Mon, 01 Jan 2024 00:00:00 GMT"
_LONG_AGO_MS = 1_704_067_200_000
_FAR_AHEAD = "Fri, 01 Jan 2100 00:00:00 GMT"
_FAR_AHEAD_MS = 4_102_444_800_000


async def published(t: Probe) -> str:
    """The document that says what holds, as text."""
    if t.target.openapi is not None:
        return json.dumps(t.target.openapi)
    answer = await Wire(t.settings.timeout_s).exchange(Sent("GET", t.target.docs or ""))
    if not answer.success:
        t.skip(f"the documentation is answered {answer}")
    return answer.body.decode(errors="replace")


def lifetime_of(text: str) -> str | None:
    """The lifetime that a text states near the word idempotency."""
    for match in re.finditer("idempot", text, re.IGNORECASE):
        near = text[max(0, match.start() - 2_000) : match.start() + 2_000]
        iso = next((found for found in _ISO_DURATION.findall(near) if duration_s(found)), None)
        plain = _LIFETIME.search(near)
        if iso or plain:
            return iso or (plain[0] if plain else None)
    return None


@case(
    "TTL-01",
    MUST,
    "draft 2.3, 2.5.2; contract R69",
    "Nobody knows for how long a retry is safe.",
    needs=["documentation"],
    core=True,
)
async def lifetime_published(t: Probe) -> None:
    """The lifetime of keys is published."""
    stated = lifetime_of(await published(t))
    t.must(stated is not None, "a lifetime of keys in the documentation", "none near the word idempotency")
    t.note(f"the published lifetime is {stated}")


def short_lived(t: Probe) -> Intent:
    """An intent whose lifetime can be waited for."""
    return t.intent("short-lived" if "short-lived" in t.target.operations else "operation")


async def retried_after(t: Probe, intent: Intent, part: float) -> tuple[Answer, Answer]:
    """The first answer, and that to a retry when this part of the lifetime has passed, and no more than all of it."""
    lifetime_s = t.target.lifetime_s or 0
    began_s = time.monotonic()
    first = await t.done(intent)
    await asyncio.sleep(lifetime_s * part)
    again = await t.send(intent)
    if time.monotonic() - began_s > lifetime_s:
        raise Inconclusive("the machine was so slow that the lifetime had passed")
    return first, again


@case("TTL-02", MUST, "contract R70", "A retry within the promised time runs again.", needs=["lifetime"])
async def inside(t: Probe) -> None:
    """Just inside the lifetime a retry is a replay."""
    intent = short_lived(t)
    first, again = await retried_after(t, intent, 0.6)
    t.expect_replay(first, again)
    await t.expect_effects(intent, 1)


@case(
    "TTL-03", MUST, "contract R72", "A late retry is a new charge, and nobody said so.", needs=["lifetime"], core=True
)
async def outside(t: Probe) -> None:
    """Past the lifetime a retry is refused, or runs anew, as documented."""
    intent = short_lived(t)
    await t.done(intent)
    await asyncio.sleep((t.target.lifetime_s or 0) * 1.3)
    answer = await t.send(intent)
    match t.profile.after_expiry:
        case "refused":
            t.expect_status(answer, t.profile.expired or (400, 410, 412))
            await t.expect_effects(intent, 1)
        case "executed":
            t.must(answer.success and not t.replayed(answer), "a new execution", answer)
        case _:
            t.should(answer.refused, "a refusal: 412, 410 or 400", answer)


@case(
    "TTL-04",
    MUST,
    "contract R40, R71",
    "What takes long is done a second time while it is still at work.",
    needs=["outlasting"],
)
async def outlasting(t: Probe) -> None:
    """An operation that takes longer than the lease and the lifetime has one effect."""
    intent = t.intent("outlasting")
    async with t.running(intent) as first:
        while not first.done():
            await t.send(intent)
            await asyncio.wait([first], timeout=t.settings.head_start_s)
    t.must(first.result().success, "2xx", first.result())
    await t.expect_effects(intent, 1)


@case("TTL-05", MUST, "contract R14; OASIS Repeatable Requests", "A request from last year is done today.")
async def dated(t: Probe) -> None:
    """A key that is dated far back, or ahead, is refused."""
    if not t.profile.companion and t.profile.key_format != "uuid7":
        t.skip("the profile's keys carry no time")
    for date, milliseconds in ((_LONG_AGO, _LONG_AGO_MS), (_FAR_AHEAD, _FAR_AHEAD_MS)):
        number = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
        key = str(uuid.UUID(int=number)) if t.profile.key_format == "uuid7" else None
        intent = replace(t.intent(key=key), first_sent=date)
        answer = await t.send(intent)
        t.must(answer.refused, "412, or another 4xx", answer)
        await t.expect_effects(intent, 0)


@case("DOC-06", SHOULD, "contract R80", "Clients rely on rules that do not hold.", needs=["openapi", "lifetime"])
async def lifetime_holds(t: Probe) -> None:
    """What is published of the lifetime is what is seen."""
    intent = short_lived(t)
    described = operation_at(t.target.openapi or {}, intent.request.method, intent.request.url)
    stated = duration_s(lifetime_of(json.dumps(described)) or "")
    if stated is None:
        t.skip("no lifetime of the operation is published as an ISO 8601 duration")
    lifetime_s = t.target.lifetime_s or 0
    t.expect(abs(stated - lifetime_s) < 0.5, f"{stated:g} s, as published", f"{lifetime_s:g} s, as given for this run")
    await retried_after(t, intent, 0.5)
    count = await t.effects(intent)
    t.expect(count == 1, "one effect within it", f"{count} effects")
