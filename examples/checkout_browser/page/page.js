import { IntentChanged, NotDone, OutcomeUnknown, protectForm } from "/retrysafe/index.js";

const form = document.querySelector("form");
const said = document.querySelector("[role=status]");
const cart = location.pathname.split("/").at(-1);

const say = (text) => (said.textContent = text);

async function told(response) {
    const content = await response.json();
    if (response.ok) return `Order ${content.order}, for ${content.quantity}.`;
    return response.status === 422
        ? "Between 1 and 9, please."
        : `It was refused (${response.status}). Nothing was ordered.`;
}

form.action = `/carts/${cart}/orders`;
const { settled } = protectForm(form, {
    intent: `cart-${cart}`,
    statusUrl: "/idempotency/requests",
    onAnswer: async (response) => say(await told(response)),
    onStatus: ({ state }) =>
        say(
            state === "completed"
                ? "This was ordered."
                : "Your order may not have come through. Send it again: it is not doubled.",
        ),
    onError: async (error) => {
        if (error instanceof IntentChanged)
            say(`This was ordered before: ${error.earlier ? await told(error.earlier) : "in another tab."}`);
        else if (error instanceof NotDone) say("You are offline. Nothing was ordered.");
        else if (error instanceof OutcomeUnknown)
            say("Nobody knows whether it was ordered. Send it again: it is not doubled.");
        else throw error;
    },
});
settled.then(() => (document.body.dataset.ready = "yes"));
