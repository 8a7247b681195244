"""What is checked: each claim about the protocol, with the bounds within which every case is tried.

A check either holds in all its properties, or is refuted in one: the property that is meant to catch what
the check plants. That each property can fail is what makes the others' holding worth something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

STATES = ("WellFormed", "AtMostOnce", "AnsweredIfDone", "OneOutcome", "NoLostAnswer")
STEPS = ("Legal", "Stands", "TokensRise", "Fenced", "NoFalseTakeover", "UnknownOnlyIf", "ResultsStand")
EVENTUALLY = ("Settles", "Answers")


@dataclass(frozen=True, slots=True)
class Check:
    """One run of the model checker.

    Attributes:
        name: for people.
        mode: what the route declares: `manual`, `rerun`, `transactional` or `steps`.
        budget: how many things go wrong.
        keys, workers, steps: how many of each.
        wrong: the planted fault.
        lagging: the store answers before its replica knows.
        waits: what is claimed runs only when the replica knows.
        by_hand: operators act, and time ends records.
        invariants: hold in each state.
        properties: hold for each step.
        eventually: come about in the end, if living processes go on and clients ask again.
        refutes: the property that fails; "" if none may.
    """

    name: str
    mode: str = "manual"
    budget: int = 2
    keys: int = 1
    workers: int = 2
    steps: int = 1
    wrong: str = "nothing"
    lagging: bool = False
    waits: bool = False
    by_hand: bool = False
    invariants: tuple[str, ...] = STATES
    properties: tuple[str, ...] = STEPS
    eventually: tuple[str, ...] = ()
    refutes: str = ""

    def as_configuration(self) -> str:
        """The configuration as TLC reads it."""
        lines = [f"SPECIFICATION {'Fairly' if self.eventually else 'Safely'}", "CONSTANTS"]
        lines += [f"  Keys = {_set('k', self.keys)}", f"  Workers = {_set('w', self.workers)}"]
        lines += [f"  Steps = {self.steps}", f"  Budget = {self.budget}"]
        lines += [f'  Mode = "{self.mode}"', f'  Wrong = "{self.wrong}"']
        lines += [f"  Lagging = {_truth(self.lagging)}", f"  Waits = {_truth(self.waits)}"]
        lines += [f"  ByHand = {_truth(self.by_hand)}"]
        if not self.eventually:  # what comes about is not to be judged with workers exchanged for each other
            lines.append("SYMMETRY Interchangeable")
        lines += [f"INVARIANT {name}" for name in self.invariants]
        lines += [f"PROPERTY {name}" for name in (*self.properties, *self.eventually)]
        return "\n".join(lines) + "\n"


def _set(letter: str, size: int) -> str:
    return "{" + ", ".join(f"{letter}{number}" for number in range(1, size + 1)) + "}"


def _truth(value: bool) -> str:
    return str(value).upper()


_LAGGING = ("WellFormed", "AtMostOnce")
_MAY_REPEAT = tuple(name for name in STATES if name != "AtMostOnce")

MANUAL = Check("manual: at most once", by_hand=True, eventually=EVENTUALLY)
RERUN = replace(MANUAL, name="rerun: one outcome", mode="rerun", invariants=_MAY_REPEAT)
TRANSACTIONAL = replace(
    MANUAL, name="transactional: exactly one commit", mode="transactional", invariants=(*STATES, "RecordIfEffect")
)
STEPWISE = replace(MANUAL, name="steps: each call once in its window", mode="steps", steps=2, eventually=())
WAITING = Check(
    "a store that lags, and waits: at most once",
    lagging=True,
    waits=True,
    invariants=_LAGGING,
    properties=("NoFalseTakeover", "Fenced"),
    eventually=EVENTUALLY,
)

HOLD = (MANUAL, RERUN, TRANSACTIONAL, STEPWISE, WAITING)
"""Small enough to be checked with every change."""


def _wrong(wrong: str, refutes: str, *, mode: str = "manual", **bounds: int | bool) -> Check:
    """A planted fault, and nothing checked but what is meant to catch it."""
    check = Check(wrong, mode=mode, wrong=wrong, invariants=(), properties=(), refutes=refutes)
    return _only(replace(check, **bounds), refutes)  # type: ignore[arg-type] # each is named like its attribute


def _only(check: Check, name: str) -> Check:
    if name in EVENTUALLY:
        return replace(check, eventually=(name,), invariants=(), properties=(), refutes=name)
    if name in STEPS:
        return replace(check, properties=(name,), invariants=(), refutes=name)
    return replace(check, invariants=(name,), properties=(), refutes=name)


REFUTED = (
    _wrong("unfenced complete", "OneOutcome", mode="rerun"),
    _wrong("unfenced release", "AtMostOnce"),
    _wrong("release after effect", "AtMostOnce"),
    _wrong("app clock", "NoFalseTakeover"),
    _wrong("blind takeover", "AtMostOnce", mode="transactional"),
    _wrong("reaper of live records", "AtMostOnce"),
    _wrong("key of the attempt", "AtMostOnce", mode="steps"),
    _only(Check("a store that lags, and does not wait", lagging=True), "AtMostOnce"),
    _wrong("looks at the token", "OneOutcome", budget=3, by_hand=True),
    _wrong("an operator guesses", "AtMostOnce", by_hand=True),
    _wrong("abandons what may rerun", "UnknownOnlyIf", mode="rerun"),
    _wrong("a lease without end", "Settles"),
)
"""Wrong protocols, each caught by the property that is meant for it."""

CAUGHT_TOO = (
    _wrong("an operator guesses", "AnsweredIfDone", by_hand=True),
    _wrong("two commits", "RecordIfEffect", mode="transactional"),
    _wrong("blind takeover", "NoLostAnswer", mode="rerun"),
    _wrong("unfenced complete", "Fenced", mode="rerun"),
    _wrong("unfenced release", "Legal"),
    _wrong("unfenced release", "Stands"),
    _only(Check("a store that lags, and does not wait", lagging=True), "TokensRise"),
    _only(Check("a store that lags, and does not wait", mode="steps", lagging=True), "ResultsStand"),
    replace(_wrong("waits for ever", "Answers"), lagging=True, waits=True),
)
"""With these, each property but the one about forms has been seen to fail."""

LIMITS = (
    _only(Check("rerun: not at most once", mode="rerun"), "AtMostOnce"),
    _only(Check("a store that lags, and waits: answers may be lost", lagging=True, waits=True), "NoLostAnswer"),
)
"""What the project says that it does not guarantee, shown."""


def _large(check: Check, **bounds: int) -> tuple[Check, Check]:
    """Every state within wider bounds; what comes about in the end, within bounds between."""
    safely = replace(check, eventually=(), **bounds)  # type: ignore[arg-type] # each is named like its attribute
    fairly = replace(check, invariants=(), properties=(), eventually=EVENTUALLY, budget=3)
    return safely, fairly


LARGE = (
    *_large(MANUAL, budget=6, workers=3),
    *_large(RERUN, budget=5, workers=3),
    *_large(TRANSACTIONAL, budget=6, workers=3),
    *_large(STEPWISE, budget=4, workers=3),
    replace(MANUAL, name="manual, two keys", eventually=(), keys=2, workers=3, budget=3),
    replace(STEPWISE, name="steps, two keys", eventually=(), keys=2, workers=2, budget=3),
    replace(WAITING, eventually=(), budget=4, workers=3),
)
"""For `make prove`."""
