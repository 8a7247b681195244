"""Every server with a defect, in the order of what they get wrong."""

from __future__ import annotations

from retrysafe.lab.mutants import answers, documents, keys, outcomes, privacy, races, reuse
from retrysafe.lab.mutants.correct import Server

_MODULES = (keys, answers, reuse, races, outcomes, privacy, documents)


def _servers() -> list[type[Server]]:
    """The classes of these modules, in the order in which they stand; those with an underscore are only parents."""
    found: list[type[Server]] = []
    for module in _MODULES:
        defined = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
        found += [kind for kind in defined if isinstance(kind, type) and issubclass(kind, Server)]
    return [kind for kind in found if not kind.__name__.startswith("_")]


MUTANTS = tuple(_servers())
SERVERS: dict[str, type[Server]] = {kind.__name__: kind for kind in [Server, *MUTANTS]}

# By which cases each of them is found: these, and no others.
_FOUND_BY = """
BareKeysAreIgnored: SYN-02 SYN-03 SYN-05 SYN-07
MalformedKeysAreIgnored: SYN-05 SYN-06 SYN-07 SYN-08 SYN-09 SYN-10 SYN-14
EmptyKeysAreIgnored: SYN-05
QuotedKeysAreRefused: SYN-01 SYN-09 REP-06 REP-07 REP-19 CON-01 CON-06 CON-07 CON-08 OUT-02 OUT-06 OUT-07 OUT-08 OUT-10 OUT-11 OUT-13 MTH-06
QuotesArePartOfTheKey: SYN-03
FirstOfTwoKeys: SYN-06
AnythingIsAKey: SYN-05 SYN-06 SYN-08 SYN-09 SYN-10 SYN-11 DOC-04 DOC-05
LongKeysAreCut: SYN-09 SYN-10
LongKeysFail: SYN-10 DOC-06
ControlCharactersAreKept: SYN-08 SYN-09
ParametersArePartOfTheKey: SYN-03 SYN-11 TTL-02
KeysArePatterns: SYN-14 TTL-02
KeysArePastedIntoSql: TTL-02 DOC-06
MissingKeysRun: SYN-04 TTL-02
TrailersAreFields: SYN-15 TTL-02
InvalidKeysAreNotExplained: SYN-04 TTL-02 DOC-03 DOC-04
InvalidKeysAreConflicts: SYN-05 SYN-06 SYN-09
Unprotected: SYN-02 SYN-03 SYN-04 SYN-05 SYN-06 SYN-07 SYN-08 SYN-09 SYN-10 SYN-11 SYN-14 REP-01 REP-03 REP-04 REP-05 REP-06 REP-10 REP-11 REP-16 REP-17 REP-18 REP-19 REP-20 REP-21 REP-22 FPR-01 FPR-02 FPR-03 FPR-04 FPR-05 FPR-06 FPR-07 FPR-08 FPR-09 FPR-10 FPR-11 FPR-12 FPR-13 FPR-14 CON-01 CON-02 CON-04 CON-07 CON-08 CON-09 OUT-04 OUT-06 OUT-09 OUT-10 OUT-11 OUT-12 OUT-13 MTH-03 MTH-04 TTL-02 TTL-03 TTL-04 SEC-04 SEC-08 SEC-09 DOC-05 DOC-06
ReplaysAre200: REP-01 REP-02 REP-11 REP-15 REP-16 REP-20 REP-21 REP-23 FPR-02 FPR-03 FPR-08 FPR-10 FPR-11 FPR-12 CON-04 TTL-02 SEC-04 SEC-08
ContentIsWrittenAnew: REP-01 REP-03 REP-11 REP-16 REP-20 FPR-02 FPR-12 CON-04 OUT-04 TTL-02 SEC-08 SEC-09 DOC-06
FieldsAreLost: REP-04 REP-17 REP-19 TTL-02 DOC-06
ReplaysAreNotMarked: REP-05 OUT-13 TTL-02 DOC-06
FirstAnswersAreMarked: REP-05 FPR-13 FPR-14 CON-06 CON-08 TTL-02 SEC-01 SEC-02 SEC-03 SEC-07 SEC-10 DOC-06
CookiesAreReplayed: REP-10 TTL-02 DOC-06
DatesAreReplayed: REP-08 TTL-02 DOC-06
ReplaysHaveAnAge: REP-09 TTL-02 DOC-06
CodedContentIsReplayed: REP-11 TTL-02 DOC-06
OriginsAreReplayed: REP-13 TTL-02 DOC-06
RequestIdsAreReplayed: REP-14
PreconditionsAreJudged: REP-15
RangesAreServed: REP-16
ExpectationsFail: REP-23
ReplaysMayBeCached: REP-24 DOC-06
StreamsRunAgain: REP-18 TTL-02 DOC-06
OnlyThreeStatusesAreRecorded: REP-19 OUT-04 OUT-06 OUT-13 MTH-04 TTL-02 DOC-06
RedirectsRunAgain: REP-19 TTL-02 DOC-06
JobsStartAgain: REP-17
SecretsAreMadeAgain: TTL-02 SEC-09
CookiesRunAgain: REP-10 TTL-02
LargeRequestsRunAgain: FPR-08 FPR-09 TTL-02
StreamsBecomeEmptyObjects: REP-18 TTL-02 DOC-06
SecondRetriesRun: REP-20 TTL-02 DOC-06
DeletedIsMadeAgain: REP-22 FPR-10 TTL-02
ChangedIsAConflict: REP-21 TTL-02
ContentIsNotCompared: FPR-01 FPR-05 FPR-06 FPR-07 FPR-09 DOC-06
BytesAreCompared: FPR-03 TTL-02
BoundariesAreCompared: FPR-08 TTL-02
FilesAreNotCompared: FPR-09 TTL-02
NumbersAreDoubles: FPR-05
LastMemberWins: TTL-02
FirstMemberCounts: FPR-06 TTL-02
ArraysAreSets: FPR-07 TTL-02
CodingsAreCompared: FPR-10
QueryIsNotCompared: FPR-11
QueryOrderCounts: FPR-11
FieldsAreCompared: FPR-12
UserAgentsAreCompared: FPR-12
PathsAreNotCompared: FPR-11 FPR-13 FPR-14
RoutesAreCompared: FPR-14
ReuseIsAConflict: FPR-01 FPR-05 FPR-07 FPR-09 FPR-11 FPR-13 FPR-14 DOC-04
ReuseRuns: FPR-01 FPR-02 FPR-05 FPR-06 FPR-07 FPR-09 FPR-11 FPR-13 FPR-14 CON-09
ReuseForgetsTheFirst: FPR-02 CON-09
ReuseTells: FPR-15 TTL-02 DOC-03
SameContentIsADuplicate: CON-06 TTL-02 SEC-01
LooksThenClaims: CON-01 CON-07 CON-09 TTL-02
NothingMarksWork: CON-01 CON-02 CON-04 CON-07 CON-08 CON-09 OUT-09 OUT-12 TTL-02 TTL-04 DOC-06
InFlightIsLocked: CON-01 CON-02 CON-07 CON-08 TTL-02
InFlightIsNotExplained: CON-03 TTL-02 DOC-03
InFlightHasNoRetryAfter: CON-03
OthersRunInFlight: CON-09
FlightNeverEnds: CON-04 CON-08
ReplicasAreStrangers: CON-07
LeavingCancels: CON-08 TTL-02
LeavingReleases: CON-08 TTL-02
LeasesAreNotRenewed: OUT-09 TTL-02 TTL-04
CutRequestsAreClaimed: REP-07 TTL-02
RefusalsAreRecorded: OUT-02
LimitsAreRecorded: OUT-03
OutagesAreRecorded: OUT-07
FailuresAreReleased: OUT-06
RefusalsByBusinessRunAgain: OUT-04 OUT-13
ExceptionsWedge: OUT-05
FailuresAreNotMarked: OUT-13
DeadWorkersHoldTheKey: OUT-08
DeadWorkersAreReplaced: OUT-09
RunsWithoutStore: OUT-10
UnrecordedIsForgotten: OUT-11
UnrecordedIsAFailure: OUT-11
GivingUpReleases: OUT-12
ExpiredKeysRun: TTL-03
ForgetsEarly: TTL-02 TTL-03 DOC-06
GetIsReplayed: MTH-01 MTH-02
HeadIsReplayed: MTH-02 DOC-06
PatchIsNotProtected: MTH-03 MTH-04
DeleteRunsAgain: MTH-04 TTL-02
ProtectsInWords: MTH-05 TTL-02
RouterRedirectsAreRecorded: MTH-06
KeysAreNotScoped: FPR-01 FPR-05 FPR-06 FPR-07 FPR-09 FPR-11 FPR-13 FPR-14 SEC-01 SEC-02 SEC-03 SEC-07 DOC-05
ForeignKeysAreRefused: SEC-01 SEC-02 SEC-03
ScopedByCredential: SEC-04 DOC-05
ReplaysBeforeAuthentication: SEC-05
ReplaysBeforeAuthorization: SEC-06
AnonymousIsOneAccount: SEC-07 DOC-06
FloodsEvict: CON-08 OUT-12 TTL-03 TTL-04 SEC-08 DOC-06
SandboxSharesKeys: TTL-02 SEC-10 DOC-06
KeysAreReflected: TTL-02 SEC-11 DOC-03
UsedKeysTakeLonger: TTL-02
StatusTells: TTL-02 DOC-05
NoLifetimeIsPublished: TTL-01 TTL-02
AnotherLifetimeIsPublished: DOC-06
TheFieldIsNotPublished: DOC-01
ErrorsAreNotPublished: DOC-02
ErrorsLookAlike: OUT-08 TTL-02 DOC-04
ErrorsAreText: SYN-04 DOC-03
StatusesDiffer: DOC-03
PreflightsForgetTheKey: MTH-07
"""
FOUND_BY = {
    name: frozenset(ids.split()) for name, _, ids in (line.partition(": ") for line in _FOUND_BY.strip().splitlines())
}
