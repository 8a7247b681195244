"""What a case works with: fresh intents, sending them, counting their effects, and saying what does not hold."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, NoReturn
from urllib.parse import urlencode

from retrysafe.faults import ChaosProxy, Fault
from retrysafe.verify.content import Document
from retrysafe.verify.effects import run_command
from retrysafe.verify.message import NO_ANSWER, Answer, Field, Fields, Sent, summary
from retrysafe.verify.profile import Profile
from retrysafe.verify.target import Operation, Target, parse_operation
from retrysafe.verify.verdict import MUST, SHOULD, Finding, Inconclusive, Severity, Skipped, Step, Stopped
from retrysafe.verify.wire import Starter, Wire, exchange_http2, request_bytes

STEPS_KEPT = 60
_POLL_S = 0.05
_WAIT_S_MAX = 2.0
_AWAY = frozenset({NO_ANSWER, 502, 503, 504})
_LATER = _AWAY | {423, 425, 429}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes about it.

    Attributes:
        rounds: of each race; fewer than 20 show little.
        width: how many requests race in a round.
        flood: how many keys a flood has.
        samples: how many times something is timed.
        timeout_s: the longest that one exchange may take.
        patience_s: how long a case waits for a final answer.
        settle_s: how long an effect may take to be seen after its answer.
        head_start_s: how long a slow operation runs before another request follows it.
        effects_max: the most requests that may have an effect; cases beyond it are skipped.
    """

    rounds: int = 20
    width: int = 20
    flood: int = 2_000
    samples: int = 200
    timeout_s: float = 30.0
    patience_s: float = 90.0
    settle_s: float = 2.0
    head_start_s: float = 0.2
    effects_max: int = 20_000


@dataclass(slots=True)
class Run:
    """What all cases of a run share.

    Attributes:
        target: what the operator offers.
        profile: what is expected.
        settings: how to go about it.
        id: of the run; it stands in every reference, so that what a run leaves behind can be found.
        sent: requests so far that may have had an effect.
    """

    target: Target
    profile: Profile
    settings: Settings = field(default_factory=Settings)
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    sent: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def reference(self) -> str:
        """A business reference that nothing else has."""
        return f"verify-{self.id}-{next(self._numbers):05}"


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that a client wants done once.

    Attributes:
        reference: of the business; effects are counted by it.
        key: the idempotency key, without quotes.
        request: what is sent in every attempt, without the key and the account.
        account: fields that say who asks.
        first_sent: when, as an HTTP date.
    """

    reference: str
    key: str
    request: Sent
    account: Fields
    first_sent: str

    def saying(self, body: bytes, *fields: Field) -> Intent:
        """The same intent with other content."""
        request = replace(self.request, body=body)
        for name, value in fields:
            request = request.setting(name, value)
        return replace(self, request=request)

    def adding(self, *fields: Field) -> Intent:
        """The same intent with more fields."""
        return replace(self, request=self.request.adding(*fields))

    def by(self, account: Fields) -> Intent:
        """The same sent by somebody else."""
        return replace(self, account=account)

    def at(self, url: str) -> Intent:
        """The same sent somewhere else."""
        return replace(self, request=replace(self.request, url=url))

    @property
    def document(self) -> dict[str, Any]:
        """The content, which is a JSON object or a form."""
        document = self.request.document
        assert document is not None, "the case needs content with fields"
        return document

    def holding(self, document: Document) -> Intent:
        """The same intent with this for content, written in the same way."""
        return replace(self, request=self.request.holding(document))


def with_member(sent: Sent, name: str, key: str) -> Sent:
    """The request with the key in its content.

    Raises:
        Skipped: the content has no members.
    """
    if sent.form and sent.body:
        return replace(sent, body=sent.body + f"&{urlencode({name: key})}".encode())
    is_coded = any(field.lower() == "content-encoding" for field, _ in sent.headers)
    if sent.body and (is_coded or sent.document is None):
        raise Skipped("the profile carries the key in the content, which has no members here")
    return sent.holding({**(sent.document or {}), name: key})


def quoted(key: str) -> str:
    """The key as a Structured Field String."""
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Probe:
    """The tools of one case.

    Args:
        run: what all cases share.
        severity: of the case.

    Attributes:
        findings: what did not hold.
        notes: what is worth knowing.
        steps: the last exchanges.
    """

    def __init__(self, run: Run, severity: Severity) -> None:
        self.run = run
        self.target, self.profile, self.settings = run.target, run.profile, run.settings
        self.severity = severity
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.steps: list[Step] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._before: dict[str, int] = {}
        self._overlapped = 0

    # --- intents and keys -------------------------------------------------------------------------

    def intent(self, name: str = "operation", key: str | None = None) -> Intent:
        """Something new to be done, by the account, with a key of its own."""
        operation = self.target.operation if name == "operation" else self.target.operations[name]
        reference = self.run.reference()
        return self.intent_of(operation, reference, key or self.new_key())

    def intent_of(self, operation: Operation, reference: str, key: str) -> Intent:
        """An operation to be done for this reference."""
        request = replace(operation.request(reference), secret=self.target.secret_fields)
        request = request.adding(("User-Agent", f"retrysafe-verify (run {self.run.id})"))
        return Intent(reference, key, request, self.target.account, formatdate(usegmt=True))

    def new_key(self) -> str:
        """A key as the profile wants it."""
        if self.profile.key_format == "uuid7":
            milliseconds = uuid.uuid1().time // 10_000 - 12_219_292_800_000
            return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | secrets.randbits(62)))
        return str(uuid.uuid4())

    def spelled(self, key: str) -> str:
        """The key as the profile spells it."""
        return quoted(key) if self.profile.spelling == "quoted" else key

    # --- sending ----------------------------------------------------------------------------------

    async def send(
        self,
        intent: Intent,
        *,
        lines: Sequence[str] | None = None,
        starter: Starter | None = None,
        via: int | None = None,
    ) -> Answer:
        """Send an intent once more.

        Args:
            intent: what to send.
            lines: the values of the key's field lines as they stand on the wire; none for no key.
            starter: releases it together with others.
            via: the port of a proxy.
        """
        try:
            sent = self.prepared(intent, lines)
            await self._account_for(sent, intent.reference)
        except BaseException:
            if starter:
                starter.leave()  # the others must not wait for it
            raise
        answer = await Wire(self.settings.timeout_s, via).exchange(sent, starter)
        return self._keep(intent, sent, answer)

    async def send_with_trailer(self, intent: Intent, trailer: Field) -> Answer:
        """Send an intent without a key, and this field behind its content."""
        sent = replace(self.prepared(intent, []), trailers=(trailer,))
        await self._account_for(sent, intent.reference)
        return self._keep(intent, sent, await Wire(self.settings.timeout_s).exchange(sent))

    async def send_http2(self, intent: Intent) -> Answer:
        """Send an intent over HTTP/2."""
        sent = self.prepared(intent)
        await self._account_for(sent, intent.reference)
        answer = await exchange_http2(sent, self.settings.timeout_s)
        if answer is None:
            raise Skipped("the target does not speak HTTP/2 to a client that knows of it beforehand")
        return self._keep(intent, sent, answer)

    async def send_through(self, fault: Fault, intent: Intent) -> Answer:
        """Send an intent through a network with this fault."""
        async with ChaosProxy(intent.request.url, fault) as proxy:
            return await self.send(intent, via=proxy.port)

    async def leave(self, intent: Intent, at_byte: int | None = None, after_s: float = 0.0) -> None:
        """Send an intent, or the first bytes of its content, and go away."""
        sent = self.prepared(intent)
        await self._account_for(sent, intent.reference)
        await Wire(self.settings.timeout_s).leave(sent, at_byte, after_s)

    def prepared(self, intent: Intent, lines: Sequence[str] | None = None) -> Sent:
        """The request with its account and its key."""
        sent = intent.request.adding(*intent.account)
        if self.profile.json_member:
            if lines is not None:
                raise Skipped("the profile carries the key in the content, where it has no spelling")
            return with_member(sent, self.profile.json_member, intent.key)
        values = [self.spelled(intent.key)] if lines is None else lines
        sent = sent.adding(*((self.profile.header, value) for value in values))
        return sent.adding((self.profile.companion, intent.first_sent)) if self.profile.companion else sent

    def length_on_wire(self, intent: Intent) -> int:
        """How many bytes the request has."""
        return len(request_bytes(self.prepared(intent)))

    def may_send(self, requests: int) -> bool:
        """Whether so many more requests are within the bound."""
        return self.run.sent + requests <= self.settings.effects_max

    async def _account_for(self, sent: Sent, reference: str) -> None:
        if sent.method in {"GET", "HEAD", "OPTIONS"}:
            return
        if self.run.sent >= self.settings.effects_max:
            raise Skipped(f"the bound of {self.settings.effects_max} requests is reached: --effects-max")
        self.run.sent += 1
        counter = self.target.counter
        if counter and counter.total and reference not in self._before:
            self._before[reference] = await counter.count(reference, ())

    def _keep(self, intent: Intent, sent: Sent, answer: Answer) -> Answer:
        self._answers[intent.reference].append(answer)
        self.steps = [*self.steps[-STEPS_KEPT + 1 :], Step(sent, answer)]
        return answer

    async def done(self, intent: Intent) -> Answer:
        """Send an intent that is new, and be sure that it was done."""
        answer = await self.send(intent)
        if not answer.success:
            raise Inconclusive(f"a first request was answered {answer}")
        return answer

    async def call(self, name: str, intent: Intent) -> Answer:
        """Call another operation for the reference of an intent, without a key."""
        other = self.intent_of(self.target.operations[name], intent.reference, "")
        sent = other.request.adding(*intent.account)
        answer = await Wire(self.settings.timeout_s).exchange(sent)
        self.steps.append(Step(sent, answer))
        return answer

    async def call_operation(self, intent: Intent) -> Answer:
        """Have the operation done for the reference of an intent, under a key of its own."""
        return await self.done(self.intent_of(self.target.operation, intent.reference, self.new_key()))

    async def hook(self, name: str) -> None:
        """Have the operator's hook change the target."""
        text = self.target.hooks[name]
        if text.startswith("cmd "):
            await run_command(text.removeprefix("cmd "))
            return
        operation = parse_operation(text, self.target.base_url)
        answer = await Wire(self.settings.timeout_s).exchange(operation.request(""))
        if not answer.success:
            raise Inconclusive(f"the hook {name} was answered {answer}")

    async def until_back(self) -> None:
        """Wait until the target answers again.

        Raises:
            Inconclusive: it does not, for as long as patience lasts.
        """
        end_s = time.monotonic() + self.settings.patience_s
        asked = Sent("OPTIONS", self.target.operation.url)
        while (answer := await Wire(self.settings.timeout_s).exchange(asked)).status in _AWAY:
            if time.monotonic() > end_s:
                raise Inconclusive(f"the target did not come back: {answer}")
            await asyncio.sleep(_POLL_S)

    # --- while another is at work -----------------------------------------------------------------

    @asynccontextmanager
    async def running(self, intent: Intent) -> Any:
        """A slow intent at work; leaves when its answer has come. The body must end while it is at work."""
        first = asyncio.create_task(self.send(intent))
        try:
            await asyncio.wait([first], timeout=self.settings.head_start_s)
            if first.done():
                raise Inconclusive(f"the slow operation was over at once: {first.result()}")
            yield first
            await first
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    def still(self, first: asyncio.Task[Answer]) -> None:
        """Be sure that the slow operation was at work until now."""
        if first.done():
            raise Inconclusive("the slow operation was over before the second request was answered")

    async def race(self, intents: Sequence[Intent]) -> list[Answer]:
        """Send these so that they arrive together; each has a connection of its own."""
        starter = Starter(len(intents))
        answers = await asyncio.gather(*(self.send(intent, starter=starter) for intent in intents))
        whole = [answer for answer in answers if answer.status]
        if len(whole) > 1 and max(answer.began_s for answer in whole) < min(answer.ended_s for answer in whole):
            self._overlapped += 1
        return answers

    def rounds(self) -> Iterator[int]:
        """The rounds of a race. If in none of them the requests overlapped, nothing was shown."""
        yield from range(self.settings.rounds)
        if not self._overlapped:
            raise Inconclusive(f"in {self.settings.rounds} rounds every request was answered before the last was sent")

    async def until_final(self, intent: Intent) -> Answer:
        """Retry until the answer is final, or patience ends."""
        end_s = time.monotonic() + self.settings.patience_s
        while True:
            answer = await self.send(intent)
            if not self.is_later(answer) or time.monotonic() > end_s:
                return answer
            wait = answer.value("retry-after") or ""
            await asyncio.sleep(min(int(wait), _WAIT_S_MAX) if wait.isdigit() else 2 * _POLL_S)

    def is_later(self, answer: Answer) -> bool:
        """Whether an answer asks to come again."""
        document = answer.json()
        if isinstance(document, dict) and document.get("retryable") is False:
            return False
        if self.replayed(answer):
            return False
        return answer.status in _LATER or (answer.status in self.profile.in_flight and not self.is_unknown(answer))

    @staticmethod
    def is_unknown(answer: Answer) -> bool:
        """Whether an answer says that nobody knows how it ended."""
        return 400 <= answer.status < 600 and "unknown" in (answer.kind or "").lower()

    # --- what happened ----------------------------------------------------------------------------

    async def effects(self, intent: Intent) -> int:
        """How many effects the intent had: counted, or told from its answers.

        Raises:
            Inconclusive: they cannot be told.
        """
        answers = self._answers[intent.reference]
        if self.target.counter is None:
            return self._told(answers)
        expected = any(answer.success for answer in answers)
        end_s = time.monotonic() + self.settings.settle_s
        while True:
            count = await self.target.counter.count(intent.reference, answers)
            count -= self._before.get(intent.reference, 0)
            if count >= expected or time.monotonic() > end_s:
                return count
            await asyncio.sleep(_POLL_S)

    async def counted(self, intent: Intent) -> int:
        """What the counter says now, whatever was answered.

        Raises:
            Inconclusive: there is no counter.
        """
        if self.target.counter is None:
            raise Inconclusive("effects must be counted: --effects")
        return await self.target.counter.count(intent.reference, self._answers[intent.reference])

    def _told(self, answers: Sequence[Answer]) -> int:
        done = [answer for answer in answers if answer.success]
        firsts = [answer for answer in done if not self.replayed(answer)]
        different = {answer.body for answer in done}
        if len(firsts) < 2:
            return min(1, len(done))
        if self.profile.replay == "exact" and len(different) > 1:
            return len(different)
        raise Inconclusive("answers alone do not tell how often it was done: --effects")

    def replayed(self, answer: Answer) -> bool:
        """Whether an answer is marked as a replay."""
        if not self.profile.marker or self.profile.marker_on_every:
            return False
        value = answer.value(self.profile.marker)
        return value is not None and (not self.profile.marker_value or value == self.profile.marker_value)

    # --- what must hold ---------------------------------------------------------------------------

    def must(self, holds: bool, expected: str, seen: object) -> None:
        """What binds whatever the case's own severity is."""
        self.judge(holds, MUST, expected, seen)

    def should(self, holds: bool, expected: str, seen: object) -> None:
        """What is asked for, and binds less than the case."""
        self.judge(holds, SHOULD, expected, seen)

    def expect(self, holds: bool, expected: str, seen: object) -> None:
        """What the case is about, at its own severity."""
        self.judge(holds, self.severity, expected, seen)

    def judge(self, holds: bool, severity: Severity, expected: str, seen: object) -> None:
        """What binds as the profile says."""
        if holds:
            return
        self.findings.append(Finding(severity, expected, str(seen)))
        if severity is MUST:
            raise Stopped

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.notes.append(text)

    @staticmethod
    def skip(reason: str) -> NoReturn:
        """This cannot be tried here."""
        raise Skipped(reason)

    async def expect_effects(self, intent: Intent, count: int) -> None:
        """Exactly so many effects."""
        had = await self.effects(intent)
        answers = summary(self._answers[intent.reference])
        self.must(had == count, f"{count} effect{'s' * (count != 1)}", f"{had} effects, after {answers}")

    async def expect_at_most_one(self, intent: Intent) -> None:
        """Never a second effect."""
        had = await self.effects(intent)
        self.must(had <= 1, "at most one effect", f"{had} effects, after {summary(self._answers[intent.reference])}")

    def expect_replay(self, first: Answer, again: Answer) -> None:
        """The second answer is the first once more."""
        self.must(again.status == first.status, f"{first.status}, as at first", again)
        if self.profile.replay == "exact":
            self.must(again.body == first.body, "the same content as at first", f"{again} with other content")

    def expect_status(self, answer: Answer, statuses: Sequence[int]) -> None:
        """One of these statuses, at the severity of the case."""
        self.expect(answer.status in statuses, " or ".join(map(str, statuses)), answer)

    async def expect_refused(self, answer: Answer, intent: Intent) -> None:
        """Refused as no key at all, and nothing was done."""
        self.expect(answer.status in self.profile.invalid, f"{self.profile.invalid[0]}", answer)
        if not answer.success:
            await self.expect_effects(intent, 0)

    async def expect_protected_or_refused(self, intent: Intent, line: str) -> None:
        """Whatever the key looks like: sent twice it is refused, or has one effect."""
        first, again = await self.send(intent, lines=[line]), await self.send(intent, lines=[line])
        for answer in (first, again):
            self.must(answer.status < 500, "an answer that is no server error", answer)
        await self.expect_at_most_one(intent)

    def expect_mismatch(self, first: Answer, answer: Answer) -> None:
        """The answer to another request under a used key, as the profile has it."""
        if self.profile.mismatch_means == "replayed":
            self.expect_replay(first, answer)
        elif self.profile.mismatch:
            self.expect_status(answer, self.profile.mismatch)
            self._expect_words(answer, self.profile.mismatch_code)
        else:
            self.must(not answer.success, "a refusal", answer)

    def _expect_words(self, answer: Answer, words: Sequence[str]) -> None:
        text = answer.body.decode(errors="replace")
        if words:
            self.expect(any(word in text for word in words), f"a document with {' or '.join(words)}", answer)
