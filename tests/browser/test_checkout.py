"""People at the page of the example, over a network that is cut: one order each, and the truth on the screen."""

from __future__ import annotations

from playwright.sync_api import expect

from retrysafe.faults import CutRequest, CutResponse, DeliverTwice, LoseResponse, Reset
from tests.browser.tickets import cart_of, expect_said, keys, order
from tests.doors.servers import until

ATTEMPTS = 5
NOBODY_KNOWS = "Nobody knows whether it was ordered. Send it again: it is not doubled."
PERHAPS_NOT = "Your order may not have come through. Send it again: it is not doubled."


def expect_one(shop, page, quantity=1):
    """Nothing is under way (a page may still show the answer of before); one order, and the page says which."""
    expect(page.get_by_role("button")).to_be_enabled()
    expect(page.get_by_role("status")).to_contain_text("Order ")
    ((number, ordered),) = shop.orders(page)
    expect_said(page, f"Order {number}, for {quantity}.")
    assert ordered == quantity


def test_a_network_that_is_cut(shop, context):
    """Whatever the first attempt meets, and the second loses its answer; an answer without its last bytes is none."""
    cut_off = CutResponse(shop.answer_bytes() - 4)
    for faults in [LoseResponse()], [CutRequest(200)], [Reset()], [DeliverTwice()], [cut_off, LoseResponse()]:
        page = shop.open(context)
        shop.faults.extend(faults)
        order(page)
        expect_one(shop, page)
        page.close()


def test_a_double_click(shop, context):
    """Two clicks, and calls that no button holds up: one request."""
    page, sent = shop.open(context), []
    page.on("request", lambda request: sent.append(request.method))
    with shop.held_up():
        page.get_by_role("button").dblclick()
        page.evaluate("for (let i = 0; i < 3; i += 1) document.forms[0].requestSubmit()")
        expect(page.get_by_role("button")).to_be_disabled()
    expect_one(shop, page)
    expect(page.get_by_role("button")).to_be_enabled()
    assert sent.count("POST") == 1


def test_a_reload_while_it_is_done(shop, context):
    """The page that comes back asks, waits, and shows the answer."""
    page = shop.open(context)
    with shop.held_up():
        order(page)
        until(lambda: shop.state_of(page) == "in_progress")
        page.reload()
        expect(page.get_by_role("button")).to_be_disabled()
    expect_one(shop, page)


def test_a_reload_after_it_was_done(shop, context):
    """The answer was lost, and the page with it; the one that comes back shows the answer, and nobody clicked."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * ATTEMPTS)
    order(page)
    expect_said(page, NOBODY_KNOWS)
    page.reload()
    expect_one(shop, page)


def test_a_reload_before_it_came_there(shop, context):
    """The server never had it: nothing is ordered by looking. One more click orders it, once."""
    page = shop.open(context)
    shop.faults.extend([CutRequest(200)] * ATTEMPTS)
    order(page)
    expect_said(page, NOBODY_KNOWS)
    page.reload()
    expect_said(page, PERHAPS_NOT)
    assert shop.orders(page) == []
    order(page)
    expect_one(shop, page)


def test_the_back_button(shop, context):
    """Who goes back and sends the same again gets the same; so does who loads the page again."""
    page = shop.open(context)
    page.evaluate("addEventListener('pageshow', ({ persisted }) => (document.body.dataset.persisted = persisted))")
    order(page)
    expect_one(shop, page)
    page.goto("/openapi.json")
    page.evaluate("setTimeout(() => history.back())")
    page.wait_for_selector("body[data-persisted=true]")
    order(page)
    expect_one(shop, page)
    page.reload()
    expect_said(page, "This was ordered.")
    order(page)
    expect_one(shop, page)


def test_two_tabs(shop, context):
    """Both at once, of which one waits for the other, and one that comes later: one order, which all of them show."""
    one = shop.open(context)
    other = shop.open(context, cart_of(one))
    events = []
    one.on("response", lambda answer: events.append(f"answer {answer.status}"))
    other.on("request", lambda request: events.append(request.method))
    with shop.held_up():
        order(one)
        until(lambda: shop.state_of(one) == "in_progress")
        order(other)
    expect_one(shop, one)
    expect_one(shop, other)
    assert events == ["answer 201", "POST"]
    late = shop.open(context, cart_of(one))
    order(late)
    expect_one(shop, late)


def test_another_tab_wants_something_else(shop, context):
    """It is told that the other one was ordered; nothing more is, until somebody decides so."""
    one = shop.open(context)
    order(one)
    expect_one(shop, one)
    other = shop.open(context, cart_of(one))
    order(other, quantity=5)
    expect_said(other, "This was ordered before: in another tab.")
    assert len(shop.orders(one)) == 1
    forget(other)
    order(other, quantity=5)
    expect(other.get_by_role("status")).to_contain_text("for 5.")
    assert len(shop.orders(one)) == 2


def test_a_tab_that_was_duplicated(shop, context):
    """It has what the first one had written down, key and all."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * ATTEMPTS)
    order(page)
    expect_said(page, NOBODY_KNOWS)
    with page.expect_popup() as opened:
        page.evaluate("open(location)")
    expect_one(shop, opened.value)
    order(page)
    expect_one(shop, page)


def test_a_tab_that_was_closed(shop, context):
    """Its key is found by the next one, though nothing else is."""
    page = shop.open(context)
    cart = cart_of(page)
    with shop.held_up():
        order(page)
        until(lambda: shop.state_of(page) == "in_progress")
        page.close()
    next_page = shop.open(context, cart)
    expect_said(next_page, "This was ordered.")
    order(next_page)
    expect_one(shop, next_page)


def test_offline_and_back(shop, context):
    """Without a network nothing is sent; with it, it is, and nobody clicked again."""
    page = shop.open(context)
    context.set_offline(True)
    order(page)
    expect(page.get_by_role("button")).to_be_disabled()
    assert shop.orders(page) == []
    context.set_offline(False)
    expect_one(shop, page)


def test_offline_in_the_middle(shop, context):
    """The network goes while the order is written, the answer with it, and then the network comes back."""
    page = shop.open(context)
    shop.faults.append(LoseResponse())
    with shop.held_up():
        order(page)
        until(lambda: shop.state_of(page) == "in_progress")
        context.set_offline(True)
    until(lambda: shop.orders(page))
    context.set_offline(False)
    expect_one(shop, page)


def test_an_edit_after_it_was_done(shop, context):
    """The first was ordered, though nobody here knew: that is shown, and the edited one is not ordered."""
    page = shop.open(context)
    shop.faults.extend([LoseResponse()] * ATTEMPTS)
    order(page)
    expect_said(page, NOBODY_KNOWS)
    order(page, quantity=4)
    expect(page.get_by_role("status")).to_contain_text("ordered before")
    ((number, quantity),) = shop.orders(page)
    expect_said(page, f"This was ordered before: Order {number}, for 1.")
    assert quantity == 1


def test_an_edit_before_it_came_there(shop, context):
    """The first never came there: the edited one takes its key, and the first can come no more."""
    page = shop.open(context)
    shop.faults.extend([CutRequest(200)] * ATTEMPTS)
    order(page)
    expect_said(page, NOBODY_KNOWS)
    order(page, quantity=4)
    expect_one(shop, page, quantity=4)


def test_an_edit_after_it_was_refused(shop, context):
    """The first was refused, though nobody here knew: the edited one is ordered."""
    page = shop.open(context)
    order(page, quantity=5)
    expect_one(shop, page, quantity=5)
    shop.faults.extend([LoseResponse()] * ATTEMPTS)
    order(page, quantity=8)
    expect_said(page, NOBODY_KNOWS)
    order(page, quantity=2)
    expect(page.get_by_role("status")).to_contain_text("for 2.")
    assert [quantity for _, quantity in shop.orders(page)] == [5, 2]


def test_a_correction(shop, context):
    """What was refused may be corrected, and is then ordered; so may what was ordered, and then both are."""
    page = shop.open(context)
    order(page, quantity=0)
    expect_said(page, "Between 1 and 9, please.")
    assert keys(page) == []
    order(page, quantity=2)
    expect_one(shop, page, quantity=2)
    order(page, quantity=3)
    expect(page.get_by_role("status")).to_contain_text("for 3.")
    assert [quantity for _, quantity in shop.orders(page)] == [2, 3]


def forget(page):
    """Somebody decides that the intent is another one."""
    page.evaluate("async (cart) => (await import('/retrysafe/index.js')).forget(`cart-${cart}`)", cart_of(page))
