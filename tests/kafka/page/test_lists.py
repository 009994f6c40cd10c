"""The page has a search, lists, a view of each payment and a view of each event."""

from typing import get_args

from playwright.sync_api import expect

from ledger.orders import OrderStatus
from ledger.rejections import Reason
from processors.views.listed import ANOMALIES
from tests.kafka.answers import NOW_S, paid, refunded
from tests.kafka.page.stage import ATTACK, IN_A_BROWSER, TOKEN, go, row, search

pytestmark = IN_A_BROWSER


class TestSearch:
    def test_one_field_finds_orders_payments_and_events(self, page):
        for wanted, found in {
            "ord/1": "Found: order.",
            "pay_1": "Found: payment.",
            "evt_paid": "Found: event.",
            "pay_lone": "Found: order, payment.",
            ATTACK: "Found: order, payment, event.",
            "nobody": "Nothing has this id.",
            "..": "only dots",
        }.items():
            search(page, wanted)
            expect(page.locator("main")).to_contain_text(found)

    def test_a_result_links_to_its_order(self, page):
        search(page, "evt_paid")
        page.get_by_role("link", name="ord/1").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Order ord/1")
        page.go_back()
        expect(page.locator("main")).to_contain_text("Found: event.")


class TestLists:
    def test_lists_have_pages_and_filters(self, page, ledger):
        ledger.fold(*(paid(f"evt_l{n}", f"pay_l{n}", f"ord_l{n}", 1) for n in range(40)))
        go(page, "#/orders")
        items = page.locator("main .list > li")
        expect(items).to_have_count(50)
        first = items.first.inner_text()
        page.get_by_role("link", name="Older ones").click()
        expect(items.first).not_to_have_text(first)
        page.get_by_role("link", name="Back to the newest").click()
        expect(items).to_have_count(50)
        page.get_by_label("Status").select_option("over_refunded")
        expect(items.filter(has_text="ord_less")).to_have_count(1)
        expect(items.filter(has_not_text="Over-refunded")).to_have_count(0)

    def test_refunds_whose_payment_has_not_arrived_are_listed_with_their_age(self, page, ledger):
        lone = refunded("evt_old", "re_old", "pay_old", 9)
        ledger.fold({**lone, "created": NOW_S - 3 * 86_400 - 60})
        go(page, "#/anomalies")
        page.get_by_label("Anomaly").select_option("refund_without_payment")
        expect(page.locator("main")).to_contain_text("after that, ask Plexy")
        item = page.locator("main .list > li").filter(has_text="pay_old")
        expect(item).to_contain_text("missing for 3 days")

    def test_the_quarantine_shows_the_reason_of_each_rejection(self, page):
        go(page, "#/quarantine")
        items = page.locator("main .list > li")
        bad = items.filter(has_text="evt_bad")
        expect(bad).to_contain_text("amount_negative")
        expect(bad).to_contain_text("The amount is below zero.")
        expect(items.filter(has_text="refused by ingress")).to_have_count(1)
        page.get_by_label("Reason").select_option("amount_negative")
        expect(items).to_have_count(1)
        items.get_by_role("link", name="evt_bad").click()
        expect(page.locator(".headline")).to_have_text("Rejected")

    def test_a_list_that_a_filter_has_emptied_says_that_nothing_matches_the_filter(self, page):
        for at, word in {
            "#/orders?status=failed": "No order has this status.",
            "#/anomalies?anomaly=conflicting_refund": "No order has this anomaly.",
            "#/quarantine?state=put_back": "No delivery matches these filters.",
        }.items():
            go(page, at)
            expect(page.locator("main .empty")).to_have_text(word)


def test_the_view_of_a_payment_and_the_view_of_an_event_show_details(page):
    go(page, "#/payments/pay_1")
    expect(page.locator(".headline")).to_have_text("Succeeded 5,000.00\u00a0KZT")
    expect(row(page.get_by_role("table", name="Refunds"), "re_1")).to_contain_text("1,500.00")
    page.locator(".timeline").get_by_role("link", name="evt_paid").first.click()
    expect(page.locator(".headline")).to_have_text("Counted")
    expect(page.locator(".timeline > li")).to_have_count(2)
    expect(page.get_by_role("link", name="ord/1")).to_be_visible()


def test_the_page_has_words_for_all_anomalies_reasons_statuses_outcomes_and_hops(page, ledger):
    words = page.evaluate(
        """async () => {
            const words = await import("/ui/words.js");
            return Object.entries(words).filter(([, value]) => typeof value === "object")
                .map(([name, value]) => [name, Object.keys(value)]);
        }"""
    )
    known = {name: set(keys) for name, keys in words}
    assert known["ANOMALIES"] == set(ANOMALIES)
    assert known["REASONS"] == set(map(str, Reason))
    assert known["STATUSES"] >= set(get_args(OrderStatus))
    header = f"Bearer {TOKEN}".encode().decode("latin-1")
    _, overview = ledger.worker.get("/overview", Authorization=header)
    assert known["OUTCOMES"] >= set(overview["outcomes"])
    assert known["HOPS"] == set(overview["lag"])
