/** What of an HTTP answer matters for trying again: from its status, its fields and its content. */

const CODES = ["code", "type", "errorCode", "name", "error"];
const CODE_BYTES_MAX = 65536; // an error with a larger content says nothing that could be looked for
const RETRY_AFTER_S_MAX = 86400;

/** Read an answer; `bytes` is the whole of its content. */
export function answerOf(response, bytes, profile) {
    return {
        status: response.status,
        replayed: Boolean(profile.marker) && response.headers.get(profile.marker) === "true",
        code: response.ok ? "" : code(bytes, profile),
        retryAfterS: retryAfterS(response.headers.get("Retry-After")),
    };
}

/** The seconds that `Retry-After` asks for, by number or date (RFC 9110, 10.2.3); null if it says nothing. */
function retryAfterS(value) {
    if (value == null) return null;
    const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
    return Number.isNaN(seconds) ? null : Math.min(Math.max(0, seconds), RETRY_AFTER_S_MAX);
}

/** The code in a JSON error: one that the profile knows, else the first of the usual members. */
function code(bytes, profile) {
    if (bytes.byteLength > CODE_BYTES_MAX) return "";
    try {
        const found = texts(JSON.parse(new TextDecoder().decode(bytes)));
        return found.find((text) => profile.inProgress.includes(text)) ?? found[0] ?? "";
    } catch {
        return "";
    }
}

const texts = (document) =>
    CODES.flatMap((name) => {
        const value = document?.[name];
        if (typeof value === "object") return texts(value);
        if (typeof value !== "string" && typeof value !== "number") return [];
        return name === "type" ? String(value).split("/").pop() : String(value);
    });
