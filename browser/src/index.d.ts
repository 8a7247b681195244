/** How often and how long to try; what is left out is as the contract has it (R90). */
export interface Schedule {
    /** Attempts at most, the first one among them: 5. */
    attemptsMax?: number;
    /** The most that is waited before the second attempt, doubled for each further one: 0.5 s. */
    firstDelayS?: number;
    /** The most that is waited by our own choice: 30 s. `Retry-After` may ask for more. */
    delayMaxS?: number;
    /** From the first attempt; none begins later: 120 s. A browser that is offline waits as long as this. */
    deadlineS?: number;
    /** How long before the end of the key's lifetime the last attempt may begin: 300 s. */
    marginS?: number;
    /** For one attempt; without an answer by then, it counts as lost: 30 s. */
    attemptS?: number;
}

/** How the server takes keys, and what is kept of requests. */
export interface Settings {
    /** The field that carries the key: `Idempotency-Key`. */
    header?: string;
    /** The field that is on replays alone: `Idempotent-Replayed`. With `""` there is none, and a refusal is taken for
     * the last word even if an attempt before it got no answer. */
    marker?: string;
    /** What an answer's JSON calls a refusal because the request is still running: `["in-progress"]`. With `[]` it is
     * any 409 that says `Retry-After`, or that comes after an attempt without an answer. */
    inProgress?: string[];
    /** For how long the server knows a key at least: 86400 s. */
    lifetimeS?: number;
    schedule?: Schedule;
    /** Keep the content of requests, up to 64 KiB each, in `sessionStorage` until they are settled: true. Say false of
     * what must not be there, a card number say; after a reload it takes the same content again to get the answer. */
    keepContent?: boolean;
}

/** As for `fetch`, without `mode: "no-cors"` and `redirect: "manual"`. A `signal` ends the wait, not the operation.
 * At this origin a redirect to another one is an error, unless `mode` says otherwise; at others any, unless `redirect`
 * does. */
export interface ProtectedInit extends RequestInit {
    idempotency?: Settings;
}

/** What the server says of a key, as its status path has it; `absent` if it does not know the key. */
export interface Told {
    state: "absent" | "in_progress" | "completed" | "retryable" | "unknown" | "expired";
    original_status?: number | null;
    resource?: string | null;
    retry_after?: number | null;
    /** The answer, if the request was kept and the server has it. */
    response?: Response;
}

/**
 * Send a request that must be done once, as often as it takes.
 *
 * @param intent What the user wants done, in your own words, `"cart-4711"`: unique for this account, 1 to 512
 *   characters. It is not sent. The same intent has the same key: in this page, after a reload, in every tab; until an
 *   answer is a 4xx, or another request follows on a success.
 * @param url Where to.
 * @param init As for `fetch`.
 * @returns The answer, which may be believed: a success, a replay of it, or a refusal that did nothing.
 * @throws {OutcomeUnknown} An attempt may have taken effect. Call again: it is the same key.
 * @throws {NotDone} Nothing was sent.
 * @throws {IntentChanged} An earlier request of this intent was done, and this one was not.
 * @throws {StorageRefused} It could not be written down, so nothing was sent.
 * @throws {CallerError} It cannot work like this.
 */
export function protectedFetch(intent: string, url: string | URL, init?: ProtectedInit): Promise<Response>;

/**
 * Find out what became of an intent, after a reload say. Nothing is done by asking: the request is sent again only if
 * the server says that it has it, to get the answer.
 *
 * @param intent As for `protectedFetch`.
 * @param statusUrl Where the server says what became of a key.
 * @param init For credentials: `headers`, `credentials`.
 * @returns What the server says; null if there is nothing to ask about.
 * @throws {OutcomeUnknown} It does not say.
 */
export function settle(intent: string, statusUrl: string | URL, init?: ProtectedInit): Promise<Told | null>;

/** The intents that are open: at work in a tab, or given up there without an answer, in tabs that were closed too. */
export function pending(): string[];

/** Give an intent up: its next call is another operation. Only when a person has decided so, or looked. */
export function forget(intent: string): Promise<void>;

export interface FormOptions {
    /** As for `protectedFetch`. */
    intent: string;
    /** Ask at once what became of the intent, and show it. */
    statusUrl?: string | URL;
    /** For credentials and settings. */
    init?: ProtectedInit;
    /** Show an answer. Default: go where it was redirected to. */
    onAnswer?: (response: Response) => unknown;
    /** Show what the server says of the intent, when it has no answer to it. */
    onStatus?: (told: Told) => unknown;
    /** Show that it did not work. Default: raise it. */
    onError?: (error: unknown) => unknown;
}

/**
 * Have a form sent by `protectedFetch`, with its buttons at rest meanwhile.
 *
 * @returns `settled`, when what `statusUrl` says is shown; `release()` gives the form back.
 * @throws {CallerError} It is not a form that posts.
 */
export function protectForm(form: HTMLFormElement, options: FormOptions): { settled: Promise<void>; release(): void };

/** What all errors have. `fault` says whose it is. */
export class ProtectedFetchError extends Error {
    readonly fault: "browser" | "caller" | "network" | "server" | "user";
    readonly intent: string;
}
/** The code that called cannot work; nothing was sent. */
export class CallerError extends ProtectedFetchError {}
/** It could not be written down before it was sent; nothing was sent. */
export class StorageRefused extends ProtectedFetchError {}
/** Nothing was sent: there was no network in time. */
export class NotDone extends ProtectedFetchError {}
/** An attempt may have taken effect, and nobody could tell. The key is kept. */
export class OutcomeUnknown extends ProtectedFetchError {
    readonly response?: Response;
    readonly attempts: number;
}
/** Another request of this intent was done: from before an edit, or from another tab. This one was not. */
export class IntentChanged extends ProtectedFetchError {
    /** Its answer, if its content was kept in this tab. */
    readonly earlier?: Response;
}
