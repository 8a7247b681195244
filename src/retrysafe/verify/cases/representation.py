"""Is the form of a replay right: its fields, its coding, its protocol?"""

from __future__ import annotations

import asyncio
import gzip
import zlib

from retrysafe.verify.case import Group
from retrysafe.verify.message import Answer
from retrysafe.verify.probe import Probe
from retrysafe.verify.verdict import MUST, SHOULD, Inconclusive

group = Group()
case = group.case

_DATE_PAUSE_S = 2.1
_HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade")
_ORIGIN_FIELD = "access-control-allow-origin"


def _decoded(answer: Answer) -> bytes | None:
    """The content without its coding; None if it is not what the field says."""
    coding = (answer.value("content-encoding") or "identity").lower()
    try:
        match coding:
            case "identity":
                return answer.body
            case "gzip":
                return gzip.decompress(answer.body)
            case "deflate":
                return zlib.decompress(answer.body)
    except (OSError, zlib.error, EOFError):
        return None
    raise Inconclusive(f"nothing is known of the coding {coding}, which was not asked for")


@case("REP-08", SHOULD, "RFC 9110 6.6.1", "Caches and clients take an answer for older than it is.")
async def fresh_date(t: Probe) -> None:
    """The Date of a replay is that of the replay."""
    intent = t.intent()
    first = await t.done(intent)
    if first.value("date") is None:
        t.skip("the answers have no Date")
    await asyncio.sleep(_DATE_PAUSE_S)
    again = await t.send(intent)
    t.expect(again.value("date") != first.value("date"), "a later Date", f"the first one, {again.value('date')}")


@case("REP-09", SHOULD, "RFC 9111 5.1", "Age says that a cache answered, and no cache may answer a POST.")
async def no_age(t: Probe) -> None:
    """A replay has no Age."""
    intent = t.intent()
    await t.done(intent)
    again = await t.send(intent)
    t.expect(again.value("age") is None, "no Age", f"Age: {again.value('age')}")


@case("REP-10", MUST, "contract R57", "A cookie of an old session is handed out again.", needs=["cookie"], core=True)
async def no_cookie(t: Probe) -> None:
    """A cookie is not replayed."""
    intent = t.intent("cookie")
    first, again = await t.done(intent), await t.send(intent)
    if not first.values("set-cookie"):
        t.skip("the first answer sets no cookie")
    repeated = set(first.values("set-cookie")) & set(again.values("set-cookie"))
    t.must(not repeated, "no cookie, or another one", "the cookie of the first answer")
    await t.expect_effects(intent, 1)


@case("REP-11", MUST, "contract R62; RFC 9110 8.4", "A client gets bytes that it cannot read.", core=True)
async def content_coding(t: Probe) -> None:
    """A retry that takes no coding can read the answer to a first request that took gzip."""
    intent = t.intent()
    first = await t.done(intent.adding(("Accept-Encoding", "gzip")))
    again = await t.send(intent.adding(("Accept-Encoding", "identity")))
    t.must(again.status == first.status and again.whole, f"{first.status}, whole", again)
    coding = (again.value("content-encoding") or "identity").lower()
    t.must(coding == "identity", "no coding", f"Content-Encoding: {coding}")
    t.must(_decoded(first) == _decoded(again) or t.profile.replay == "current", "the same content", "other content")


@case("REP-12", MUST, "RFC 9113 8.2.2", "HTTP/2 clients refuse a replay that has fields of HTTP/1.1.", core=True)
async def over_http2(t: Probe) -> None:
    """A first answer over HTTP/1.1 is replayed over HTTP/2, without fields of the connection."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send_http2(intent)
    t.expect_replay(first, again)
    wrong = [name for name in _HOP_BY_HOP if again.value(name) is not None]
    t.must(not wrong, "no field of the connection", ", ".join(wrong))


@case(
    "REP-13",
    MUST,
    "Fetch 3.2; contract R57",
    "The browser throws the answer away, or shows it to the wrong site.",
    needs=["origins"],
)
async def fresh_origin(t: Probe) -> None:
    """A replay allows the origin that asks now, not the one that asked first."""
    intent = t.intent()
    first_origin, second_origin = t.target.origins
    await t.done(intent.adding(("Origin", first_origin)))
    again = await t.send(intent.adding(("Origin", second_origin)))
    allowed = again.value(_ORIGIN_FIELD)
    t.must(allowed in {second_origin, "*"}, f"{second_origin} or *", allowed)


@case("REP-14", SHOULD, "contract R57", "Two exchanges cannot be told apart in the logs.")
async def fresh_request_id(t: Probe) -> None:
    """The request id of a replay is its own."""
    intent = t.intent()
    first, again = await t.done(intent), await t.send(intent)
    found = [name for name in ("x-request-id", "request-id", "x-correlation-id") if first.value(name)]
    if not found:
        t.skip("the answers have no request id")
    for name in found:
        t.expect(again.value(name) != first.value(name), f"a new {name}, or none", "the first one")


@case("REP-16", MUST, "RFC 9110 14.2", "A client that asks for a part gets a part of a POST's answer.")
async def no_range(t: Probe) -> None:
    """A retry that asks for a range gets the whole."""
    intent = t.intent()
    first = await t.done(intent)
    again = await t.send(intent.adding(("Range", "bytes=0-3")))
    t.must(again.status != 206, "not 206", again)
    t.expect_replay(first, again)


@case("REP-23", SHOULD, "RFC 9110 10.1.1", "Clients that wait for 100 wait for ever.")
async def expect_continue(t: Probe) -> None:
    """A retry that expects 100 is answered like any other."""
    intent = t.intent()
    first = await t.done(intent)
    again = await t.send(intent.adding(("Expect", "100-continue")))
    t.expect(again.status == first.status, f"{first.status}", again)


@case("REP-24", SHOULD, "contract R65; RFC 9110 9.3.3", "A cache in between answers somebody else's request.")
async def no_store(t: Probe) -> None:
    """Answers to requests with a key are not to be stored by caches."""
    intent = t.intent()
    answers = (await t.done(intent), await t.send(intent))
    for answer in answers:
        control = (answer.value("cache-control") or "").lower()
        fresh = ("max-age" in control and "max-age=0" not in control) or "public" in control
        t.expect(not fresh, "no-store, private, or nothing", f"Cache-Control: {control}")
