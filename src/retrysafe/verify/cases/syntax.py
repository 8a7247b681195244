"""Is a key taken for what it is? A key that is taken for none leaves its request unprotected."""

from __future__ import annotations

import base64
import secrets
import uuid

from retrysafe.verify.case import Group
from retrysafe.verify.probe import Probe, quoted
from retrysafe.verify.verdict import MAY, MUST, SHOULD, Inconclusive

group = Group()
case = group.case

_LONG_KEY_BYTES = 100_000
_FAST_S = 1.0
_TIMES_TIMED = 3


def _uuid(first: str) -> str:
    """A random UUID that begins with a letter, or with a digit."""
    text = str(uuid.uuid4())
    return {"letter": "a", "digit": "4"}[first] + text[1:]


@case("SYN-01", MUST, "draft 2.1", "Clients that follow the draft are turned away.", core=True)
async def quoted_key(t: Probe) -> None:
    """A quoted key, as the draft spells it, is accepted."""
    intent = t.intent()
    answer = await t.send(intent, lines=[quoted(intent.key)])
    t.must(answer.success, "2xx", answer)


@case(
    "SYN-02", MUST, "contract R3, R5", "Most clients send keys without quotes; their retries are done twice.", core=True
)
async def bare_key(t: Probe) -> None:
    """A bare UUID protects or is refused, whether it begins with a letter or a digit; it is never ignored."""
    for first in ("letter", "digit"):
        intent = t.intent(key=_uuid(first))
        await t.expect_protected_or_refused(intent, intent.key)


@case(
    "SYN-03",
    SHOULD,
    "contract R4",
    "A client that starts to quote between two attempts is charged twice.",
    needs=["effects"],
    core=True,
)
async def quoted_then_bare(t: Probe) -> None:
    """Quoted and bare, the same characters are the same key, or one of the spellings is refused."""
    intent = t.intent()
    await t.send(intent, lines=[quoted(intent.key)])
    await t.send(intent, lines=[intent.key])
    count = await t.effects(intent)
    t.expect(count <= 1, "one effect", f"{count} effects")


@case(
    "SYN-04", SHOULD, "draft 2.7", "A client that forgets the key is not told, and finds out by a duplicate.", core=True
)
async def missing_key(t: Probe) -> None:
    """An operation that requires a key refuses a request without one, and says why."""
    if not t.target.required:
        t.skip("the operation is not said to require a key: --required")
    intent = t.intent()
    answer = await t.send(intent, lines=[])
    t.expect_status(answer, t.profile.missing)
    explained = answer.media_type == "application/problem+json" or "describedby" in (answer.value("link") or "")
    t.expect(explained, "a problem document, or a link to documentation", answer.media_type or "no content type")
    await t.expect_effects(intent, 0)


@case("SYN-05", MUST, "contract R8", "A bug that sends an empty key switches protection off for all.", core=True)
async def empty_key(t: Probe) -> None:
    """An empty key is refused, with quotes and without."""
    for line in ("", '""'):
        intent = t.intent()
        await t.expect_refused(await t.send(intent, lines=[line]), intent)


@case("SYN-06", MUST, "contract R6; RFC 9110 5.3", "Two parties on the way see two different keys.", core=True)
async def two_keys(t: Probe) -> None:
    """Two keys in one request are refused, on two lines and on one."""
    first, second = t.new_key(), t.new_key()
    for lines in ([quoted(first), quoted(second)], [f'"{first}", "{second}"']):
        intent = t.intent()
        await t.expect_refused(await t.send(intent, lines=lines), intent)


@case("SYN-07", MUST, "RFC 9651 4.2.5; contract R5", "A key that cannot be read counts as none.", core=True)
async def malformed_key(t: Probe) -> None:
    """A malformed key is refused or protects; it is never ignored."""
    key = secrets.token_hex(12)
    number = str(secrets.randbelow(10**14) + 10**14)
    octets = base64.b64encode(key.encode()).decode()
    for line in (f'"{key}', f'"{key}\\n"', f"'{key}'", f":{octets}:", number):
        await t.expect_protected_or_refused(t.intent(), line)


@case("SYN-08", MUST, "RFC 9651 3.3.3", "Bytes that parties read differently make two keys of one.", core=True)
async def control_characters(t: Probe) -> None:
    """Control characters and bytes outside ASCII in a key are refused."""
    for character in ("\xe9", "\t", "\x01", "\x7f"):
        intent = t.intent()
        answer = await t.send(intent, lines=[f'"a{character}{intent.key}"'])
        t.must(answer.refused or not answer.status, "400, or an end of the connection", answer)
        await t.expect_effects(intent, 0)


@case("SYN-09", SHOULD, "contract R7", "Keys that are cut at some length collide.", core=True)
async def longest_key(t: Probe) -> None:
    """A key of the documented length is accepted, one that is longer is refused."""
    if t.profile.key_format != "opaque":
        t.skip(f"the profile's keys are of one length: {t.profile.key_format}")
    longest = t.profile.key_length_max
    accepted = t.intent(key=secrets.token_hex(longest)[:longest])
    answer = await t.send(accepted)
    t.expect(answer.success, f"2xx for {longest} characters", answer)
    refused = t.intent(key=secrets.token_hex(longest)[: longest + 1])
    await t.expect_refused(await t.send(refused), refused)


@case("SYN-10", MUST, "contract R7, R112", "Huge keys fill the store, or take the server down.", core=True)
async def huge_key(t: Probe) -> None:
    """A key of 100 kB is refused at once."""
    took_s = []
    for _ in range(_TIMES_TIMED):
        intent = t.intent()
        answer = await t.send(intent, lines=[quoted("k" * _LONG_KEY_BYTES)])
        t.must(answer.refused or not answer.status, "400 or 431", answer)
        await t.expect_effects(intent, 0)
        took_s.append(answer.took_s)
    t.must(min(took_s) < _FAST_S, f"an answer within {_FAST_S:g} s", f"{min(took_s):.1f} s")


@case("SYN-11", SHOULD, "RFC 9651 3.1.2; contract R2", "A proxy that adds a parameter makes a retry a new request.")
async def parameters(t: Probe) -> None:
    """Parameters behind a key are no part of it, or the key is refused."""
    intent = t.intent()
    first = await t.send(intent, lines=[quoted(intent.key) + ";x=1"])
    if not first.success:
        t.expect_status(first, t.profile.invalid)
        return
    await t.send(intent, lines=[quoted(intent.key)])
    count = await t.effects(intent)
    t.expect(count == 1, "one effect", f"{count} effects")


@case("SYN-12", MAY, "contract R9", "Clients write UUIDs in upper case and in lower case.")
async def upper_case(t: Probe) -> None:
    """A UUID in upper case and in lower case is one key, or two; the documentation says which."""
    intent = t.intent(key=_uuid("letter"))
    await t.send(intent, lines=[t.spelled(intent.key.upper())])
    answer = await t.send(intent, lines=[t.spelled(intent.key)])
    t.must(answer.status < 500, "an answer that is no server error", answer)
    count = await t.effects(intent)
    t.note(f"a UUID in upper case and in lower case is {'one key' if count == 1 else f'{count} keys'}")


@case(
    "SYN-13",
    SHOULD,
    "draft 2.2, 5",
    "Keys that can be guessed are shared by those who have nothing to do with each other.",
)
async def guessable_key(t: Probe) -> None:
    """A key that anybody may guess is refused, at least where there are no accounts."""
    for key in ("1", "test"):
        answer = await t.send(t.intent(key=key))
        accepted = answer.success or answer.status in t.profile.mismatch
        if accepted and t.target.account:
            t.note(f"the key {key!r} is accepted")
        else:
            t.expect(not accepted, "400", answer)


@case(
    "SYN-14",
    MUST,
    "draft 5; contract R21",
    "A key that is pasted into a query, a pattern or a path reads other people's answers.",
    core=True,
)
async def metacharacters(t: Probe) -> None:
    """Characters that mean something to databases, patterns and paths mean nothing in a key."""
    other = t.intent()
    theirs = await t.done(other)
    salt = secrets.token_hex(4)
    for text in (f"'OR/**/1=1--{salt}", f"{salt}*", f"../../{salt}", f"%00{salt}", f"{salt}$(id)"):
        await t.expect_protected_or_refused(t.intent(), quoted(text))
    for pattern in ("*", other.key[:8] + "*", other.key[:-1] + "_", "%"):
        answer = await t.send(t.intent(), lines=[quoted(pattern)])
        t.must(answer.body != theirs.body or not theirs.body, "another answer than another key's", "the same answer")


@case("SYN-15", MUST, "RFC 9110 6.5; contract R1", "Whoever can write trailers can choose the key.")
async def trailer(t: Probe) -> None:
    """A key that is only in the trailers counts as absent."""
    intent = t.intent()
    sent = (t.profile.header, t.spelled(intent.key))
    for _ in range(2):
        answer = await t.send_with_trailer(intent, sent)
    if answer.success:
        t.must(not t.replayed(answer), "no replay", answer)
        try:
            await t.expect_effects(intent, 2)
        except Inconclusive:
            t.note("whether the second request ran could not be told")
