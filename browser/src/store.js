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
export const save = (intent, entry, keepContent) =>
    guarded(intent, () => {
        const tried = entry.tried.slice(-TRIED_MAX).map(({ content, ...asked }) => ({
            ...asked,
            ...(keepContent && content?.length <= CONTENT_BYTES_MAX && { content }),
        }));
        put(sessionStorage, intent, { ...entry, tried });
        const common = get(localStorage, PREFIX + intent);
        if (common && common.key !== entry.key) return; // another tab is ahead
        put(localStorage, intent, { key: entry.key, since: entry.since, done: Boolean(entry.done) });
    });

/** Forget an entry; of another tab's key only if it is the same. */
export const remove = (intent, key) =>
    guarded(intent, () => {
        for (const storage of [sessionStorage, localStorage]) {
            if (get(storage, PREFIX + intent)?.key === key) storage.removeItem(PREFIX + intent);
        }
    });

/** The intents of this tab that are not settled. */
export const unsettled = () =>
    names(sessionStorage)
        .filter((name) => !get(sessionStorage, name).done)
        .map((name) => name.slice(PREFIX.length));

const names = (storage) => Object.keys(storage).filter((name) => name.startsWith(PREFIX));
const get = (storage, name) => JSON.parse(storage.getItem(name));

function put(storage, intent, entry) {
    const others = names(storage).filter((name) => name !== PREFIX + intent);
    if (others.length >= INTENTS_MAX) {
        const [oldest] = others
            .filter((name) => get(storage, name).done)
            .sort((a, b) => get(storage, a).since - get(storage, b).since);
        if (!oldest) throw new StorageRefused(intent, `${INTENTS_MAX} other intents are not settled`);
        storage.removeItem(oldest);
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
