// express-idempotency, as its README says: the middleware before the routes, and in each a look at whether it was a hit.
"use strict";

const express = require("express");
const idempotency = require("express-idempotency");
const { PATHS, place, serve } = require("./shop.cjs");

const app = express();
app.use(express.json());
app.post("*", idempotency.idempotency());

for (const path of PATHS) {
  app.post(path, async (request, response, next) => {
    const service = idempotency.getSharedIdempotencyService();
    if (service.isHit(request)) return;
    try {
      const [status, document, headers] = await place(path, request.query, request.body);
      response.status(status).set(headers).json(document);
    } catch (error) {
      service.reportError(request);
      next(error);
    }
  });
}
serve(app);
