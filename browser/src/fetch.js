/**
 * The life of an operation, which an intent names:
 *
 *     read the request -> wait for other tabs -> write it down under its key -> send, and again -> conclude
 *
 * While nobody knows how it ended, its key is kept, also for a request that was edited (contract R87): the server knows
 * which of them has the key, and does no other.
 */

import { answerOf } from "./answer.js";
import { attempts, isDone, isReused, SCHEDULE } from "./attempt.js";
import { CallerError, IntentChanged, NotDone, OutcomeUnknown } from "./errors.js";
import { read, requestOf } from "./request.js";
import { load, nowS, remove, save, unsettled } from "./store.js";

const SETTINGS = {
    header: "Idempotency-Key",
    marker: "Idempotent-Replayed",
    inProgress: ["in-progress"],
    lifetimeS: 86400,
    keepContent: true,
};

const running = new Map(); // of each intent, the call that was made last

/** As `fetch`, for a request that must not be done twice; see `index.d.ts`. */
export async function protectedFetch(intent, url, init = {}) {
    const settings = settingsOf(init);
    const asked = await read(intent, url, init, settings);
    init.signal?.throwIfAborted();
    if (running.get(intent)?.digest !== asked.digest) begin(intent, asked, init, settings);
    return (await unlessAborted(running.get(intent).promise, init.signal)).clone();
}

/** What became of an intent, after a reload say: asks the server, and has nothing done; see `index.d.ts`. */
export const settle = (intent, statusUrl, init = {}) => locked(intent, () => inquire(intent, statusUrl, init));

/** The intents of which nobody knows how they ended, of this tab and of others. */
export const pending = unsettled;

/** Give an intent up: the next call under its name is another operation, under another key. */
export const forget = (intent) =>
    locked(intent, () => {
        for (let entry; (entry = load(intent, Infinity));) remove(intent, entry.key);
    });

const settingsOf = ({ idempotency: given }) => ({
    ...SETTINGS,
    ...given,
    schedule: { ...SCHEDULE, ...given?.schedule },
});
const locked = (intent, work) => navigator.locks.request(`retrysafe:${intent}`, work);

/** One call for all who ask for the same in this page; who asks for something else meanwhile takes its turn. */
function begin(intent, asked, init, settings) {
    const call = { digest: asked.digest, promise: locked(intent, () => perform(intent, asked, init, settings)) };
    const end = () => running.get(intent) === call && running.delete(intent);
    running.set(intent, call);
    call.promise.then(end, end);
}

/** A signal ends the wait of its caller. What was sent cannot be called back. */
const unlessAborted = (promise, signal) =>
    signal
        ? Promise.race([
              promise,
              new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
          ])
        : promise;

async function perform(intent, asked, init, settings) {
    let entry = load(intent, settings.lifetimeS);
    if (entry?.done && entry.done !== asked.digest) {
        remove(intent, entry.key); // it was corrected after a definitive answer: another operation (contract R88)
        entry = null;
    }
    const fresh = !entry;
    entry ??= { key: crypto.randomUUID(), since: nowS(), tried: [] };
    const others = entry.tried.filter(({ digest }) => digest !== asked.digest);
    save(intent, { ...entry, tried: [...others, asked] }, settings);
    const ended = await carry(asked, entry, init, settings, !fresh);
    if (!isReused(ended.reply)) return conclude(intent, entry, asked, ended, settings, fresh);
    // Another request has the key, so this one was not done. How did that one end?
    entry = { ...entry, tried: others };
    save(intent, entry, settings);
    const holder = await holderOf(entry, init, settings);
    const earlier = holder && conclude(intent, entry, holder.asked, holder.ended, settings);
    if (!holder || isDone(holder.ended.reply)) throw new IntentChanged(intent, earlier);
    if (!isFinal(holder.ended, settings)) throw new OutcomeUnknown(intent, holder.ended);
    return perform(intent, asked, init, settings);
}

async function inquire(intent, statusUrl, init) {
    const settings = settingsOf(init);
    const found = load(intent, settings.lifetimeS);
    if (!found) return null;
    const entry = { ...found, since: nowS() }; // whom the server still knows may be asked about at any age
    const inquiry = { method: "GET", url: new URL(statusUrl, location.href).href, kind: "", content: "" };
    const ended = await carry(inquiry, entry, init, settings, true);
    if (ended.reply?.code === "key-unknown") return { state: "absent" };
    if (!ended.response?.ok) throw new OutcomeUnknown(intent, ended);
    const told = await ended.response.json();
    if (told.state !== "completed" && told.state !== "in_progress") return told;
    const holder = await holderOf(entry, init, settings); // it is there: sent again, it is answered and not done
    return holder ? { ...told, response: conclude(intent, found, holder.asked, holder.ended, settings) } : told;
}

/** Which of the requests that were tried has the key; it is sent again. Undefined if its content is not known here. */
async function holderOf(entry, init, settings) {
    for (const asked of [...entry.tried].reverse()) {
        if (asked.content === undefined) continue;
        const ended = await carry(asked, entry, init, settings, true);
        if (!isReused(ended.reply)) return { asked, ended };
    }
}

/** All attempts of one request: how it ended, and the last response. */
async function carry(asked, entry, init, settings, doubtful) {
    let response;
    const send = async (latestS) => {
        response = undefined;
        if (!(await online(latestS))) return { sent: false };
        const stop = new AbortController();
        const request = requestOf(asked, entry.key, init, settings, stop.signal);
        const timer = setTimeout(() => stop.abort(), settings.schedule.attemptS * 1000);
        try {
            const got = await fetch(request);
            const bytes = await got.clone().arrayBuffer(); // an answer that breaks off is one that did not come
            response = got;
            return answerOf(got, bytes, settings);
        } catch {
            return { sent: true };
        } finally {
            clearTimeout(timer);
        }
    };
    const ended = await attempts({ send, pause, nowS }, settings, settings.schedule, entry.since, doubtful);
    return { ...ended, response };
}

/**
 * Whether a refusal is the last word on its key. If something else was sent under it, that may be on its way still, and
 * who refuses may be a proxy; not if it is a replay, or where nobody marks those.
 */
const isFinal = ({ reply, attempts }, { marker }, fresh) => reply.replayed || !marker || (fresh && attempts === 1);

/** What the end of a request means for its intent, and for the caller; `fresh` if its key had not been sent before. */
function conclude(intent, entry, asked, ended, settings, fresh) {
    const { reply, certain, response } = ended;
    if (certain === "unknown") throw new OutcomeUnknown(intent, ended);
    if (certain === "settled" && isDone(reply)) save(intent, { ...entry, tried: [], done: asked.digest }, settings);
    else if (certain !== "settled" || isFinal(ended, settings, fresh)) remove(intent, entry.key);
    if (!response) throw new NotDone(intent);
    return response;
}

const pause = (leastS, mostS) =>
    new Promise((resolve) => setTimeout(resolve, (leastS + Math.random() * (mostS - leastS)) * 1000));

/** Whether there is a network, or comes to be one in time. */
const online = (latestS) =>
    navigator.onLine ||
    new Promise((resolve) => {
        addEventListener("online", () => resolve(true), { once: true });
        setTimeout(() => resolve(false), (latestS - nowS()) * 1000);
    });
