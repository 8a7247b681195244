"""Is a retry answered with what happened, and does nothing happen again?"""

from __future__ import annotations

from retrysafe.faults import CutRequest, LoseResponse
from retrysafe.verify.case import Group
from retrysafe.verify.probe import Probe
from retrysafe.verify.verdict import MUST, SHOULD

group = Group()
case = group.case

_RETRIES = 10


@case("REP-01", MUST, "draft 2.6", "Every retry is a second charge.", needs=["effects"], core=True)
async def one_effect(t: Probe) -> None:
    """The same request sent twice has one effect, and both get the same answer."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    await t.expect_effects(intent, 1)
    t.expect_replay(first, again)


@case(
    "REP-02", MUST, "contract R57", "A client that waits for 201 takes its own success for something else.", core=True
)
async def same_status(t: Probe) -> None:
    """A replay has the status of the first answer."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    exact = t.profile.replay == "exact"
    t.must(again.status == first.status if exact else again.success, f"{first.status}", again)


@case("REP-03", MUST, "contract R57, R67", "The client stores an id that nothing has.", core=True)
async def same_content(t: Probe) -> None:
    """A replay has the content of the first answer, byte for byte where the profile says exact."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    if t.profile.replay == "exact":
        t.must(again.body == first.body, "the same bytes", f"{len(again.body)} bytes that differ")
    else:
        t.must(again.success and again.json() is not None, "the current representation", again)


@case("REP-04", SHOULD, "contract R57", "A client that follows Location has nowhere to go.", core=True)
async def same_fields(t: Probe) -> None:
    """A replay has the Location, ETag, Content-Type and Content-Language of the first answer."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    for name in ("location", "etag", "content-type", "content-language"):
        if (value := first.value(name)) is not None:
            t.expect(again.value(name) == value, f"{name}: {value}", f"{name}: {again.value(name)}")


@case(
    "REP-05",
    SHOULD,
    "contract R58",
    "A client cannot tell an old failure from a new one, and goes on retrying.",
    core=True,
)
async def marker(t: Probe) -> None:
    """A replay is marked, and a first answer is not."""
    if not t.profile.marker:
        t.skip("the profile knows no marker of replays")
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    value = again.value(t.profile.marker)
    wanted = t.profile.marker_value
    t.expect(value == wanted if wanted else bool(value), f"{t.profile.marker}: {wanted or '...'}", f"{value}")
    unmarked = t.profile.marker_on_every or first.value(t.profile.marker) is None
    t.expect(unmarked, "no marker on the first answer", f"{first.value(t.profile.marker)}")


@case(
    "REP-06",
    MUST,
    "draft 1; contract R53",
    "It is what keys are for: the answer is lost, and the retry charges again.",
    needs=["effects"],
    core=True,
)
async def lost_answer(t: Probe) -> None:
    """An answer is lost on its way; the retry has no second effect and ends in success."""
    intent = t.intent()
    await t.send_through(LoseResponse(), intent)
    answer = await t.until_final(intent)
    t.must(answer.success, "2xx", answer)
    await t.expect_effects(intent, 1)


@case(
    "REP-07",
    MUST,
    "contract R38",
    "A client that lost its connection while sending can never send this again.",
    core=True,
)
async def cut_request(t: Probe) -> None:
    """A request breaks off in its content; the whole request, sent again, is done once."""
    intent = t.intent()
    if not intent.request.body:
        t.skip("the operation has no content that could break off")
    whole = t.length_on_wire(intent)
    await t.send_through(CutRequest(whole - len(intent.request.body) // 2), intent)
    answer = await t.until_final(intent)
    t.must(answer.success, "2xx", answer)
    await t.expect_effects(intent, 1)


@case(
    "REP-15",
    SHOULD,
    "contract R61; OASIS Repeatable Requests",
    "A client that made what it asks for is told that it was in the way.",
    core=True,
)
async def preconditions(t: Probe) -> None:
    """A precondition on a retry is not judged again."""
    intent = t.intent()
    first = await t.done(intent)
    for field in (("If-None-Match", "*"), ("If-Match", '"zzz"')):
        again = await t.send(intent.adding(field))
        same = again.status == first.status or again.status in t.profile.mismatch
        t.expect(same, f"{first.status}, as at first", f"{again} with {field[0]}")


@case("REP-17", MUST, "contract R51", "Each retry starts another job.", needs=["accepted"])
async def accepted(t: Probe) -> None:
    """A retry of what was accepted for later gets the same 202 and the same Location, and there is one job."""
    intent = t.intent("accepted")
    first, again = await t.done(intent), await t.send(intent)
    t.must(again.status == first.status, f"{first.status}", again)
    t.must(again.value("location") == first.value("location"), f"{first.value('location')}", again.value("location"))
    await t.expect_effects(intent, 1)


@case(
    "REP-18",
    MUST,
    "contract R66",
    "Large and streamed answers are not recorded, and their retries run again.",
    needs=["stream"],
    core=True,
)
async def streamed(t: Probe) -> None:
    """A retry of a large or streamed answer never runs again, and never gets less than the whole."""
    intent = t.intent("stream")
    first, again = await t.done(intent), await t.send(intent)
    t.must(first.whole, "a whole first answer", first)
    t.must(again.refused or again.body == first.body, "the same content, or a refusal", f"{again}, other content")
    await t.expect_at_most_one(intent)


@case(
    "REP-19", SHOULD, "contract R51", "The browser is sent to another order than the one it placed.", needs=["redirect"]
)
async def redirect(t: Probe) -> None:
    """A retry of what was answered with 303 goes to the same place."""
    intent = t.intent("redirect")
    first, again = await t.send(intent), await t.send(intent)
    t.expect(again.status == first.status == 303, "303", again)
    t.expect(again.value("location") == first.value("location"), f"{first.value('location')}", again.value("location"))
    await t.expect_at_most_one(intent)


@case("REP-20", MUST, "draft 2.6", "The second retry is protected, and the third is not.", core=True)
async def many_retries(t: Probe) -> None:
    """Ten requests one after another have one effect, and all get the same answer."""
    intent = t.intent()
    first = await t.done(intent)
    for _ in range(_RETRIES - 1):
        t.expect_replay(first, await t.send(intent))
    await t.expect_effects(intent, 1)


@case(
    "REP-21",
    MUST,
    "AIP-155",
    "A late retry undoes a change, or creates what was changed a second time.",
    needs=["modify"],
    core=True,
)
async def modified(t: Probe) -> None:
    """What was created is changed; a late retry of the creation creates nothing, and gets an answer."""
    intent = t.intent()
    first = await t.done(intent)
    changed = await t.call("modify", intent)
    t.must(changed.success, "2xx for the change", changed)
    again = await t.send(intent)
    t.must(again.status == first.status, f"{first.status}", again)
    await t.expect_effects(intent, 1)


@case("REP-22", MUST, "AIP-155; contract R57", "What a customer cancelled comes back.", needs=["remove"], core=True)
async def removed(t: Probe) -> None:
    """What was created is deleted; a late retry of the creation does not bring it back."""
    intent = t.intent()
    await t.done(intent)
    gone = await t.call("remove", intent)
    t.must(gone.success, "2xx for the deletion", gone)
    left = await t.counted(intent)
    await t.send(intent)
    now = await t.counted(intent)
    t.must(now == left, f"{left}, as after the deletion", now)
