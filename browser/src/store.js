/**
 * What was sent and is not settled, and the keys of what is.
 *
 * The whole entry is in `sessionStorage`: this tab's, over reloads, and gone with it. `localStorage` has its key alone,
 * so that another tab, or the same after it was closed, asks for the same thing under the same key. Whoever calls holds
 * the lock of the intent, which is one for all tabs.
 *
 * An entry: its `key`, `since` when (s), the requests `tried` under it, the last one last; once one of them was done,
 * none of them, and the digest of that as `done`. `foreign` if the key came from another tab, whose requests nobody
 * here knows.
 */

import { ProtectedFetchError, StorageRefused } from "./errors.js";

const PREFIX = "retrysafe:";
const INTENTS_MAX = 50;
const CONTENT_BYTES_MAX = 65536;
const TRIED_MAX = 4;

export const nowS = () => Date.now() / 1000;

/** The entry of an intent, if there is one. A key that is done is remembered for as long as the server does. */
export const load = (intent, lifetimeS) =>
    guarded(intent, () => {
        const [own, common] = [sessionStorage, localStorage].map((storage) => {
            const entry = get(storage, PREFIX + intent);
            return entry?.done && entry.since + lifetimeS < nowS() ? null : entry;
        });
        if (common && (!own || (own.done && own.key !== common.key))) {
            return { key: common.key, since: common.since, tried: [], foreign: true };
        }
        return own;
    });

/** Write an entry down, before the first byte of its request leaves. */
export const save = (intent, entry, { keepContent, lifetimeS }) =>
    guarded(intent, () => {
        const tried = entry.tried.slice(-TRIED_MAX).map(({ content, ...asked }) => ({
            ...asked,
            ...(keepContent && content?.length <= CONTENT_BYTES_MAX && { content }),
        }));
        put(sessionStorage, intent, { ...entry, tried }, lifetimeS);
        const common = get(localStorage, PREFIX + intent);
        if (common && common.key !== entry.key) return; // another tab is ahead
        put(localStorage, intent, { key: entry.key, since: entry.since, done: Boolean(entry.done) }, lifetimeS);
    });

/** Forget an entry; of another tab's key only if it is the same. */
export const remove = (intent, key) =>
    guarded(intent, () => {
        for (const storage of [sessionStorage, localStorage]) {
            if (get(storage, PREFIX + intent)?.key === key) storage.removeItem(PREFIX + intent);
        }
    });

/** The intents that are not settled, of this tab and of others. */
export const unsettled = () => {
    const open = [sessionStorage, localStorage].flatMap((storage) =>
        names(storage).filter((name) => !get(storage, name).done),
    );
    return [...new Set(open)].map((name) => name.slice(PREFIX.length));
};

const names = (storage) => Object.keys(storage).filter((name) => name.startsWith(PREFIX));
const get = (storage, name) => JSON.parse(storage.getItem(name));

/** Room for another intent is made by the oldest that is done, or that is too old to be sent again. */
function put(storage, intent, entry, lifetimeS) {
    const others = names(storage).filter((name) => name !== PREFIX + intent);
    if (others.length >= INTENTS_MAX) {
        const [oldest] = others
            .map((name) => ({ ...get(storage, name), name }))
            .filter(({ done, since }) => done || since + lifetimeS < nowS())
            .sort((a, b) => a.since - b.since);
        if (!oldest) throw new StorageRefused(intent, `${INTENTS_MAX} other intents are not settled`);
        storage.removeItem(oldest.name);
    }
    storage.setItem(PREFIX + intent, JSON.stringify(entry));
}

function guarded(intent, work) {
    try {
        return work();
    } catch (cause) {
        if (cause instanceof ProtectedFetchError) throw cause;
        throw new StorageRefused(intent, "storage is full, forbidden, or written by others", cause);
    }
}
