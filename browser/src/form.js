/** Forms: what is submitted is sent by `protectedFetch`, and the buttons rest until it is answered (contract R97). */

import { CallerError } from "./errors.js";
import { protectedFetch, settle } from "./fetch.js";

const follow = (response) => response.redirected && location.assign(response.url);
const raise = (error) => {
    throw error;
};

/** Protect a form; see `index.d.ts`. */
export function protectForm(form, { intent, statusUrl, init, onAnswer = follow, onStatus, onError = raise }) {
    if (form.method !== "post") throw new CallerError(intent, 'a form that is protected says method="post"');

    const shown = async (work) => {
        const resting = [...form.elements].filter(({ type, disabled }) => type === "submit" && !disabled);
        const rest = (on) => resting.forEach((button) => (button.disabled = on));
        rest(true);
        form.ariaBusy = true;
        try {
            const told = await work();
            if (told instanceof Response) await onAnswer(told);
            else if (told) await onStatus?.(told);
        } catch (error) {
            await onError(error);
        } finally {
            rest(false);
            form.ariaBusy = false;
        }
    };
    const submit = (event) => {
        event.preventDefault();
        const { submitter } = event;
        const data = new FormData(form, submitter);
        const body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
        const url = submitter?.getAttribute("formaction") ?? form.getAttribute("action") ?? "";
        shown(() => protectedFetch(intent, url, { ...init, method: "POST", body }));
    };
    form.addEventListener("submit", submit);
    const settled = statusUrl && shown(() => settle(intent, statusUrl, init).then((told) => told?.response ?? told));
    return { settled: Promise.resolve(settled), release: () => form.removeEventListener("submit", submit) };
}
