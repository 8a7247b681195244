/** A request as it is kept: the same bytes for every attempt, and a digest of what must not differ between two. */

import { CallerError } from "./errors.js";

/** Read what a caller wants sent, whole. Content is kept as a text with one character for each byte. */
export async function read(intent, url, init, settings) {
    const refuse = (message) => {
        throw new CallerError(intent, message);
    };
    if (!navigator.locks) refuse("needs https, or localhost");
    if (typeof intent !== "string" || !intent || intent.length > 512)
        refuse("an intent is a name of 1 to 512 characters");
    const request = new Request(url, { ...init, signal: null });
    const method = request.method;
    if (method === "GET" || method === "HEAD") refuse(`${method} takes no key: use fetch()`);
    if (init.mode === "no-cors" || init.redirect === "manual")
        refuse("no-cors hides the key, a manual redirect the answer");
    if (request.headers.has(settings.header)) refuse("its key is made here: leave the header out");
    const kind = request.headers.get("Content-Type") ?? "";
    const content = textOf(new Uint8Array(await request.arrayBuffer()));
    const asked = { method, url: request.url.split("#")[0], kind, content };
    return { ...asked, digest: await digestOf(asked) };
}

/** One attempt. What is sent again gets the header fields of the present call: no credentials are ever kept. */
export function requestOf({ method, url, kind, content }, key, init, settings, signal) {
    const headers = new Headers(init.headers);
    headers.delete("Content-Type");
    if (kind) headers.set("Content-Type", kind);
    headers.set(settings.header, `"${key}"`);
    // A redirect would take the key along, to whoever allows it: not to another origin, unless the caller wants that.
    const bounds = new URL(url).origin === location.origin ? { mode: "same-origin" } : { redirect: "error" };
    const body = content ? Uint8Array.from(content, (byte) => byte.charCodeAt(0)) : undefined;
    return new Request(url, { ...bounds, ...init, method, headers, body, signal });
}

async function digestOf(asked) {
    // It is made anew each time that a form is read.
    const boundary = /^multipart.*boundary="?([^";]+)/i.exec(asked.kind)?.[1] ?? "";
    const told = Object.values(asked).map((part) => part.replaceAll(boundary, ""));
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(told)));
    return btoa(textOf(new Uint8Array(digest)));
}

function textOf(bytes) {
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return text;
}
