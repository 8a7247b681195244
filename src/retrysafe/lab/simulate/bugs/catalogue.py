"""Nearly fifty ways to be wrong, each planted into the simulated product from outside: the test of the simulator.

A bug is a part that takes the place of the product's own; the product has no switches. Each is named after the
mistake, and `find` says how many schedules it takes until the auditor notices.
"""

from __future__ import annotations

from functools import lru_cache

from retrysafe.lab.evidence import Mode
from retrysafe.lab.simulate.bugs import connections, doors, flows, handling, stores
from retrysafe.lab.simulate.explore import run_seed
from retrysafe.lab.simulate.worker import Parts
from retrysafe.lab.simulate.world import Run
from retrysafe.protocol.states import Event
from retrysafe.value import value


@value
class Bug:
    """One planted bug.

    Attributes:
        name: of the mistake.
        sentence: what is wrong.
        mode: of the route in which it shows.
        parts: the product with it.
    """

    name: str
    sentence: str
    mode: Mode
    parts: Parts


M, R, T, S = Mode.MANUAL, Mode.RERUN, Mode.TRANSACTIONAL, Mode.STEPS

BUGS: tuple[Bug, ...] = (
    Bug(
        "check-then-act",
        "the claim looks first",
        M,
        Parts(store=stores.OverwritesClaims, view=connections.ChecksThenActs),
    ),
    Bug("unfenced-complete", "any owner may complete", R, Parts(store=stores.unfenced(Event.COMPLETE))),
    Bug("unfenced-release", "any owner may release", R, Parts(store=stores.unfenced(Event.RELEASE))),
    Bug("unfenced-discard", "any claimant may discard", M, Parts(store=stores.unfenced(Event.DISCARD))),
    Bug("unfenced-renew", "any owner may renew", R, Parts(store=stores.unfenced(Event.RENEW))),
    Bug("release-after-effect", "an exception releases the key", M, Parts(exchange=doors.ReleasesOnFailure)),
    Bug("cancel-releases", "a cancelled handler releases the key", M, Parts(exchange=doors.ReleasesOnCancel)),
    Bug("break-discards", "an answer that breaks off discards the key", M, Parts(exchange=doors.DiscardsOnBreak)),
    Bug(
        "own-clock",
        "the worker's clock decides",
        M,
        Parts(store=stores.BelievesTheClaimant, view=connections.GoesByItsOwnClock),
    ),
    Bug("takeover-without-compare", "two may take over", R, Parts(store=stores.TakesOverWithoutCompare)),
    Bug("reclaim-without-compare", "two may claim again", M, Parts(store=stores.ReclaimsWithoutCompare)),
    Bug("early-lapse", "a lease is over before its end", M, Parts(store=stores.LapsesEarly)),
    Bug("vanishing-claim", "a claim vanishes with its lease", M, Parts(store=stores.VanishesWithItsLease)),
    Bug("reaps-the-living", "the reaper deletes live records", M, Parts(store=stores.ReapsTheLiving)),
    Bug("reaps-the-unknown", "the reaper deletes unknown records", M, Parts(store=stores.ReapsTheUnknown)),
    Bug("forgets-tombstones", "a key is forgotten with its answer", M, Parts(store=stores.ForgetsTombstones)),
    Bug("forgets-anything", "forgetting does not look again", M, Parts(store=stores.ForgetsAnything)),
    Bug("abandons-the-completed", "giving up does not look again", M, Parts(store=stores.AbandonsTheCompleted)),
    Bug("reruns-unknown", "what is unknown runs again", M, Parts(store=stores.RetriesUnknown)),
    Bug("lazy-sync", "the store answers before it is durable", M, Parts(store=stores.SyncsLazily)),
    Bug("early-done", "a completion counts when it is sent", M, Parts(view=connections.SaysDoneTooEarly)),
    Bug(
        "retry-without-token",
        "a completion is retried without its token",
        R,
        Parts(view=connections.RetriesWithoutToken),
    ),
    Bug(
        "zombie-answer",
        "who lost its claim sends its own answer",
        R,
        Parts(protect=flows.answering(flows.keeps_its_answer)),
    ),
    Bug(
        "says-recorded",
        "an answer that is not recorded is not marked",
        M,
        Parts(protect=flows.answering(flows.says_recorded)),
    ),
    Bug("waiter-runs", "who has waited runs without a claim", M, Parts(protect=flows.runs_after_waiting)),
    Bug("one-token", "all claims have the same token", M, Parts(protect=flows.with_token)),
    Bug("no-fingerprint", "what the request is does not count", M, Parts(protect=flows.without_fingerprint)),
    Bug("no-scope", "keys of two accounts meet", M, Parts(exchange=doors.LeavesOutTheScope)),
    Bug("no-authorisation", "a replay is for everybody", M, Parts(exchange=doors.ShowsItToAnybody)),
    Bug("never-renews", "a lease is not renewed", M, Parts(driver=flows.NeverRenews)),
    Bug("runs-in-doubt", "a lost reply counts as a grant", M, Parts(driver=flows.RunsWhenInDoubt)),
    Bug(
        "fails-open",
        "without the store it runs unprotected",
        M,
        Parts(driver=flows.FailsOpen, exchange=doors.Remembering),
    ),
    Bug(
        "takes-back-what-runs",
        "leaving discards a running claim",
        M,
        Parts(driver=flows.TakesBackWhatRuns, exchange=doors.Remembering),
    ),
    Bug("leaving-cancels", "leaving cancels the handler and releases", M, Parts(exchange=doors.TakesTheHandlerAlong)),
    Bug("responds-then-records", "the answer goes out first", M, Parts(exchange=doors.RespondsThenRecords)),
    Bug("loses-fields", "a replay lacks fields", M, Parts(exchange=doors.LosesFields)),
    Bug("no-mark", "a replay is not marked", M, Parts(exchange=doors.DoesNotMark)),
    Bug("commits-without-claim", "who is late commits", T, Parts(exchange=handling.CommitsWithoutTheClaim)),
    Bug("records-afterwards", "the row is committed by itself", T, Parts(exchange=handling.RecordsAfterwards)),
    Bug("believes-the-handler", "nobody asks what was committed", T, Parts(exchange=handling.BelievesTheHandler)),
    Bug("discards-in-doubt", "a commit in doubt is no commit", T, Parts(exchange=handling.DiscardsWhatItCannotTell)),
    Bug("keys-by-attempt", "child keys have the attempt in them", S, Parts(exchange=handling.KeysByAttempt)),
    Bug("one-key-for-all", "all steps have one key", S, Parts(exchange=handling.OneKeyForAll)),
    Bug("forgets-results", "what was done is done again", S, Parts(exchange=handling.ForgetsResults)),
    Bug("sends-for-ever", "the window is not looked at", S, Parts(exchange=handling.SendsAgainForEver)),
    Bug("changes-its-input", "what is sent again is not the same", S, Parts(exchange=handling.ChangesItsInput)),
    Bug("skips-the-journal", "calls have keys of their own", S, Parts(exchange=handling.SkipsTheJournal)),
    Bug("acts-after-answering", "the effect comes after the answer", M, Parts(exchange=doors.AnswersBeforeItActs)),
)

SCHEDULES_MAX = 10_000


@lru_cache(maxsize=len(BUGS))
def find(bug: Bug) -> tuple[int, Run | None]:
    """Simulate with a bug until the auditor notices; how many schedules that took, and the last of them.

    Args:
        bug: to be planted.

    Returns:
        The count, and the run that shows it; None if `SCHEDULES_MAX` did not.
    """
    for seed in range(SCHEDULES_MAX):
        run = run_seed(seed, bug.mode, bug.parts)
        if run.violations:
            return seed + 1, run
    return SCHEDULES_MAX, None
