// Parcels for a van: a service of Node's own http module, which knows nothing of idempotency keys.
//
// It stands behind the gateway, which does. All that it does about retries is to say, with `Idempotency-Effect: none`,
// when a request has changed nothing: then the same request may come again under the same key.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";

const PORT = Number(process.env.PARCELS_PORT ?? 9000);
const PLACES = Number(process.env.VAN_PLACES ?? 100);
const BOOK = process.env.PARCELS_BOOK ?? "parcels.jsonl";
const CONTENT_BYTES_MAX = 65_536;

// The book is the truth: a line for each parcel and each departure, on the disk before anybody is answered.
const lines = existsSync(BOOK) ? readFileSync(BOOK, "utf8").trim().split("\n").filter(Boolean).map(JSON.parse) : [];
const book = openSync(BOOK, "a");
const parcels = lines.filter((line) => line.parcel);
let loaded = lines.length - 1 - lines.findLastIndex((line) => line.departed);

function write(line) {
  writeSync(book, JSON.stringify(line) + "\n");
  fsyncSync(book);
}

function answer(response, status, document, headers = {}) {
  const content = JSON.stringify(document) + "\n";
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(content),
    ...headers,
  });
  response.end(content);
}

function take(response, wish) {
  if (typeof wish?.to !== "string" || !Number.isInteger(wish.grams) || wish.grams < 1) {
    // An answer like any other: the same request will never be better, and its retry gets the same.
    return answer(response, 400, { error: "say where to, and how many grams" });
  }
  if (loaded >= PLACES) {
    // Nothing was done, and the same request may succeed later: the gateway is told so, and lets it come again.
    const headers = { "Retry-After": "60", "Idempotency-Effect": "none" };
    return answer(response, 503, { error: "the van is full; another one comes" }, headers);
  }
  const parcel = { parcel: parcels.length + 1, reference: wish.reference ?? "", to: wish.to, grams: wish.grams };
  write(parcel);
  parcels.push(parcel);
  loaded += 1;
  answer(response, 201, parcel, { Location: `/parcels/${parcel.parcel}` });
}

function depart(response) {
  const departed = loaded;
  write({ departed });
  loaded = 0;
  answer(response, 200, { departed });
}

async function contentOf(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > CONTENT_BYTES_MAX) throw new RangeError("too much");
    pieces.push(piece);
  }
  return JSON.parse(Buffer.concat(pieces).toString() || "null");
}

async function serve(request, response) {
  const url = new URL(request.url, "http://parcels");
  if (request.method === "GET" && url.pathname === "/parcels") {
    const reference = url.searchParams.get("reference");
    const found = parcels.filter((parcel) => reference === null || parcel.reference === reference);
    return answer(response, 200, { total: found.length, loaded });
  }
  if (request.method !== "POST" || !["/parcels", "/departures"].includes(url.pathname)) {
    return answer(response, 404, { error: "there is no such thing" });
  }
  let wish;
  try {
    wish = await contentOf(request);
  } catch {
    return answer(response, 400, { error: "that is no JSON" });
  }
  return url.pathname === "/parcels" ? take(response, wish) : depart(response);
}

createServer(serve).listen(PORT, "127.0.0.1");
