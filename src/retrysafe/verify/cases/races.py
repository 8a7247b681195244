"""What happens when the same key comes several times at once?"""

from __future__ import annotations

from retrysafe.faults import Leave
from retrysafe.verify.case import Group
from retrysafe.verify.cases.reuse import other
from retrysafe.verify.message import Answer, summary
from retrysafe.verify.probe import Intent, Probe
from retrysafe.verify.verdict import MAY, MUST, SHOULD

group = Group()
case = group.case


def expect_one_outcome(t: Probe, answers: list[Answer]) -> None:
    """Every answer is the one success, or says that it is in flight."""
    successes = [answer for answer in answers if answer.success]
    tolerated = {*t.profile.in_flight, 409, 425, 429, 503}
    rest = [answer for answer in answers if not answer.success and answer.status not in tolerated]
    t.must(not rest, "a success, a replay, or 409", summary(rest))
    if t.profile.replay == "exact":
        t.must(len({answer.body for answer in successes}) <= 1, "one outcome", "successes that differ")


@case("CON-01", MUST, "draft 2.6; contract R37", "A double click charges twice.", needs=["effects"], core=True)
async def identical(t: Probe) -> None:
    """Identical requests that arrive together have one effect."""
    for _ in t.rounds():
        intent = t.intent()
        answers = await t.race([intent] * t.settings.width)
        expect_one_outcome(t, answers)
        await t.until_final(intent)
        await t.expect_effects(intent, 1)


@case(
    "CON-02",
    SHOULD,
    "draft 2.7",
    "A client that is impatient gets a second charge, or an error that means nothing.",
    needs=["slow"],
    core=True,
)
async def in_flight(t: Probe) -> None:
    """While the first request is at work, another is told so, or waits for its answer."""
    intent = t.intent("slow")
    async with t.running(intent) as first:
        answer = await t.send(intent)
        if not first.done():
            t.expect(answer.status in (t.profile.in_flight or (409,)), "409, or a wait for the answer", answer)
    if answer.success:
        t.expect_replay(first.result(), answer)
    await t.expect_effects(intent, 1)


@case(
    "CON-03",
    SHOULD,
    "contract R46",
    "A client takes 'still at work' for 'already taken', and gives up.",
    needs=["slow"],
    core=True,
)
async def in_flight_explained(t: Probe) -> None:
    """The answer to a request that is in flight says so by a type or a code, and when to come back."""
    intent = t.intent("slow")
    async with t.running(intent):
        answer = await t.send(intent)
    if answer.success:
        t.skip("the API lets the second request wait")
    t.expect(answer.kind is not None, "a type or a code that tells this conflict from others", answer)
    code = t.profile.in_flight_code
    t.expect(not code or any(word in (answer.kind or "") for word in code), " or ".join(code), answer.kind)
    wait = answer.value("retry-after") or ""
    if t.profile.retry_after is MAY:
        t.note(f"Retry-After: {wait or 'none'}")
        return
    t.judge(wait.isdigit() and int(wait) >= 1, t.profile.retry_after, "Retry-After of a second or more", wait or "none")


@case("CON-04", MUST, "draft 2.6", "Who was told to wait never learns how it ended.", needs=["slow"], core=True)
async def after_flight(t: Probe) -> None:
    """Once the first request has ended, a retry gets its answer."""
    intent = t.intent("slow")
    async with t.running(intent) as first:
        await t.send(intent)
    t.expect_replay(first.result(), await t.send(intent))
    await t.expect_effects(intent, 1)


@case(
    "CON-05",
    MUST,
    "contract R34",
    "A changed order slips in while the first is at work.",
    needs=["slow", "fields"],
    core=True,
)
async def other_in_flight(t: Probe) -> None:
    """Another request under a key that is in flight never runs."""
    intent = t.intent("slow")
    changed = other(t, intent)
    async with t.running(intent) as first:
        answer = await t.send(changed)
        t.must(not answer.success, "a refusal", answer)
        t.still(first)
    if answer.status not in t.profile.mismatch:
        t.note(f"another request under a key in flight is answered {answer}")
    await t.expect_effects(intent, 1)


@case("CON-06", SHOULD, "contract R36", "Two customers order the same, and one of them gets nothing.")
async def distinct_keys(t: Probe) -> None:
    """Requests with the same content and keys of their own are all done."""
    intent = t.intent()
    intents = [
        Intent(intent.reference, t.new_key(), intent.request, intent.account, intent.first_sent)
        for _ in range(t.settings.width)
    ]
    answers = await t.race(intents)
    t.expect(all(answer.success for answer in answers), f"{len(answers)} successes", summary(answers))
    replays = sum(t.replayed(answer) for answer in answers)
    t.expect(not replays, "no replay", f"{replays} replays")
    if t.target.counter:
        count = await t.effects(intent)
        t.expect(count == len(intents), f"{len(intents)} effects", f"{count} effects")


@case(
    "CON-07",
    MUST,
    "contract R20, R37",
    "A balancer sends the retry to another host, which knows nothing.",
    needs=["replica", "effects"],
)
async def replicas(t: Probe) -> None:
    """Identical requests that arrive together at two replicas have one effect."""
    elsewhere = t.target.operation.at(t.target.replica or "")
    for _ in t.rounds():
        intent = t.intent()
        there = t.intent_of(elsewhere, intent.reference, intent.key)
        answers = await t.race([intent, there] * (t.settings.width // 2))
        expect_one_outcome(t, answers)
        await t.until_final(intent)
        await t.expect_effects(intent, 1)


@case(
    "CON-08",
    MUST,
    "contract R53",
    "A client that loses patience kills its own order, half done.",
    needs=["slow"],
    core=True,
)
async def client_gone(t: Probe) -> None:
    """The client leaves while its request is at work; retries end in one success, and there is one effect."""
    intent = t.intent("slow")
    await t.send_through(Leave(int(t.settings.head_start_s * 1_000)), intent)
    answer = await t.until_final(intent)
    t.must(answer.success, "2xx in the end", answer)
    await t.expect_effects(intent, 1)


@case(
    "CON-09",
    MUST,
    "contract R34, R37",
    "Whichever request wins, a second one is done as well.",
    needs=["fields"],
    core=True,
)
async def identical_and_others(t: Probe) -> None:
    """Identical and different requests under one key that arrive together have one effect at most."""
    for _ in t.rounds():
        intent = t.intent()
        half = t.settings.width // 2
        await t.race([intent, other(t, intent)] * half)
        await t.until_final(intent)
        await t.expect_at_most_one(intent)
