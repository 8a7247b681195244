"""One step of an operation, as a flow: its intent is durable before the call, its result after it (contract R102).

The flow asks for effects and performs none, as `protocol.flow` does, so it is the same for both colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypedDict

from retrysafe.errors import ClaimLost, StepChanged, StepMisused, StepUnknown, StoreError
from retrysafe.model import Found
from retrysafe.protocol.duration import Duration, milliseconds
from retrysafe.protocol.effects import Effect, Fate, Flow, perform
from retrysafe.protocol.journal import Entry, NotData, StepId, decoded, encoded
from retrysafe.value import value

NAME_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class StepCall:
    """What a call, or a question about one, is made with.

    Attributes:
        key: to send along as the idempotency key of the call: the same in every attempt (contract R101).
        input: the bytes that `input=` was when the step was first begun; None if there was none.
        attempt: 1 for the first call of this step; higher when it is sent again.
    """

    key: str
    input: bytes | None
    attempt: int


class Verified(Enum):
    """What `verify=` may find out about a call whose result nobody recorded, besides its result."""

    NOT_DONE = "not done"
    UNKNOWN = "unknown"


NOT_DONE, UNKNOWN = Verified.NOT_DONE, Verified.UNKNOWN


class StepOptions(TypedDict, total=False):
    """How a step is taken; `Operation.step` explains each."""

    target: str
    input: Any
    if_interrupted: str
    downstream_window: Duration
    verify: Callable[[StepCall], Any]
    not_done: tuple[type[Exception], ...]


@value
class Step:
    """A step, checked.

    Attributes:
        name: of the step.
        target: whom it calls.
        call: makes the call.
        input: as `protocol.journal.encoded`; empty for none.
        window_ms: for how long it may be sent again; 0 for never.
        verify: finds out what became of a call; None if nobody can.
        not_done: what the call raises when the other side says that it did nothing.
    """

    name: str
    target: str
    call: Callable[[StepCall], Any]
    input: bytes
    window_ms: int
    verify: Callable[[StepCall], Any] | None
    not_done: tuple[type[Exception], ...]

    @property
    def id(self) -> StepId:
        """What tells the steps of an operation apart."""
        return self.name, self.target

    @property
    def resumable(self) -> bool:
        """Whether a later attempt can go on when this one is interrupted."""
        return self.window_ms > 0 or self.verify is not None


def make_step(name: str, call: Callable[[StepCall], Any], options: StepOptions) -> Step:
    """Check what a handler wants.

    Raises:
        StepMisused: with what is wrong.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise StepMisused(f"step {name!r}: a name is a text of 1 to {NAME_CHARACTERS_MAX} characters")
    if unknown := set(options) - StepOptions.__optional_keys__:
        raise StepMisused(f'step "{name}" has no option {", ".join(sorted(unknown))}')
    given = options.get("input")
    try:
        data = b"" if given is None else encoded(given)
        window_ms = _window_ms(options)
    except NotData as error:
        raise StepMisused(f'step "{name}": input= must be bytes or JSON data: {error}') from None
    except ValueError as error:
        raise StepMisused(f'step "{name}": {error}') from None
    return Step(
        name, options.get("target", ""), call, data, window_ms, options.get("verify"), options.get("not_done", ())
    )


def _window_ms(options: StepOptions) -> int:
    """For how long the call may be sent again."""
    said, window = options.get("if_interrupted", "unknown"), options.get("downstream_window")
    if said not in ("unknown", "resend"):
        raise ValueError(f'if_interrupted= is {said!r}; it must be "unknown" or "resend"')
    if (said == "resend") != (window is not None):
        raise ValueError(
            'if_interrupted="resend" and downstream_window= go together: how long does the other side remember a key?'
        )
    if said == "resend" and options.get("verify") is not None:
        raise ValueError('if_interrupted="resend" and verify= exclude each other; give one')
    if window is None:
        return 0
    window_ms = milliseconds(window)
    if window_ms == 0:
        raise ValueError("downstream_window= is no time at all; leave if_interrupted= out instead")
    return window_ms


# --- what a step asks for -------------------------------------------------------------------------


@value
class Load(Effect[None]):
    """Have the journal that earlier attempts left."""


@value
class Keep(Effect[bool]):
    """Make the journal durable as it is now; false if the claim is lost. Tried again while the store is away."""


@value
class Look(Effect["Found | None"]):
    """The operation's record as it stands, with the store's clock."""


@value
class Ask(Effect[Any]):
    """Call a function of the handler's and have what it returns; what it raises is thrown in."""

    function: Callable[[StepCall], Any]
    argument: StepCall


class Steps(Protocol):
    """What takes the steps of one operation in this attempt."""

    def take(self, step: Step) -> Any:
        """Take a step: a coroutine where a loop runs; elsewhere its result."""

    def fate(self) -> Fate:
        """What this attempt came to if it fails now."""


class Book(Protocol):
    """The journal of one operation in this attempt, as its steps use it."""

    claimed_at_ms: int
    """Of the attempt that runs, by the store's clock; 0 for the first attempt."""

    def begin(self, step: Step) -> None:
        """The step begins: once in an attempt."""

    def find(self, step: Step) -> Entry | None:
        """Its entry."""

    def write(self, step: Step, entry: Entry | None) -> None:
        """Exchange its entry; None takes it out. Raises StepMisused, and changes nothing, if that is too large."""

    def call(self, step: Step, entry: Entry) -> StepCall:
        """What it is called with."""

    def holds(self, found: Found | None) -> bool:
        """Whether the record is still this attempt's."""

    def give_up(self) -> None:
        """The outcome of the operation is unknown."""


def take(step: Step, book: Book) -> Flow[Any]:
    """Take a step: have its recorded result, or make the call between two writes of the journal.

    Raises:
        ClaimLost: somebody else has the operation; nothing was called since.
        StepUnknown: an earlier attempt may have made the call, and nobody can tell what came of it.
        StepChanged: an earlier attempt began this step with another input.
        StepMisused: the step was taken before in this attempt, or something is no data, or too large.
        StoreError: the intent could not be recorded; nothing was called.
        Exception: what the call raised.
    """
    book.begin(step)
    yield from perform(Load())
    before = book.find(step)
    if before is None:
        intent = Entry(step.name, step.target, book.claimed_at_ms, 1, step.input)
    elif before.input != step.input:
        book.give_up()
        raise StepChanged(
            f'step "{step.name}" has another input than in an earlier attempt; nothing was called. A step that does '
            "something else needs another name"
        )
    elif before.result:
        return decoded(before.result)
    else:
        found = yield from _interrupted(step, before, book)
        if not isinstance(found, Entry):
            return (yield from _finish(step, before, found[0], book))
        intent = found
    yield from _intend(step, intent, before, book)
    # What is sent again without a look may have been done the first time, whatever the other side says of this one.
    unsettled = None if step.verify is not None else before
    result = yield from _call(step, intent, unsettled, book)
    return (yield from _finish(step, intent, result, book))


def _interrupted(step: Step, entry: Entry, book: Book) -> Flow[Entry | tuple[Any]]:
    """An earlier attempt wrote the intent and no result: the entry to call with, or the result that somebody knew."""
    if step.verify is not None:
        answer = yield from perform(Ask(step.verify, book.call(step, entry)))
        if answer is NOT_DONE:
            return Entry(step.name, step.target, book.claimed_at_ms, entry.sends + 1, entry.input)
        if answer is not UNKNOWN:
            return (answer,)
        reason = "verify= could not tell what became of it"
    elif step.window_ms:
        found = yield from perform(Look())
        if found is None or not book.holds(found):
            raise ClaimLost
        since_ms = entry.since_ms or found.record.created_at_ms
        if found.now_ms - since_ms < step.window_ms:
            return Entry(entry.name, entry.target, entry.since_ms, entry.sends + 1, entry.input)
        reason = "the other side may have forgotten its key: it is past its downstream_window"
    else:
        reason = 'it must not be sent again: if_interrupted is "unknown"'
    book.give_up()
    raise StepUnknown(
        f'step "{step.name}" was interrupted in an earlier attempt, and {reason}. '
        "The outcome of the operation is unknown until somebody looks"
    )


def _intend(step: Step, intent: Entry, before: Entry | None, book: Book) -> Flow[None]:
    """Write down what is about to be called."""
    book.write(step, intent)
    try:
        held = yield from perform(Keep())
    except StoreError:
        book.write(step, before)
        raise
    if not held:
        raise ClaimLost


def _call(step: Step, intent: Entry, unsettled: Entry | None, book: Book) -> Flow[Any]:
    """Make the call; one that was not done leaves what an earlier attempt left of it."""
    try:
        return (yield from perform(Ask(step.call, book.call(step, intent))))
    except step.not_done:
        book.write(step, unsettled)
        yield from perform(Keep())  # if the claim is lost, what was raised says more than that
        raise


def _finish(step: Step, intent: Entry, result: Any, book: Book) -> Flow[Any]:
    """Write down what it came to; answered by what a later attempt would be answered with."""
    try:
        kept = encoded(result)
    except NotData as error:
        raise StepMisused(
            f'step "{step.name}" was called, and what it gave cannot be recorded: {error}. Return bytes or JSON data'
        ) from None
    book.write(step, Entry(intent.name, intent.target, intent.since_ms, intent.sends, intent.input, kept))
    try:
        held = yield from perform(Keep())
    except StoreError:
        return decoded(kept)  # the next write of this journal has it; until then the intent stands
    if not held:
        raise ClaimLost
    return decoded(kept)
