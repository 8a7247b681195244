"""Is another request under a used key told from a retry, and a retry from another request?"""

from __future__ import annotations

import gzip
import re
import secrets
import uuid

from retrysafe.verify import content
from retrysafe.verify.case import Group
from retrysafe.verify.message import Answer
from retrysafe.verify.probe import Intent, Probe
from retrysafe.verify.verdict import MAY, MUST, SHOULD

group = Group()
case = group.case

_BEYOND_DOUBLES = (9_007_199_254_740_992, 9_007_199_254_740_993)


def other(t: Probe, intent: Intent) -> Intent:
    """Another request under the same key."""
    _must_have_fields(t, intent)
    try:
        return intent.holding(content.changed(intent.document, intent.reference))
    except LookupError:
        t.skip("the content has no value that could be changed: give it a number, or a text besides the reference")


def _must_have_fields(t: Probe, intent: Intent) -> None:
    if intent.request.document is None:
        t.skip("the operation has no content with fields")


async def done_with_spare(t: Probe, intent: Intent, raw: str) -> tuple[Intent, Answer]:
    """An intent with one more member, and the answer to it; skipped if the API does not take it."""
    name = t.target.spare_field
    said = intent.saying(content.with_raw(intent.document, name, raw))
    answer = await t.send(said)
    if not answer.success:
        t.skip(f"the API answers {answer} to a member {name!r}: --spare-field NAME says which one it takes")
    return said, answer


def spare(t: Probe, intent: Intent, raw: str) -> Intent:
    """The same intent with another value of that member."""
    return intent.saying(content.with_raw(intent.document, t.target.spare_field, raw))


@case(
    "FPR-01",
    SHOULD,
    "draft 2.7",
    "A client's bug that reuses keys loses orders without a word.",
    needs=["effects", "fields"],
    core=True,
)
async def changed(t: Probe) -> None:
    """Another request under a used key is refused, and has no effect."""
    intent = t.intent()
    first = await t.done(intent)
    t.expect_mismatch(first, await t.send(other(t, intent)))
    await t.expect_effects(intent, 1)


@case(
    "FPR-02",
    MUST,
    "contract R34",
    "A refused reuse takes the answer away from the request that it belongs to.",
    needs=["fields"],
    core=True,
)
async def original_again(t: Probe) -> None:
    """After a refused reuse, the original request still gets its answer."""
    intent = t.intent()
    first = await t.done(intent)
    await t.send(other(t, intent))
    t.expect_replay(first, await t.send(intent))


@case(
    "FPR-03",
    SHOULD,
    "contract R25",
    "A client that builds its JSON anew is told that it sent something else.",
    needs=["json"],
    core=True,
)
async def reordered(t: Probe) -> None:
    """The same JSON with its members in another order, and other white space, is a retry."""
    intent = t.intent()
    first = await t.done(intent)
    again = await t.send(intent.saying(content.reordered(intent.document)))
    t.expect(again.status == first.status, f"{first.status}, as at first", again)
    await t.expect_at_most_one(intent)


@case("FPR-04", MAY, "contract R25", "Libraries write the same value in several ways.", needs=["json"])
async def respelled(t: Probe) -> None:
    """The same JSON with other escapes and 1.0 for 1 is a retry, or a refused reuse."""
    intent = t.intent()
    await t.done(intent)
    answer = await t.send(intent.saying(content.respelled(intent.document)))
    t.note(f"other escapes, and 1.0 for 1: {answer}")
    await t.expect_at_most_one(intent)


@case("FPR-05", MUST, "contract R25", "Two amounts or two ids that differ count as one.", needs=["json"], core=True)
async def large_numbers(t: Probe) -> None:
    """Two whole numbers that doubles cannot tell apart are two requests."""
    intent = t.intent()
    first_number, second_number = _BEYOND_DOUBLES
    _, first = await done_with_spare(t, intent, str(first_number))
    t.expect_mismatch(first, await t.send(spare(t, intent, str(second_number))))
    await t.expect_at_most_one(intent)


@case("FPR-06", MUST, "contract R26", "What was checked and what is done are two different values.", needs=["json"])
async def duplicate_member(t: Probe) -> None:
    """A member that comes twice makes another request, or one that is refused."""
    intent = t.intent()
    await t.done(intent)
    other(t, intent)
    for body in content.doubled(intent.document, intent.reference):
        answer = await t.send(intent.saying(body))
        t.must(answer.refused or t.profile.mismatch_means == "replayed", "a refusal", answer)
    await t.expect_at_most_one(intent)


@case("FPR-07", SHOULD, "contract R25", "The order of a list means something, and counts for nothing.", needs=["json"])
async def array_order(t: Probe) -> None:
    """The order of an array makes another request."""
    intent = t.intent()
    _, first = await done_with_spare(t, intent, '["a", "b"]')
    t.expect_mismatch(first, await t.send(spare(t, intent, '["b", "a"]')))


@case(
    "FPR-08",
    SHOULD,
    "contract R28",
    "Every library draws a new boundary, so that no upload can be retried.",
    needs=["multipart"],
    core=True,
)
async def boundary(t: Probe) -> None:
    """The same parts with a new boundary are a retry."""
    intent = t.intent("multipart")
    _must_have_fields(t, intent)
    first = await t.done(_multipart(intent, intent.document))
    again = await t.send(_multipart(intent, intent.document))
    t.expect(again.status == first.status, f"{first.status}, as at first", again)
    await t.expect_at_most_one(intent)


@case(
    "FPR-09",
    MUST,
    "contract R28",
    "Another file is taken for the one that was sent first.",
    needs=["multipart"],
    core=True,
)
async def other_file(t: Probe) -> None:
    """One byte of a file changed is another request."""
    intent = t.intent("multipart")
    _must_have_fields(t, intent)
    first = await t.done(_multipart(intent, intent.document))
    *_, name = intent.document
    changed_file = {**intent.document, name: f"{intent.document[name]}!"}
    t.expect_mismatch(first, await t.send(_multipart(intent, changed_file)))


def _multipart(intent: Intent, document: content.Document) -> Intent:
    boundary = secrets.token_hex(12)
    field = ("Content-Type", f"multipart/form-data; boundary={boundary}")
    return intent.saying(content.multipart(document, boundary), field)


@case("FPR-10", SHOULD, "contract R29", "A proxy that compresses makes a retry another request.", core=True)
async def coded(t: Probe) -> None:
    """The same content in gzip is a retry, or not supported."""
    intent = t.intent()
    first = await t.done(intent)
    again = await t.send(intent.saying(gzip.compress(intent.request.body), ("Content-Encoding", "gzip")))
    t.expect(again.status in {first.status, 415}, f"{first.status} or 415", again)
    await t.expect_at_most_one(intent)


@case("FPR-11", SHOULD, "contract R24", "Parameters of the address count for nothing, or their order for something.")
async def query(t: Probe) -> None:
    """The order of the query makes no other request; another value does."""
    intent = t.intent()
    url = intent.request.url
    join = "&" if "?" in url else "?"
    first = await t.done(intent.at(f"{url}{join}rs_a=1&rs_b=2"))
    again = await t.send(intent.at(f"{url}{join}rs_b=2&rs_a=1"))
    t.expect(again.status == first.status, f"{first.status}, as at first", again)
    t.expect_mismatch(first, await t.send(intent.at(f"{url}{join}rs_a=1&rs_b=3")))


@case(
    "FPR-12", MUST, "contract R31", "Fields that change with every attempt make every retry another request.", core=True
)
async def volatile_fields(t: Probe) -> None:
    """Fields that change with each attempt make no other request."""
    intent = t.intent()
    first = await t.done(intent)
    trace = f"00-{uuid.uuid4().hex}-{secrets.token_hex(8)}-01"
    again = await t.send(
        intent.adding(("traceparent", trace), ("Date", intent.first_sent), ("Accept-Language", "de")).saying(
            intent.request.body, ("User-Agent", "another/2")
        )
    )
    t.expect_replay(first, again)


@case(
    "FPR-13",
    MUST,
    "contract R18",
    "A refund is answered with the order's success, and never made.",
    needs=["second"],
    core=True,
)
async def other_operation(t: Probe) -> None:
    """The same key on another operation never gets the answer of the first."""
    intent = t.intent()
    first = await t.done(intent)
    elsewhere = t.intent_of(t.target.operations["second"], intent.reference, intent.key)
    await _expect_not_replayed(t, first, await t.send(elsewhere))


@case(
    "FPR-14",
    MUST,
    "contract R23",
    "What was done to one thing counts as done to another.",
    needs=["path-1", "path-2"],
    core=True,
)
async def other_path(t: Probe) -> None:
    """The same key on another path of the same operation never gets the answer of the first."""
    intent = t.intent("path-1")
    first = await t.done(intent)
    elsewhere = t.intent_of(t.target.operations["path-2"], intent.reference, intent.key)
    await _expect_not_replayed(t, first, await t.send(elsewhere))


async def _expect_not_replayed(t: Probe, first: Answer, answer: Answer) -> None:
    replay = t.replayed(answer) or (answer.success and answer.body == first.body)
    t.must(not replay, "a refusal, or an execution of its own", "the answer of the first operation")
    match t.profile.other_operation:
        case "refused":
            t.expect_status(answer, t.profile.mismatch)
        case "executed":
            t.expect(answer.success, "an execution of its own", answer)
        case _:
            t.note(f"the same key on another operation: {answer}")


@case("FPR-15", MUST, "contract R34", "Whoever guesses a key reads what was sent with it.")
async def silent_mismatch(t: Probe) -> None:
    """The refusal of a reuse says nothing of the request or the answer that the key belongs to."""
    if t.profile.mismatch_means != "refused":
        t.skip("the profile does not say that a reuse is refused")
    intent = t.intent()
    first = await t.done(intent)
    stranger = t.intent(key=intent.key)
    answer = await t.send(stranger)
    if not answer.refused:
        t.skip("the reuse was not refused, which FPR-01 says")
    for secret in {intent.reference, *_ids(first)}:
        t.must(secret.encode() not in answer.body, "nothing of the first request or answer", "some of it")


def _ids(answer: Answer) -> list[str]:
    """Texts in an answer that look as if they named something."""
    document = answer.json()
    values = document.values() if isinstance(document, dict) else ()
    return [text for text in values if isinstance(text, str) and len(text) > 7 and re.search(r"\d", text)]
