/**
 * What is tried again, when, and for how long (contract R84-R94). Pure: what sends, waits and knows the time is handed
 * in. The rules, and the cases that show them, are those of `retrysafe.client.attempt`.
 */

const RETRIED = [408, 425, 429, 500, 502, 503, 504];
// Said without having looked at earlier attempts: no server records one of these as an outcome.
const REFUSALS = [
    307, 308, 401, 403, 405, 407, 411, 412, 413, 414, 415, 417, 421, 423, 426, 428, 431, 451, 501, 505, 511,
];
const PROBLEMS = {
    "outcome-unknown 409": "unknown",
    "key-expired 412": "unknown",
    "replay-unavailable 409": "settled", // it was done; only its answer is not there
    "key-reused 422": "refused",
    "key-missing 400": "refused",
    "key-invalid 400": "refused",
};
const HARMLESS = ["store-unavailable 503", "upstream-unreachable 502", "rolled-back 500"];

/** Five attempts in two minutes, with random pauses that double, and none in the last five minutes of a key (R90). */
export const SCHEDULE = { attemptsMax: 5, firstDelayS: 0.5, delayMaxS: 30, deadlineS: 120, marginS: 300, attemptS: 30 };

const problem = (answer) => `${answer.code} ${answer.status}`;

/** The request of this attempt is not the one that has the key: that one came before it, and this did nothing. */
export const isReused = (reply) => Boolean(reply?.status) && problem(reply) === "key-reused 422";

/** It was done, or may have been: whatever else is asked for under its intent must not get a new key unseen. */
export const isDone = ({ status, code }) => status < 400 || status >= 500 || code === "replay-unavailable";

/** What a reply means: `settled`, `refused`, `later` or `unknown`. `{ sent }` is a failure, anything else an answer. */
export function meaningOf(reply, profile, doubtful) {
    if (!reply.status) return "later";
    const { status, code, replayed, retryAfterS } = reply;
    if (status >= 200 && status < 300) return "settled";
    const said = PROBLEMS[problem(reply)];
    if (said) return said;
    if (replayed) return "settled"; // also an error: it is the outcome
    if (profile.inProgress.includes(code) || RETRIED.includes(status)) return "later";
    // Where nobody said how to tell a conflict from an attempt that is still running, to ask again is harmless.
    if (status === 409 && !profile.inProgress.length) return doubtful || retryAfterS != null ? "later" : "settled";
    return REFUSALS.includes(status) ? "refused" : "settled";
}

/** Whether the server may have done something after a reply that settles nothing. */
export const mayHaveEffect = (reply) =>
    reply.status ? reply.status !== 425 && reply.status !== 429 && !HARMLESS.includes(problem(reply)) : reply.sent;

/**
 * One operation, from its first attempt to its end: the last reply (null if its key was too old for even one), what is
 * `certain` (`settled`, `not done` or `unknown`), and the number of attempts.
 */
export async function attempts({ send, pause, nowS }, profile, schedule, createdAtS, doubtful) {
    const beganS = nowS();
    const marginS = Math.min(schedule.marginS, profile.lifetimeS / 2);
    const latestS = Math.min(beganS + schedule.deadlineS, (createdAtS ?? beganS) + profile.lifetimeS - marginS);
    let reply = null;
    let number = 0;
    while (nowS() <= latestS) {
        number += 1;
        reply = await send(latestS);
        const meaning = meaningOf(reply, profile, doubtful);
        if (meaning === "settled" || meaning === "unknown") return { reply, certain: meaning, attempts: number };
        if (meaning === "refused") break;
        doubtful ||= mayHaveEffect(reply);
        // Full jitter: anything from nothing to twice as much as before; what the server asked for is the least.
        const leastS = reply.retryAfterS ?? 0;
        const mostS = leastS + Math.min(schedule.delayMaxS, schedule.firstDelayS * 2 ** (number - 1));
        const now = nowS();
        if (number >= schedule.attemptsMax || now + leastS > latestS) break;
        await pause(leastS, Math.min(mostS, latestS - now));
    }
    return { reply, certain: doubtful ? "unknown" : "not done", attempts: number };
}
