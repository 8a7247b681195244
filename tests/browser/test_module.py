"""The module by itself: its table, what is sent, what is kept, what is refused, what goes where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from retrysafe.faults import LoseResponse, Nothing
from tests.browser.tickets import cart_of, keys
from tests.doors.servers import until

CALL = """async ([name, args]) => {
  const module = await import("/retrysafe/index.js");
  try {
    const told = await module[name](...args);
    const response = told instanceof Response ? told : told?.response;
    const answer = response && {
      status: response.status, replayed: response.headers.get("Idempotent-Replayed"), text: await response.text(),
    };
    return { ...(response === told ? {} : told), ...answer };
  } catch ({ name, fault, message, attempts }) {
    return { error: name, fault, message, attempts };
  }
}"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def call(page, name, *args):
    """What a function of the module returns, or throws."""
    return page.evaluate(CALL, [name, args])


def buy(page, quantity=1, *, intent="i-1", base="", **init):
    """An order past the form."""
    init = {"method": "POST", "body": f"quantity={quantity}", "headers": FORM, **init}
    return call(page, "protectedFetch", intent, f"{base}/carts/{cart_of(page)}/orders", init)


def posts(page):
    """What the page sends from here on."""
    sent = []
    page.on("request", lambda request: sent.extend([request] * (request.method == "POST")))
    return sent


def test_every_attempt_is_the_same(shop, context):
    """One quoted key, the same bytes; and not before it is written down."""
    page, sent = shop.open(context), []
    kept = "Object.values(sessionStorage).map((entry) => JSON.parse(entry).key)"

    def look(route):
        sent.append((route.request, page.evaluate(kept)))
        route.continue_()

    page.route("**/orders", look)
    shop.faults.extend([LoseResponse(), LoseResponse()])
    assert buy(page)["status"] == 201
    assert len(sent) == 3
    assert len({request.post_data_buffer for request, _ in sent}) == 1
    ((key, [written]),) = {(request.headers["idempotency-key"], tuple(entries)) for request, entries in sent}
    assert key == f'"{written}"'
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", written)


def test_what_is_kept(shop, context):
    """Content in this tab alone, until it is answered; credentials never; content not at all if it is not to be."""
    page = shop.open(context)
    secret = {**FORM, "Authorization": "Bearer s3cret"}
    shop.faults.extend([LoseResponse()] * 5)
    assert buy(page, headers=secret)["error"] == "OutcomeUnknown"
    assert call(page, "pending") == {"0": "i-1"}
    assert ["quantity=1" in text for text in keys(page)] == [True, False]
    assert "s3cret" not in "".join(keys(page))
    assert buy(page, headers=secret)["replayed"] == "true"
    assert (call(page, "pending"), ["quantity" in text for text in keys(page)]) == ({}, [False, False])
    shop.faults.extend([LoseResponse()] * 5)
    kept_not = {"idempotency": {"keepContent": False}}
    assert buy(page, 2, intent="i-2", **kept_not)["error"] == "OutcomeUnknown"
    assert "quantity=2" not in "".join(keys(page))
    assert call(page, "settle", "i-2", "/idempotency/requests")["state"] == "completed"
    assert buy(page, 2, intent="i-2", **kept_not)["replayed"] == "true"
    assert len(shop.orders(page)) == 2


def test_what_cannot_be_written_down_is_not_sent(shop, context):
    """A full storage, and too many intents that are open; the oldest that is done, or too old, makes room."""
    page = shop.open(context)
    sent = posts(page)
    page.evaluate("for (let n = 2 ** 22; n >= 1; n /= 2) try { sessionStorage['x' + n] = 'x'.repeat(n) } catch {}")
    full = buy(page)
    assert (full["error"], full["fault"]) == ("StorageRefused", "browser")
    page.evaluate("sessionStorage.clear()")
    fill = """(changes) => {
      const entry = { key: "k", since: Date.now() / 1000, tried: [] };
      for (let n = 0; n < 50; n += 1) localStorage[`retrysafe:${n}`] = JSON.stringify({ ...entry, ...changes[n] });
    }"""
    page.evaluate(fill, {})
    assert len(call(page, "pending")) == 50
    assert buy(page)["error"] == "StorageRefused"
    assert sent == []
    for changes in {"7": {"done": True}}, {"7": {"since": 1}, "8": {"done": True}}:
        page.evaluate(fill, changes)
        assert buy(page, intent=f"i-{len(changes)}")["status"] == 201
        assert page.evaluate("[localStorage.length, localStorage['retrysafe:7'] ?? null]") == [50, None]
        page.evaluate("localStorage.clear()")


@pytest.mark.parametrize(
    ("intent", "init"),
    [
        ("", {}), ("i" * 513, {}), (7, {}), ("i", {"method": "GET", "body": None}), ("i", {"mode": "no-cors"}),
        ("i", {"redirect": "manual"}), ("i", {"headers": {"Idempotency-Key": "mine"}}),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work(shop, context, intent, init):
    """A mistake of the caller is told at once, and nothing is sent or written."""
    page = shop.open(context)
    sent = posts(page)
    told = buy(page, intent=intent, **init)
    assert (told["error"], told["fault"], sent, keys(page)) == ("CallerError", "caller", [], [])


def test_a_signal_ends_the_wait(shop, context):
    """What was sent goes on: whoever asks again gets its answer."""
    page = shop.open(context)
    sent = posts(page)
    leave = """async ([url, headers]) => {
      const { protectedFetch } = await import("/retrysafe/index.js");
      const init = { method: "POST", body: "quantity=1", headers };
      const signal = AbortSignal.timeout(50);
      const name = await protectedFetch("i-1", url, { ...init, signal }).catch((error) => error.name);
      window.again = protectedFetch("i-1", url, init).then(({ status }) => status);
      return name;
    }"""
    with shop.held_up():
        assert page.evaluate(leave, [f"/carts/{cart_of(page)}/orders", FORM]) == "TimeoutError"
    assert page.evaluate("again") == 201
    assert (len(sent), len(shop.orders(page))) == (1, 1)


def test_an_attempt_that_hangs(shop, context):
    """It counts as lost; the next ones are told that it is in progress, and then how it ended."""
    page, seen = shop.open(context), []
    page.on("response", lambda response: seen.append(response.status))
    with shop.held_up():
        page.evaluate(
            """([call, args]) => { window.told = eval(call)(args) }""",
            [CALL, ["protectedFetch", ["i-1", f"/carts/{cart_of(page)}/orders", {
                "method": "POST", "body": "quantity=1", "headers": FORM, "idempotency": {"schedule": {"attemptS": 0.3}},
            }]]],
        )  # fmt: skip
        page.wait_for_event("response", lambda response: response.status == 409)
    assert page.evaluate("told")["replayed"] == "true"
    assert len(shop.orders(page)) == 1


def test_a_form_that_is_read_again(shop, context):
    """A boundary is made anew each time, and is no edit."""
    page = shop.open(context)
    twice = """async (url) => {
      const { protectedFetch } = await import("/retrysafe/index.js");
      const send = () => {
        const body = new FormData();
        body.set("quantity", "1");
        return protectedFetch("i-1", url, { method: "POST", body });
      };
      const all = [...(await Promise.all([send(), send()])), await send()];
      return Promise.all(all.map((answer) => answer.text()));
    }"""
    texts = page.evaluate(twice, f"/carts/{cart_of(page)}/orders")
    assert (len(texts), len(set(texts)), len(shop.orders(page))) == (3, 1, 1)


def test_another_origin(shop, context):
    """Where it allows the key and shows the mark of a replay, all is as at home; where not, the error says so."""
    page = shop.open(context)
    refused = buy(page, base=shop.direct, credentials="include")
    assert (refused["error"], refused["fault"], refused["attempts"]) == ("OutcomeUnknown", "network", 5)
    assert "CORS" in refused["message"]
    page.goto(f"{shop.direct}/carts/{cart_of(page)}")
    shop.faults.extend([Nothing(), LoseResponse()])  # the first is the browser's question for leave
    assert buy(page, base=shop.url, credentials="include")["replayed"] == "true"
    assert len(shop.orders(page)) == 1


def test_moved_to_another_origin(shop, context):
    """No key goes there, though it would take it: `fetch` by itself brings it."""
    page = context.new_page()
    page.goto(f"{shop.direct}/carts/1")
    before = shop.met.total()
    page.route("**/moved", lambda route: route.fulfill(status=307, headers={"Location": f"{shop.url}/carts/2/orders"}))
    told = call(page, "protectedFetch", "i-1", "/moved", {"method": "POST"})
    assert (told["error"], shop.met.total()) == ("OutcomeUnknown", before)
    plain = "fetch('/moved', { method: 'POST', headers: { 'Idempotency-Key': 'k' } }).then((answer) => answer.url)"
    assert page.evaluate(plain) == f"{shop.url}/carts/2/orders"
    assert shop.met.total() > before


def test_a_key_that_is_too_old(shop, context):
    """It is not sent again; the server is asked, and if it still knows, it answers. Else somebody gives it up."""
    page = shop.open(context)
    age = """() => {
      for (const storage of [sessionStorage, localStorage])
        for (const [name, entry] of Object.entries(storage))
          storage[name] = JSON.stringify({ ...JSON.parse(entry), since: 1 });
    }"""
    shop.faults.extend([LoseResponse()] * 5)
    buy(page)
    page.evaluate(age)
    sent = posts(page)
    told = buy(page)
    assert (told["error"], told["attempts"], sent) == ("OutcomeUnknown", 0, [])
    settled = call(page, "settle", "i-1", "/idempotency/requests")
    assert (settled["state"], settled["status"]) == ("completed", 201)
    page.evaluate(age)
    assert call(page, "settle", "i-1", "/idempotency/requests") == {}  # it is done, and long forgotten
    assert buy(page)["replayed"] is None


def test_a_refusal_by_something_in_front(shop, context):
    """Who refuses after an attempt that got no answer may know nothing of it: the key is kept."""
    page = shop.open(context)
    shop.faults.append(LoseResponse())
    passed = []

    def front(route):
        passed.append(route)
        route.continue_() if len(passed) == 1 else route.fulfill(status=404)

    page.route("**/orders", front)
    assert buy(page)["status"] == 404
    page.unroute("**/orders")
    assert buy(page)["replayed"] == "true"
    assert len(shop.orders(page)) == 1


@pytest.mark.parametrize("state", ["retryable", "unknown", "expired"])
def test_asking_has_nothing_done(shop, context, state):
    """What the server does not have, or does not know, is not sent again by asking."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * 5)
    buy(page)
    sent = posts(page)
    page.route("**/requests", lambda route: route.fulfill(json={"state": state}))
    assert (call(page, "settle", "i-1", "/idempotency/requests"), sent) == ({"state": state}, [])


def test_another_tab_is_ahead(shop, context):
    """It settled the key that this tab has, and began anew: this tab learns how its own ended, and touches no other."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * 5)
    buy(page)
    ahead = {"key": "of another tab", "since": 1, "done": False}
    page.evaluate("(entry) => (localStorage['retrysafe:i-1'] = entry)", json.dumps(ahead))
    assert buy(page)["replayed"] == "true"
    assert [json.loads(text) for text in keys(page, ["localStorage"])] == [ahead]


def test_a_server_that_does_not_say(shop, context):
    """An answer to the question that is none leaves it open."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * 5)
    buy(page)
    assert call(page, "settle", "i-1", "/not-there")["error"] == "OutcomeUnknown"
    call(page, "forget", "i-1")
    assert keys(page) == []
    assert call(page, "settle", "i-1", "/idempotency/requests") == {}
    until(lambda: len(shop.orders(page)) == 1)


# --- the table, which is that of the clients for Python ---------------------------------------------

CASES = json.loads((Path(__file__).parents[1] / "client" / "attempt_cases.json").read_text("utf-8"))
PROFILES = {"retrysafe": ["in-progress"], "ietf": []}
DRIVER = """
async (cases) => {
  const { attempts, mayHaveEffect, meaningOf, SCHEDULE } = await import("/retrysafe/attempt.js");
  const camel = (case_) => Object.fromEntries(Object.entries(case_).map(
    ([name, value]) => [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), value]));
  const drive = async ({ replies, schedule = {}, age_s, doubtful }) => {
    const pauses = [];
    let now = 1e6, sent = 0;
    const profile = { inProgress: ["in-progress"], lifetimeS: 86400 };
    const io = {
      send: () => camel(replies[Math.min(sent++, replies.length - 1)]),
      pause: (leastS, mostS) => { pauses.push([leastS, mostS]); now += leastS + (mostS - leastS) / 2; },
      nowS: () => now,
    };
    const since = age_s === undefined ? undefined : now - age_s;
    const ended = await attempts(io, profile, { ...SCHEDULE, ...camel(schedule) }, since, doubtful);
    return { certainty: ended.certain, attempts: ended.attempts, sent, pauses };
  };
  return {
    meanings: cases.meanings.map((it) => meaningOf(camel(it.reply), { inProgress: it.inProgress }, it.doubtful)),
    effects: cases.effects.map((it) => mayHaveEffect(camel(it.reply))),
    endings: await Promise.all(cases.endings.map(drive)),
    pauses: await Promise.all(cases.pauses.map(drive)),
  };
}
"""


@pytest.fixture(scope="module")
def said(browser, serving):
    """What the module says of each case."""
    with browser.new_page() as page:
        page.goto(f"{serving.direct}/carts/1")
        told = {**CASES, "meanings": [{**it, "inProgress": PROFILES[it["profile"]]} for it in CASES["meanings"]]}
        return page.evaluate(DRIVER, told)


def test_what_a_reply_means(said):
    """What is tried again and what is not (R91)."""
    assert said["meanings"] == [case["meaning"] for case in CASES["meanings"]]


def test_effect(said):
    """A reply leaves doubt unless it is known that nothing was done."""
    assert said["effects"] == [case["possible"] for case in CASES["effects"]]


def test_ending(said):
    """What is known when no further attempt is made, and how many there were (R89, R91, R94)."""
    ended = [(it["certainty"], it["attempts"], it["sent"]) for it in said["endings"]]
    assert ended == [(case["certainty"], case["attempts"], case["attempts"]) for case in CASES["endings"]]


def test_pauses(said):
    """Full jitter that doubles up to a cap, and `Retry-After` as a minimum (R90)."""
    assert [it["pauses"] for it in said["pauses"]] == [case["pauses_s"] for case in CASES["pauses"]]
