// The shop of conformance/shop.py as handlers of Express.
"use strict";

const PATHS = ["/orders", "/refunds", "/tickets/1", "/tickets/2", "/sessions"];
const effects = new Map();
const failed = new Set();
let numbers = 0;

/** What an order comes to: `[status, document, headers]`; throws as the query wants it. */
async function place(path, query, document) {
  await new Promise((resolve) => setTimeout(resolve, 1000 * Number(query.delay || 0)));
  const reference = document && document.reference;
  if (typeof reference !== "string") return [422, { code: "invalid-order" }, {}];
  if (query.fail === "decline") return [402, { code: "declined", attempt: (numbers += 1) }, {}];
  if (query.fail === "before" && !failed.has(reference)) {
    failed.add(reference);
    throw new Error("before");
  }
  effects.set(reference, (effects.get(reference) || 0) + 1);
  const number = (numbers += 1);
  if (query.fail === "after") throw new Error("after");
  const headers = { Location: `/orders?reference=${reference}`, ETag: `"${number}"` };
  if (path === "/sessions") headers["Set-Cookie"] = `session=${number}`;
  return [201, { number, ...document }, headers];
}

/** Serve an application of Express on the port that the environment names. */
function serve(app) {
  app.get("/orders", (request, response) => {
    response.json({ total: effects.get(request.query.reference) || 0 });
  });
  app.use((error, _request, response, _next) => {
    // As Express does by itself: the status that whoever failed has set.
    const set = response.statusCode >= 400 ? response.statusCode : 500;
    response.status(error.status || set).json({ code: error.message });
  });
  app.listen(Number(process.env.PORT), "127.0.0.1");
}

module.exports = { PATHS, place, serve };
