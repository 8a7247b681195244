"""Does a key keep what belongs to one account from all others?"""

from __future__ import annotations

import asyncio
import math
import time

from retrysafe.verify.case import Group
from retrysafe.verify.message import Answer, summary
from retrysafe.verify.probe import Intent, Probe, quoted
from retrysafe.verify.verdict import MUST, SHOULD, Inconclusive

group = Group()
case = group.case

_FLOOD_WIDTH = 20
_CHANCE_MAX = 0.001
_SLOWER_MAX = 1.25


def for_other(t: Probe, intent: Intent, reference: str | None = None) -> Intent:
    """The same key, sent by the other account; with another reference it is another request."""
    other = t.intent_of(t.target.operation, reference or intent.reference, intent.key)
    return other.by(t.target.other_account)


def expect_own(t: Probe, first: Answer, answer: Answer) -> None:
    """The other account's answer is its own, as for a key that was never used."""
    t.must(answer.success, "2xx, as for an unused key", answer)
    t.must(not t.replayed(answer), "an execution of its own", "a replay")
    t.must(answer.body != first.body, "an answer of its own", "the answer of the first account")


@case(
    "SEC-01",
    MUST,
    "draft 5; contract R15",
    "One customer reads what another one ordered.",
    needs=["other-account", "effects"],
    core=True,
)
async def same_request(t: Probe) -> None:
    """Another account with the same key and the same request gets an execution of its own."""
    intent = t.intent()
    first = await t.done(intent)
    expect_own(t, first, await t.send(for_other(t, intent)))


@case(
    "SEC-02",
    MUST,
    "contract R19",
    "An account can find out which keys another one has used, and block them.",
    needs=["other-account"],
    core=True,
)
async def other_request(t: Probe) -> None:
    """Another account with the same key and another request gets an execution of its own."""
    intent = t.intent()
    first = await t.done(intent)
    expect_own(t, first, await t.send(for_other(t, intent, t.run.reference())))


@case(
    "SEC-03",
    MUST,
    "contract R19, R114",
    "An account can see when another one is at work, and get in its way.",
    needs=["other-account", "slow"],
    core=True,
)
async def while_at_work(t: Probe) -> None:
    """Another account with a key that is in flight gets an execution of its own."""
    intent = t.intent("slow")
    async with t.running(intent) as first:
        answer = await t.send(for_other(t, intent, t.run.reference()))
    expect_own(t, first.result(), answer)


@case(
    "SEC-04",
    SHOULD,
    "contract R16",
    "A client whose token was renewed between two attempts is charged twice.",
    needs=["second-credential"],
    core=True,
)
async def rotated(t: Probe) -> None:
    """A retry with another credential of the same account is a retry."""
    intent = t.intent()
    first = await t.done(intent)
    again = await t.send(intent.by(t.target.second_credential))
    t.expect(again.status == first.status, f"{first.status}, as at first", again)
    count = await t.effects(intent)
    t.expect(count == 1, "one effect", f"{count} effects")


@case("SEC-05", MUST, "contract R60", "Whoever finds a key in a log reads the answer.", needs=["account"], core=True)
async def no_credentials(t: Probe) -> None:
    """A retry without credentials is refused."""
    intent = t.intent()
    first = await t.done(intent)
    answer = await t.send(intent.by(()))
    t.must(answer.body != first.body, "a refusal", "the stored answer")
    if answer.success and (await t.send(t.intent().by(()))).success:
        t.skip("the API asks nobody for credentials")
    t.must(answer.status in {400, 401, 403, 404}, "401", answer)


@case(
    "SEC-06",
    MUST,
    "contract R60",
    "Who was dismissed still reads the answers.",
    needs=["revoke", "restore"],
    core=True,
    alone=True,
)
async def revoked(t: Probe) -> None:
    """A retry by an account that has lost its permission is refused."""
    intent = t.intent()
    first = await t.done(intent)
    await t.hook("revoke")
    try:
        answer = await t.send(intent)
    finally:
        await t.hook("restore")
    t.must(answer.body != first.body, "a refusal", "the stored answer")
    t.must(answer.status in {401, 403, 404}, "403", answer)


@case(
    "SEC-07",
    MUST,
    "contract R17",
    "Two visitors who happen to have the same key get the same answer.",
    needs=["public"],
    core=True,
)
async def anonymous(t: Probe) -> None:
    """Two clients without accounts do not get each other's answers."""
    intent = t.intent("public").by(())
    first = await t.done(intent.adding(("Cookie", "visitor=one")))
    stranger = t.intent_of(t.target.operations["public"], t.run.reference(), intent.key).by(())
    answer = await t.send(stranger.adding(("Cookie", "visitor=two")))
    t.must(answer.body != first.body and not t.replayed(answer), "an answer of its own, or a refusal", "a replay")


@case(
    "SEC-08", SHOULD, "contract R50, R112", "Under a flood of keys the store forgets those that it needs.", alone=True
)
async def flood(t: Probe) -> None:
    """Under a flood of new keys the API stays up or says stop, and the earlier keys still replay."""
    earlier = t.intent()
    first = await t.done(earlier)
    answers: list[Answer] = []
    began_s = time.monotonic()
    while len(answers) < t.settings.flood:
        answers += await asyncio.gather(*(t.send(t.intent()) for _ in range(_FLOOD_WIDTH)))
    odd = [answer for answer in answers if not answer.success and answer.status not in {429, 503}]
    t.expect(not odd, "2xx, 429 or 503", summary(odd))
    t.note(f"{len(answers) / (time.monotonic() - began_s):.0f} new keys a second: {summary(answers)}")
    t.expect_replay(first, await t.until_final(earlier))


@case(
    "SEC-09",
    SHOULD,
    "contract R111",
    "Every retry makes another secret, or the store becomes a safe without a lock.",
    needs=["secret"],
)
async def secret(t: Probe) -> None:
    """A retry of what returns a secret makes no second one; the documentation says whether it is shown again."""
    intent = t.intent("secret")
    first, again = await t.done(intent), await t.send(intent)
    same = again.body == first.body or (again.json() is not None and again.json() == first.json())
    t.expect(same or not again.success, "the same secret, or none", "another secret")
    t.note("a secret is shown again to a retry" if same else f"a retry is answered {again}")


@case(
    "SEC-10",
    MUST,
    "contract R20",
    "A test in the sandbox answers a charge in production.",
    needs=["sandbox"],
    core=True,
)
async def environments(t: Probe) -> None:
    """The same key in the sandbox and in production is two keys."""
    intent = t.intent()
    first = await t.done(intent)
    there = t.intent_of(t.target.operation.at(t.target.sandbox or ""), intent.reference, intent.key)
    answer = await t.send(there)
    t.must(answer.success and not t.replayed(answer), "an execution of its own", answer)
    t.must(answer.body != first.body, "an answer of its own", "the answer of the other environment")


@case("SEC-11", MUST, "contract R78, R116", "A key with a script in it runs in somebody's browser.")
async def reflected(t: Probe) -> None:
    """A key that looks like markup does not come back as markup."""
    tag = f"<script>{t.run.id}</script>"
    for line in (quoted(f'"\\">{tag}'), f'"unterminated {tag}', quoted(tag * 40)):
        intent = t.intent()
        answer = await t.send(intent, lines=[line])
        html = answer.media_type not in {"application/json", "application/problem+json", "text/plain"}
        t.must(not (html and tag.encode() in answer.body), "nothing of the key in HTML", f"{answer}, with the key")
        fields = [name for name, value in answer.headers if "\r" in value or "\n" in value]
        t.must(not fields, "no line break in a field", ", ".join(fields))


@case(
    "SEC-12",
    SHOULD,
    "contract R19",
    "The time of an answer tells which keys another account has used.",
    needs=["other-account", "slow"],
    alone=True,
)
async def timing(t: Probe) -> None:
    """Another account's used keys and unused ones take the same time."""
    slower, chance = await _compared(t)
    comes_again = is_apart = _is_apart(slower, chance)
    if is_apart and t.may_send(3 * t.settings.samples):  # a machine that was busy is not busy in the same way again
        again, its_chance = await _compared(t)
        comes_again = _is_apart(again, its_chance) and (again > 1) == (slower > 1)
    t.expect(not comes_again, "the same time", f"{slower:.2f} times as long, p = {chance:.4f}")


async def _compared(t: Probe) -> tuple[float, float]:
    """How many times as long used keys take, by the medians; and the chance that this is one."""
    used: list[float] = []
    unused: list[float] = []
    for number in range(t.settings.samples):
        intent = t.intent()
        await t.done(intent)
        pair = [(used, for_other(t, intent, t.run.reference())), (unused, t.intent().by(t.target.other_account))]
        for times_s, asked in pair if number % 2 else reversed(pair):
            times_s.append((await t.send(asked)).took_s)
    slower, chance = sorted(used)[len(used) // 2] / sorted(unused)[len(unused) // 2], chance_of(used, unused)
    t.note(f"used keys take {slower:.2f} times as long as unused ones (p = {chance:.3f})")
    return slower, chance


def _is_apart(slower: float, chance: float) -> bool:
    return chance < _CHANCE_MAX and max(slower, 1 / slower) > _SLOWER_MAX


def chance_of(some: list[float], others: list[float]) -> float:
    """The p-value of the Mann-Whitney test, by its normal approximation: are both from one distribution?"""
    if not some or not others:
        raise Inconclusive("nothing was timed")
    ranked = sorted([(value, True) for value in some] + [(value, False) for value in others])
    ranks = sum(rank for rank, (_, is_some) in enumerate(ranked, start=1) if is_some)
    n, m = len(some), len(others)
    distance = abs(ranks - n * (n + 1) / 2 - n * m / 2)
    return math.erfc(distance / math.sqrt(n * m * (n + m + 1) / 12) / math.sqrt(2))
