"""Which methods and routes do keys concern?"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urljoin

from retrysafe.verify.case import Group
from retrysafe.verify.probe import Intent, Probe
from retrysafe.verify.verdict import MAY, MUST, SHOULD

group = Group()
case = group.case


def _by_method(intent: Intent, method: str) -> Intent:
    """The same request by a method that has no content."""
    return replace(intent, request=replace(intent.request, method=method, body=b"").without("content-type"))


@case("MTH-01", MUST, "contract R12", "A page shows what was true yesterday.", needs=["read"], core=True)
async def get(t: Probe) -> None:
    """A key on GET is ignored: the second GET shows what has changed."""
    intent = t.intent()
    look = t.intent_of(t.target.operations["read"], intent.reference, t.new_key())
    before = await t.send(look)
    await t.done(intent)
    after = await t.send(look)
    t.must((after.status, after.body) != (before.status, before.body), "what is there now", "the answer from before")


@case("MTH-02", MUST, "contract R12", "A probe with a key fails, or gets content that it must not have.")
async def head_and_options(t: Probe) -> None:
    """A key on HEAD and OPTIONS is ignored, and HEAD has no content."""
    for method in ("HEAD", "OPTIONS"):
        intent = _by_method(t.intent("read" if "read" in t.target.operations else "operation"), method)
        first, again = await t.send(intent), await t.send(intent)
        t.must(again.status == first.status and again.status not in {409, 422}, f"{first.status}", again)
        t.must(not t.replayed(again), "no replay", again)
        t.must(method != "HEAD" or not again.body, "no content", f"{len(again.body)} bytes")


@case("MTH-03", SHOULD, "draft 1", "A retried increment counts twice.", needs=["patch", "effects"], core=True)
async def patch(t: Probe) -> None:
    """A PATCH sent twice has one effect."""
    intent = t.intent("patch")
    await t.done(intent)
    await t.send(intent)
    count = await t.effects(intent)
    t.expect(count == 1, "one effect", f"{count} effects")


@case(
    "MTH-04",
    MAY,
    "OASIS Repeatable Requests",
    "A client that deleted is told that there was nothing to delete.",
    needs=["delete"],
)
async def delete(t: Probe) -> None:
    """A DELETE sent twice on an enrolled route gets the same success."""
    intent = t.intent("delete")
    await t.call_operation(intent)
    first, again = await t.send(intent), await t.send(intent)
    t.expect(again.status == first.status, f"{first.status}, as at first", again)


@case("MTH-05", SHOULD, "contract R13", "A client believes that its key protects it.", needs=["unprotected"])
async def not_enrolled(t: Probe) -> None:
    """A key where keys do not count is ignored with a sign, or refused with 501."""
    intent = t.intent("unprotected")
    first, again = await t.send(intent), await t.send(intent)
    sign = "ignored" in (first.value("idempotency-status") or "") or first.status == 501
    if not sign:
        t.note(f"a key on the operation without keys is ignored without a sign: {first}")
    t.expect(not t.replayed(again), "no replay", again)


@case("MTH-06", SHOULD, "contract R51", "A redirect by the router spoils the key.", needs=["slash"])
async def router_redirect(t: Probe) -> None:
    """A redirect by the router is followed with the same key, and the request is done once."""
    intent = t.intent("slash")
    first = await t.send(intent)
    if first.status not in {307, 308}:
        t.skip(f"the spelling is not redirected with 307 or 308: {first}")
    followed = intent.at(urljoin(intent.request.url, first.value("location") or ""))
    answer = await t.send(followed)
    t.expect(200 <= answer.status < 300, "2xx", answer)


@case(
    "MTH-07",
    SHOULD,
    "Fetch 3.2; contract R59",
    "Browsers cannot send a key, or cannot see that they got a replay.",
    needs=["origins"],
)
async def preflight(t: Probe) -> None:
    """A preflight allows the key's field, and answers expose the marker."""
    intent = t.intent()
    origin = t.target.origins[0]
    asked = _by_method(intent, "OPTIONS").adding(
        ("Origin", origin),
        ("Access-Control-Request-Method", intent.request.method),
        ("Access-Control-Request-Headers", f"{t.profile.header.lower()}, content-type"),
    )
    answer = await t.send(asked, lines=[])
    allowed = (answer.value("access-control-allow-headers") or "").lower()
    t.expect(allowed == "*" or t.profile.header.lower() in allowed, f"{t.profile.header} allowed", allowed or "nothing")
    if t.profile.marker:
        shown = (await t.done(intent.adding(("Origin", origin)))).value("access-control-expose-headers") or ""
        exposed = shown == "*" or t.profile.marker.lower() in shown.lower()
        t.expect(exposed, f"{t.profile.marker} exposed", shown or "nothing")
