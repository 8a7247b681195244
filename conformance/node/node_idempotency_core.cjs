// @node-idempotency/core, as its README says: onRequest before the handler, onResponse behind it.
// Which status a refusal has, and which fields of an answer are recorded, is left to the application: it follows the
// draft, and records what describes the content.
"use strict";

const express = require("express");
const { Idempotency } = require("@node-idempotency/core");
const { MemoryStorageAdapter } = require("@node-idempotency/storage-adapter-memory");
const { PATHS, place, serve } = require("./shop.cjs");

const REFUSALS = { REQUEST_IN_PROGRESS: 409, IDEMPOTENCY_FINGERPRINT_MISSMATCH: 422 };
const idempotency = new Idempotency(new MemoryStorageAdapter());
const app = express();
app.use(express.json());

for (const path of PATHS) {
  app.post(path, async (request, response, next) => {
    const asked = { method: "POST", headers: request.headers, body: request.body, path };
    try {
      const replay = await idempotency.onRequest(asked);
      if (replay) {
        const { status, headers } = replay.additional;
        if (replay.error) response.status(status).json(replay.error);
        else response.status(status).set(headers).json(replay.body);
        return;
      }
    } catch (error) {
      response.status(REFUSALS[error.code] || 400).json({ code: error.code || "invalid" });
      return;
    }
    try {
      const [status, document, headers] = await place(path, request.query, request.body);
      const { Location, ETag } = headers;
      await idempotency.onResponse(asked, { body: document, additional: { status, headers: { Location, ETag } } });
      response.status(status).set(headers).json(document);
    } catch (error) {
      await idempotency.onResponse(asked, { error: { code: "failed" }, additional: { status: 500, headers: {} } });
      next(error);
    }
  });
}
serve(app);
