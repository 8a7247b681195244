/** A fetch that is safe to retry. Read `fetch.js` first: the life of an operation is written there. */

export { CallerError, IntentChanged, NotDone, OutcomeUnknown, ProtectedFetchError, StorageRefused } from "./errors.js";
export { forget, pending, protectedFetch, settle } from "./fetch.js";
export { protectForm } from "./form.js";
