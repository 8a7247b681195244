/** What is thrown. Each error says whose `fault` it is and which `intent` it is about; none has a key or content. */

export class ProtectedFetchError extends Error {
    constructor(fault, intent, message) {
        super(`${intent}: ${message}`);
        this.name = new.target.name;
        this.fault = fault;
        this.intent = intent;
    }
}

/** The code that called cannot work; nothing was sent. */
export class CallerError extends ProtectedFetchError {
    constructor(intent, message) {
        super("caller", intent, message);
    }
}

/** What must be written down before a request leaves could not be; nothing was sent. */
export class StorageRefused extends ProtectedFetchError {
    constructor(intent, message, cause) {
        super("browser", intent, `nothing was sent: ${message}`);
        this.cause = cause;
    }
}

/** No attempt left this browser. Ask again when there is a network. */
export class NotDone extends ProtectedFetchError {
    constructor(intent) {
        super("network", intent, "nothing was sent: offline");
    }
}

/** An attempt may have taken effect, and nobody could tell. Call again, with the same intent: the key is kept. */
export class OutcomeUnknown extends ProtectedFetchError {
    constructor(intent, { reply, attempts, response }) {
        const last = reply?.status ?? "no answer (offline, or CORS)";
        const seen = `${attempts} attempt(s), the last with ${last}: call again`;
        super(response ? "server" : "network", intent, attempts ? seen : "its key is too old: look, then forget() it");
        this.attempts = attempts;
        this.response = response;
    }
}

/** Another request of this intent took effect, from before an edit or from another tab; this one was not done. */
export class IntentChanged extends ProtectedFetchError {
    constructor(intent, earlier) {
        super("user", intent, "not done: an earlier request of it was. To do both, forget() it");
        this.earlier = earlier;
    }
}
