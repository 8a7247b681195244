------------------------------ MODULE Retrysafe ------------------------------
(***************************************************************************)
(* The life of records, and of the requests that share them.               *)
(*                                                                         *)
(* A worker handles one request at a time: it looks, claims, runs the      *)
(* handler, settles, and answers. Each step of the store is one action, as *)
(* it is one atomic operation in the code; between any two of them every   *)
(* other worker, the reaper, an operator and a failure may come. Whatever  *)
(* goes wrong is paid for out of `budget`: TLC tries every way of spending *)
(* it. Time has no figures: a lease may lapse at any moment, under a       *)
(* worker that lives too, and only the store knows whether it has.         *)
(*                                                                         *)
(* `Wrong` plants one fault. "nothing" is the protocol.                    *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Keys,       \* each with one record, or none
    Workers,    \* processes or tasks that handle requests
    Steps,      \* calls downstream of one handler, in mode "steps"; else 1
    Budget,     \* how many things go wrong
    Mode,       \* "manual", "rerun", "transactional" or "steps"
    Wrong,      \* the planted fault, or "nothing"
    Lagging,    \* the store answers before its replica knows, and may fail over to it
    Waits,      \* a claim runs only once the replica knows of it
    ByHand      \* operators act, and records are forgotten at their time

VARIABLES
    rec,        \* by key: the record as the store has it
    saved,      \* by key: the record as the replica has it
    work,       \* by worker: its request
    life,       \* by key: how often a finished record was forgotten, and one
    effects,    \* by key, life and step: how often the effect happened
    acked,      \* by key: the outcomes that clients were told, each with its life
    downstream, \* the child keys that the service downstream remembers
    aged,       \* by key, life and step: calls whose child key may be forgotten there
    next,       \* the token of the next claim; in the code it is random
    budget      \* what may still go wrong

vars == <<rec, saved, work, life, effects, acked, downstream, aged, next, budget>>

-----------------------------------------------------------------------------
(* The table: what may follow what. tests/model compares it with the       *)
(* table of retrysafe.protocol.states.                                     *)

Table == {
    <<"absent", "claim", "in_progress">>,
    <<"in_progress", "renew", "in_progress">>,
    <<"in_progress", "keep journal", "in_progress">>,
    <<"in_progress", "complete", "completed">>,
    <<"in_progress", "release", "retryable">>,
    <<"in_progress", "discard", "absent">>,
    <<"in_progress", "give up", "unknown">>,
    <<"in_progress", "take over", "in_progress">>,
    <<"in_progress", "abandon", "unknown">>,
    <<"unknown", "complete", "completed">>,
    <<"unknown", "release", "retryable">>,
    <<"unknown", "discard", "absent">>,
    <<"retryable", "claim again", "in_progress">>,
    <<"unknown", "resolve as completed", "completed">>,
    <<"unknown", "resolve as not done", "retryable">>,
    <<"in_progress", "revoke", "retryable">>,
    <<"completed", "forget by hand", "absent">>,
    <<"expired", "forget by hand", "absent">>,
    <<"retryable", "forget by hand", "absent">>,
    <<"unknown", "forget by hand", "absent">>,
    <<"completed", "reseal", "completed">>,
    <<"completed", "expire", "expired">>,
    <<"completed", "forget", "absent">>,
    <<"expired", "forget", "absent">>,
    <<"retryable", "forget", "absent">>,
    <<"unknown", "forget", "absent">> }

States == {move[1] : move \in Table}

From(event) == {move[1] : move \in {one \in Table : one[2] = event}}
To(event)   == (CHOOSE move \in Table : move[2] = event)[3]

(* Every move is told once, so that what was really tried can be compared too. *)
ASSUME TLCSet(1, {})
Tell(move) ==
    IF move \in TLCGet(1) THEN TRUE
    ELSE PrintT(<<"move", move>>) /\ TLCSet(1, TLCGet(1) \union {move})

-----------------------------------------------------------------------------
Absent == [state |-> "absent", token |-> 0, live |-> FALSE, outcome |-> 0, journal |-> 0]

Idle == [pc |-> "idle", key |-> 0, token |-> 0, seen |-> 0, life |-> 0, journal |-> 0, verdict |-> "none"]

Owns(w, k) == work[w].key = k /\ work[w].token = rec[k].token /\ work[w].token # 0
Dead(k)    == \A w \in Workers : ~Owns(w, k)

Spend == budget > 0 /\ budget' = budget - 1

(* The store changes one record. Only a store without lag has a replica that knows at once. *)
Write(k, record) ==
    /\ rec' = [rec EXCEPT ![k] = record]
    /\ saved' = IF Lagging THEN saved ELSE [saved EXCEPT ![k] = record]

Emptied(record) == [record EXCEPT !.live = FALSE]

(* One move of the table: the record is in a state that the event may come from, and goes where it leads. *)
Move(k, event, record) ==
    /\ rec[k].state \in From(event)
    /\ Tell(<<rec[k].state, event, To(event)>>)
    /\ Write(k, IF To(event) = "absent" THEN Absent ELSE [record EXCEPT !.state = To(event)])

Become(w, state) == work' = [work EXCEPT ![w] = state]

Acknowledge(k, l, outcome) == acked' = [acked EXCEPT ![k] = @ \union {[life |-> l, outcome |-> outcome]}]

Init ==
    /\ rec = [k \in Keys |-> Absent]
    /\ saved = rec
    /\ work = [w \in Workers |-> Idle]
    /\ life = [k \in Keys |-> 1]
    /\ effects = [e \in Keys \X (1 .. Budget + 1) \X (1 .. Steps) |-> 0]
    /\ acked = [k \in Keys |-> {}]
    /\ downstream = {}
    /\ aged = {}
    /\ next = 1
    /\ budget = Budget

world == <<life, effects, downstream, aged>>

-----------------------------------------------------------------------------
(* Look, claim, decide *)

(* A new claim. When its answer is lost, the worker takes it back and runs nothing. *)
NewClaim(w, k, event, undo) ==
    LET claimed == [Idle EXCEPT !.pc = "running", !.key = k, !.token = next, !.life = life[k],
                                !.journal = rec[k].journal]
    IN  /\ Move(k, event, [rec[k] EXCEPT !.token = next, !.live = TRUE])
        /\ next' = next + 1
        /\ \/ Become(w, claimed) /\ UNCHANGED budget
           \/ Become(w, [claimed EXCEPT !.pc = "settling", !.verdict = undo]) /\ Spend
        /\ UNCHANGED <<acked, world>>

LooksLapsed(k) == ~rec[k].live \/ Wrong = "app clock"

Seen(w, k, pc) == Become(w, [Idle EXCEPT !.pc = pc, !.key = k, !.seen = rec[k].token])

Rerun == Mode # "manual"

Look(w, k) ==
    /\ work[w].pc = "idle"
    /\ \/ rec[k].state = "absent" /\ NewClaim(w, k, "claim", "discard")
       \/ /\ rec[k].state = "in_progress" /\ LooksLapsed(k)
          /\ Seen(w, k, IF Rerun /\ Wrong # "abandons what may rerun" THEN "taking over" ELSE "abandoning")
          /\ UNCHANGED <<rec, saved, acked, next, budget, world>>
       \/ /\ rec[k].state = "retryable"
          /\ Seen(w, k, "claiming again")
          /\ UNCHANGED <<rec, saved, acked, next, budget, world>>
       \/ /\ rec[k].state = "completed"
          /\ Acknowledge(k, life[k], rec[k].outcome)
          /\ UNCHANGED <<rec, saved, work, next, budget, world>>

(* The other half of a compare-and-set; the state is the table's. *)
AsSeen(w) == work[w].seen = rec[work[w].key].token

Changed(w) == Become(w, Idle) /\ UNCHANGED <<rec, saved, acked, next, budget, world>>

TakeOver(w) ==
    LET k == work[w].key
        may == rec[k].state \in From("take over") /\ AsSeen(w) /\ LooksLapsed(k)
    IN  /\ work[w].pc = "taking over"
        /\ \/ may /\ NewClaim(w, k, "take over", "release")
           \/ ~may /\ Wrong # "blind takeover" /\ Changed(w)
           \/ /\ ~may /\ Wrong = "blind takeover"
              /\ Write(k, [rec[k] EXCEPT !.state = "in_progress", !.token = next, !.live = TRUE])
              /\ Become(w, [Idle EXCEPT !.pc = "running", !.key = k, !.token = next, !.life = life[k]])
              /\ next' = next + 1
              /\ UNCHANGED <<acked, budget, world>>

ClaimAgain(w) ==
    LET k == work[w].key
        may == rec[k].state \in From("claim again") /\ AsSeen(w)
    IN  /\ work[w].pc = "claiming again"
        /\ IF may THEN NewClaim(w, k, "claim again", "release") ELSE Changed(w)

Abandon(w) ==
    LET k == work[w].key
        may == rec[k].state \in From("abandon") /\ AsSeen(w) /\ LooksLapsed(k)
    IN  /\ work[w].pc = "abandoning"
        /\ IF ~may THEN Changed(w)
           ELSE /\ Move(k, "abandon", Emptied(rec[k]))
                /\ Become(w, Idle)
                /\ UNCHANGED <<acked, next, budget, world>>

-----------------------------------------------------------------------------
(* Execute *)

Replicated(w) == ~Lagging \/ ~Waits \/ saved[work[w].key].token = work[w].token

Running(w) == work[w].pc = "running" /\ Replicated(w)

Happened(w, step) == effects' = [effects EXCEPT ![<<work[w].key, work[w].life, step>>] = @ + 1]

Judged(w, verdict) == Become(w, [work[w] EXCEPT !.pc = "settling", !.verdict = verdict])

HasEffect(w) ==
    /\ Mode \in {"manual", "rerun"} \/ Wrong = "two commits"
    /\ Running(w)
    /\ Happened(w, 1)
    /\ \/ Judged(w, IF Wrong = "release after effect" THEN "release" ELSE "complete") /\ UNCHANGED budget
       \/ Judged(w, "give up") /\ Spend
    /\ UNCHANGED <<rec, saved, acked, next, life, downstream, aged>>

(* The replica does not hear of the claim in time, or the claim is lost: nothing has run, so it is taken back. *)
WaitsInVain(w) ==
    /\ work[w].pc = "running" /\ ~Replicated(w) /\ Wrong # "waits for ever"
    /\ Judged(w, "release")
    /\ IF rec[work[w].key].token = work[w].token THEN Spend ELSE UNCHANGED budget
    /\ UNCHANGED <<rec, saved, acked, next, world>>

(* It says that it did nothing. What has taken steps cannot say so. *)
HasNone(w) ==
    /\ Running(w) /\ work[w].journal = 0
    /\ \/ Judged(w, "release")
       \/ Judged(w, "discard")
       \/ Judged(w, "give up")
    /\ Spend
    /\ UNCHANGED <<rec, saved, acked, next, world>>

(* The effect and the record in one commit, which checks the token. After a lost answer the worker waits for
   its record by releasing it if that is still its own. *)
Commit(w) ==
    LET k == work[w].key
        may == rec[k].state \in From("complete") /\ rec[k].token = work[w].token
    IN  /\ Mode = "transactional" /\ Running(w)
        /\ IF may
           THEN /\ Move(k, "complete", [Emptied(rec[k]) EXCEPT !.outcome = work[w].token])
                /\ Happened(w, 1)
                /\ \/ /\ Become(w, Idle)
                      /\ Acknowledge(k, work[w].life, work[w].token)
                      /\ UNCHANGED budget
                   \/ Judged(w, "release") /\ Spend /\ UNCHANGED acked
                /\ UNCHANGED <<next, life, downstream, aged>>
           ELSE /\ Judged(w, "complete") \* rolled back; what became of the record is seen when it settles
                /\ UNCHANGED <<rec, saved, acked, next, budget, world>>

(* Steps. The journal counts: odd, the next call is about to be made; even, its result is known. *)
StepOf(w) == work[w].journal \div 2 + 1
ChildKey(w) == <<work[w].key, StepOf(w), IF Wrong = "key of the attempt" THEN work[w].token ELSE 0>>

KeepJournal(w) ==
    LET k == work[w].key
        may == rec[k].state \in From("keep journal") /\ rec[k].token = work[w].token
        longer == work[w].journal + 1
    IN  IF may
        THEN /\ Move(k, "keep journal", [rec[k] EXCEPT !.journal = longer])
             /\ \/ Become(w, [work[w] EXCEPT !.journal = longer, !.pc = "running"]) /\ UNCHANGED budget
                \/ Become(w, [work[w] EXCEPT !.pc = "looking", !.verdict = "give up"]) /\ Spend
             /\ UNCHANGED <<acked, next, world>>
        ELSE /\ Become(w, [work[w] EXCEPT !.pc = "looking", !.verdict = "give up"])
             /\ UNCHANGED <<rec, saved, acked, next, budget, world>>

BeginStep(w) ==
    /\ Mode = "steps" /\ Running(w)
    /\ work[w].journal % 2 = 0 /\ work[w].journal < 2 * Steps
    /\ KeepJournal(w)

Call(w) ==
    /\ Mode = "steps" /\ Running(w) /\ work[w].journal % 2 = 1
    /\ IF <<work[w].key, work[w].life, StepOf(w)>> \in aged
       THEN /\ Judged(w, "give up") \* past the window of the service downstream: nobody can send it again
            /\ UNCHANGED <<rec, saved, acked, next, budget, world>>
       ELSE /\ Become(w, [work[w] EXCEPT !.pc = "called"])
            /\ downstream' = downstream \union {ChildKey(w)}
            /\ IF ChildKey(w) \in downstream THEN UNCHANGED effects ELSE Happened(w, StepOf(w))
            /\ UNCHANGED <<rec, saved, acked, next, budget, life, aged>>

EndStep(w) == work[w].pc = "called" /\ KeepJournal(w)

EndSteps(w) ==
    /\ Mode = "steps" /\ Running(w) /\ work[w].journal = 2 * Steps
    /\ Judged(w, "complete")
    /\ UNCHANGED <<rec, saved, acked, next, budget, world>>

Renew(w) ==
    LET k == work[w].key
    IN  /\ work[w].pc \in {"running", "called", "settling"}
        /\ rec[k].token = work[w].token /\ ~rec[k].live
        /\ Move(k, "renew", [rec[k] EXCEPT !.live = TRUE])
        /\ UNCHANGED <<work, acked, next, budget, world>>

-----------------------------------------------------------------------------
(* Record, respond *)

Held(w) ==
    LET k == work[w].key
    IN  rec[k].state \in From(work[w].verdict) /\ rec[k].token = work[w].token

Unfenced(w) ==
    LET k == work[w].key
    IN  /\ rec[k].state # "absent"
        /\ \/ Wrong = "unfenced complete" /\ work[w].verdict = "complete"
           \/ Wrong = "unfenced release" /\ work[w].verdict = "release"

Settled(w) ==
    LET k == work[w].key
    IN  \/ /\ Become(w, Idle) /\ UNCHANGED budget
           /\ IF work[w].verdict = "complete" THEN Acknowledge(k, work[w].life, work[w].token) ELSE UNCHANGED acked
        \/ Spend /\ UNCHANGED <<work, acked>> \* the answer is lost: it is settled again

Settle(w) ==
    LET k == work[w].key
        written == [Emptied(rec[k]) EXCEPT
                       !.outcome = IF work[w].verdict = "complete" THEN work[w].token ELSE @,
                       !.journal = IF work[w].verdict = "complete" THEN 0 ELSE @]
    IN  /\ work[w].pc = "settling"
        /\ IF Held(w) THEN Move(k, work[w].verdict, written) /\ Settled(w)
           ELSE IF Unfenced(w) THEN Write(k, [written EXCEPT !.state = To(work[w].verdict)]) /\ Settled(w)
           ELSE Become(w, [work[w] EXCEPT !.pc = "looking"]) /\ UNCHANGED <<rec, saved, acked, budget>>
        /\ UNCHANGED <<next, world>>

(* The store refused. It was done before and the answer was lost, or the claim was: then the record speaks. *)
LookAgain(w) ==
    LET k == work[w].key
        asIntended == /\ rec[k].token = work[w].token /\ rec[k].state = To(work[w].verdict)
                      /\ (Wrong = "looks at the token" \/ work[w].verdict # "complete"
                            \/ rec[k].outcome = work[w].token)
    IN  /\ work[w].pc = "looking"
        /\ Become(w, Idle)
        /\ IF asIntended /\ work[w].verdict = "complete" THEN Acknowledge(k, work[w].life, work[w].token)
           ELSE IF rec[k].state = "completed" THEN Acknowledge(k, life[k], rec[k].outcome)
           ELSE UNCHANGED acked
        /\ UNCHANGED <<rec, saved, next, budget, world>>

Worker(w) ==
    \/ \E k \in Keys : Look(w, k)
    \/ TakeOver(w) \/ ClaimAgain(w) \/ Abandon(w)
    \/ WaitsInVain(w) \/ HasEffect(w) \/ HasNone(w) \/ Commit(w)
    \/ BeginStep(w) \/ Call(w) \/ EndStep(w) \/ EndSteps(w)
    \/ Renew(w) \/ Settle(w) \/ LookAgain(w)

-----------------------------------------------------------------------------
(* What goes wrong *)

(* A process dies, or a settlement is given up because the store stays away. *)
Crash(w) ==
    /\ work[w].pc # "idle" /\ Spend
    /\ Become(w, Idle)
    /\ UNCHANGED <<rec, saved, acked, next, world>>

(* The lease of a dead owner runs out by itself; that of a living one, when it is too slow to renew it. *)
Lapse(k) ==
    /\ rec[k].live /\ Wrong # "a lease without end"
    /\ rec' = [rec EXCEPT ![k].live = FALSE]
    /\ saved' = [saved EXCEPT ![k].live = FALSE]
    /\ IF Dead(k) THEN UNCHANGED budget ELSE Spend
    /\ UNCHANGED <<work, acked, next, world>>

(* The service downstream remembers a child key for so long; who made the call knows since when. *)
Called(k, s) == rec[k].journal >= 2 * s - 1 \/ \E child \in downstream : child[1] = k /\ child[2] = s

Forgotten(k, s) ==
    /\ Mode = "steps" /\ <<k, life[k], s>> \notin aged /\ Called(k, s) /\ Spend
    /\ aged' = aged \union {<<k, l, s>> : l \in 1 .. life[k]}
    /\ downstream' = {child \in downstream : child[1] # k \/ child[2] # s}
    /\ UNCHANGED <<rec, saved, work, acked, next, life, effects>>

Replicate(k) ==
    /\ saved[k] # rec[k]
    /\ saved' = [saved EXCEPT ![k] = rec[k]]
    /\ UNCHANGED <<rec, work, acked, next, budget, world>>

FailOver ==
    /\ Lagging /\ saved # rec /\ Spend
    /\ rec' = saved
    /\ UNCHANGED <<saved, work, acked, next, world>>

-----------------------------------------------------------------------------
(* Time and people. An operator who looked says what is so. *)

Begun(k) == \E s \in 1 .. Steps : effects[<<k, life[k], s>>] > 0
Done(k)  == \A s \in 1 .. Steps : effects[<<k, life[k], s>>] > 0
RunsAgain(k) == Rerun \/ Wrong = "an operator guesses" \/ (Dead(k) /\ ~Begun(k))

ByThird(k, event, record) == Move(k, event, record) /\ UNCHANGED <<work, acked, next, effects, downstream, aged>>

Ends(k) == life' = [life EXCEPT ![k] = @ + 1]

Third(k) ==
    /\ ByHand /\ Spend
    /\ \/ ByThird(k, "revoke", Emptied(rec[k])) /\ RunsAgain(k) /\ UNCHANGED life
       \/ ByThird(k, "resolve as not done", rec[k]) /\ RunsAgain(k) /\ UNCHANGED life
       \/ /\ ByThird(k, "resolve as completed", [rec[k] EXCEPT !.outcome = 0, !.journal = 0])
          /\ (Done(k) \/ Wrong = "an operator guesses") /\ UNCHANGED life
       \/ ByThird(k, "reseal", rec[k]) /\ UNCHANGED life
       \/ ByThird(k, "expire", rec[k]) /\ UNCHANGED life
       \/ ByThird(k, "forget by hand", rec[k]) /\ Ends(k)
       \/ ByThird(k, "forget", rec[k]) /\ Ends(k)
       \/ ~rec[k].live /\ ByThird(k, "abandon", rec[k]) /\ UNCHANGED life

ReapLive(k) ==
    /\ Wrong = "reaper of live records" /\ rec[k].state = "in_progress" /\ Spend
    /\ Write(k, Absent)
    /\ UNCHANGED <<work, acked, next, world>>

-----------------------------------------------------------------------------
Next ==
    \/ \E w \in Workers : Worker(w) \/ Crash(w)
    \/ \E k \in Keys : Lapse(k) \/ Replicate(k) \/ Third(k) \/ ReapLive(k)
    \/ \E k \in Keys, s \in 1 .. Steps : Forgotten(k, s)
    \/ FailOver

(* Clients ask again and again, living workers go on, time passes, a replica catches up. *)
Fair ==
    /\ \A w \in Workers : WF_vars(Worker(w))
    /\ \A k \in Keys : WF_vars(Lapse(k) /\ Dead(k)) /\ WF_vars(Replicate(k))

Safely == Init /\ [][Next]_vars
Fairly == Safely /\ Fair

Interchangeable == Permutations(Workers) \union Permutations(Keys)

-----------------------------------------------------------------------------
(* What holds in every state *)

WellFormed ==
    /\ \A k \in Keys : rec[k].state \in States /\ rec[k].token \in 0 .. next - 1
    /\ \A w \in Workers : work[w].token \in 0 .. next - 1
    /\ budget \in 0 .. Budget

AtMostOnce == \A e \in DOMAIN effects : effects[e] <= 1

(* With child keys, an effect of an earlier life stands for the later one. *)
AnsweredIfDone ==
    \A k \in Keys : \A a \in acked[k] : \A s \in 1 .. Steps :
        \E l \in (IF Mode = "steps" THEN 1 .. a.life ELSE {a.life}) : effects[<<k, l, s>>] >= 1

OneOutcome == \A k \in Keys : \A a, b \in acked[k] : a.life = b.life => a.outcome = b.outcome

NoLostAnswer ==
    \A k \in Keys : \A a \in acked[k] :
        a.life = life[k] => rec[k].state \in {"completed", "expired"} /\ rec[k].outcome = a.outcome

RecordIfEffect ==
    \A k \in Keys : Begun(k) <=> rec[k].state \in {"completed", "expired"}

(* What holds for every step *)

Legal ==
    [][\A k \in Keys : rec'[k].state # rec[k].state =>
        \E move \in Table : move[1] = rec[k].state /\ move[3] = rec'[k].state]_vars

Stands ==
    [][\A k \in Keys : rec[k].state = "completed" => rec'[k].state \in {"completed", "expired", "absent"}]_vars

TokensRise ==
    [][\A k \in Keys : rec'[k].token # rec[k].token => rec'[k].token = 0 \/ rec'[k].token > rec[k].token]_vars

Fenced ==
    [][\A w \in Workers :
        (work[w].token # 0 /\ work'[w] # work[w] /\ rec' # rec) =>
            rec[work[w].key].token = work[w].token]_vars

(* Its owner says so; or nobody renewed it, and the route runs nothing again, or its time is over. *)
UnknownOnlyIf ==
    [][\A k \in Keys : (rec'[k].state = "unknown" /\ rec[k].state # "unknown") =>
        \/ \E w \in Workers : Owns(w, k) /\ work[w].verdict = "give up"
        \/ ~rec[k].live /\ (Mode = "manual" \/ budget' # budget)]_vars

NoFalseTakeover ==
    [][\A k \in Keys :
        (/\ rec[k].state = "in_progress" /\ rec[k].live
         /\ \E w \in Workers : Owns(w, k) /\ work'[w] = work[w]
         /\ UNCHANGED budget) =>
            rec'[k].token = rec[k].token /\ rec'[k].state = "in_progress"]_vars

ResultsStand ==
    [][\A k \in Keys : rec'[k].journal >= rec[k].journal \/ rec'[k].state \in {"completed", "absent"}]_vars

(* What comes about in the end *)

Settles == \A k \in Keys : rec[k].state = "in_progress" ~> rec[k].state # "in_progress"

Answers == \A w \in Workers : work[w].pc # "idle" ~> work[w].pc = "idle"
=============================================================================
