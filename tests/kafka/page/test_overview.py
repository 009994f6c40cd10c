"""The overview follows the ledger, and shows a warning while a worker does not answer."""

import re
import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import NOW_S, event, paid, refunded
from tests.kafka.harness import WorkerProcess, environment, two_workers
from tests.kafka.page.stage import IN_A_BROWSER, LOOK_MS, card, ends, go, opened, row, wind_on

pytestmark = IN_A_BROWSER

# The page has two intervals of the same length. If no update arrives for the first interval, the
# page counts as stale. The second interval is the shortest time between two requests for the table
# of days. Both constants are slightly longer than these intervals.
SILENT_MS = AGAIN_MS = 5_100


class TestContent:
    def test_the_overview_shows_the_numbers_of_the_ledger_and_follows_them(self, page, ledger):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        totals = page.get_by_role("table", name="Totals by currency")
        # This amount of 2 * (2**53 - 1) - 1 cents is too large for JavaScript's numbers: they can't
        # represent it exactly.
        expect(row(totals, "USD")).to_contain_text("180,143,985,094,819.81")
        expect(row(totals, "IQD")).to_contain_text("1,234.567")
        expect(row(totals, "JPY")).to_contain_text("1,234")
        expect(card(page, "Readiness")).to_contain_text("Ready")
        expect(card(page, "Workers")).to_contain_text("0, 1, 2, 3")
        lag = card(page, "Not folded yet")
        expect(lag).to_contain_text("Deduplicate0Payments0Orders0")
        counts = [
            ("By outcome", "Counted"),
            ("By outcome", "Duplicate"),
            ("By outcome", "Rejected"),
            ("By type", "dispute.opened"),
            ("Rejected", "amount_negative"),
        ]
        before = [_count(page, *each) for each in counts]
        seen = paid("evt_seen", "pay_seen", "ord_seen", 1, currency="CHF")
        ledger.deliver(
            seen,
            seen,
            event("evt_seen_kept", "dispute.opened", "dp_seen", 5),
            event("evt_seen_bad", "payment.succeeded", "pay_seen_bad", -5),
        )
        for (title, name), count in zip(counts, before, strict=True):
            expect(row(card(page, title), name).get_by_role("cell")).to_have_text(f"{count + 1}")
        expect(row(totals, "CHF")).to_contain_text("0.010.000.01")
        rate = card(page, "Deliveries per second").get_by_role("img")
        expect(rate).to_have_accessible_name(re.compile("per second now, at most [1-9]"))

    def test_orders_with_anomalies_are_counted_and_the_latest_are_linked(self, page, ledger):
        what = ("Orders with anomalies", "Refund without a payment")
        expect(row(card(page, what[0]), what[1])).to_be_visible()
        before = _count(page, *what)
        ledger.deliver(refunded("evt_latest", "re_latest", "pay_latest", 7))
        anomalies = card(page, what[0])
        expect(row(anomalies, what[1]).get_by_role("cell")).to_have_text(f"{before + 1}")
        latest = anomalies.get_by_role("link", name="pay_latest")
        wind_on(page, AGAIN_MS, latest.is_visible)
        latest.click()
        expect(page).to_have_url(ends("#/orders/pay_latest"))


class TestDays:
    def test_the_drawing_and_the_sum_and_the_table_of_the_days_show_the_same_numbers(
        self, page, ledger
    ):
        ledger.fold(
            paid("evt_day_1", "pay_day_1", "ord_day_1", 1_000, created=_ago(40), currency="SEK"),
            paid("evt_day_2", "pay_day_2", "ord_day_2", 500, created=_ago(2), currency="SEK"),
            event(
                "evt_day_3",
                "refund.succeeded",
                "re_day",
                100,
                created=_ago(1),
                payment_id="pay_day_2",
                currency="SEK",
            ),
        )
        # After a reload, the page requests the numbers again, and no longer shows earlier numbers.
        page.reload()
        drawing = page.get_by_role("img", name="by day")
        page.get_by_label("Currency").select_option("SEK")
        expect(drawing.locator("rect.paid")).to_have_count(1)
        expect(drawing.locator("rect.refunded")).to_have_count(1)
        totals = card(page, "Totals")
        expect(totals).to_contain_text(
            "In these 30 days: 5.00\u00a0SEK paid, 1.00\u00a0SEK refunded, 4.00\u00a0SEK net."
        )
        page.get_by_text("As a table").click()
        days = page.get_by_role("table", name="SEK by day")
        expect(row(days, _day(2))).to_contain_text("5.000.005.00")
        expect(row(days, _day(1))).to_contain_text("0.001.00\N{MINUS SIGN}1.00")
        page.get_by_label("Days").select_option("90")
        expect(drawing.locator("rect.paid")).to_have_count(2)
        expect(totals).to_contain_text("In these 90 days: 15.00\u00a0SEK paid")

    def test_the_readers_choices_stay_while_more_deliveries_arrive(self, page, ledger):
        page.get_by_label("Currency").select_option("KZT")
        page.get_by_text("As a table").click()
        days = page.get_by_role("table", name="KZT by day")
        page.get_by_label("Days").select_option("90")
        expect(row(days, _day(12))).to_be_visible()
        page.get_by_label("Days").focus()
        ledger.deliver(paid("evt_stay", "pay_stay", "ord_stay", 4_321, created=_ago(25)))
        wind_on(page, AGAIN_MS, row(days, _day(25)).is_visible)
        expect(page.get_by_label("Days")).to_have_value("90")
        expect(page.get_by_label("Days")).to_be_focused()


class TestWithoutAnAnswer:
    def test_the_overview_is_marked_as_stale_while_its_worker_is_suspended(self, browser, ledger):
        with opened(browser, ledger.address) as page:
            live = page.get_by_text("Live", exact=True)
            stale = page.get_by_text("Stale since")
            expect(live).to_be_visible()
            read_out = page.get_by_role("status").filter(has=live).element_handle()
            ledger.worker.freeze()
            try:
                wind_on(page, SILENT_MS, stale.is_visible)
                expect(stale).to_contain_text("The worker is silent.")
                assert "Stale since" in read_out.inner_text()
            finally:
                ledger.worker.go_on()
            wind_on(page, 500, live.is_visible)
            go(page, "#/orders")
            expect(page.locator("main .list > li").first).to_be_visible()
        ledger.wait_folded()

    def test_each_page_is_marked_as_stale_while_its_worker_is_down(self, browser, ledger):
        with (
            opened(browser, ledger.address) as page,
            opened(browser, ledger.address, "#/orders/ord%2F1") as order,
        ):
            expect(card(page, "Readiness")).to_contain_text("Ready")
            expect(order.locator(".headline")).to_contain_text("Partially refunded")
            ledger.worker.signal(signal.SIGTERM)
            ledger.worker.wait(20)
            expect(card(page, "Readiness")).to_contain_text("Unknown")
            expect(page.get_by_text("Stale since")).to_contain_text("It may be restarting.")
            stale = order.locator("main").get_by_text("Stale since")
            wind_on(order, LOOK_MS, stale.is_visible)
            expect(stale).to_contain_text("It may be restarting.")
            expect(order.get_by_role("status").filter(has_text="Stale since")).to_have_count(1)
            expect(order.locator(".headline")).to_contain_text("Partially refunded")
            ledger.worker.start()
            expect(card(page, "Readiness")).to_contain_text("Ready", timeout=60_000)
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
            wind_on(order, LOOK_MS, stale.is_hidden)
        ledger.wait_folded()

    def test_a_request_that_is_never_answered_ends_with_a_message(self, browser, ledger):
        with opened(browser, ledger.address, "#/orders/ord%2F1") as page:
            expect(page.locator(".headline")).to_be_visible()
            ledger.worker.freeze()
            try:
                go(page, "#/quarantine")
                expect(page.locator("main")).to_contain_text("Reading the quarantine")
                wind_on(page, 31_000, page.get_by_text("The worker does not answer").is_visible)
            finally:
                ledger.worker.go_on()
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("main")).to_contain_text("amount_negative")
        ledger.wait_folded()

    def test_a_partly_loaded_page_shows_a_message_and_can_be_loaded_again(self, browser, ledger):
        with opened(browser, ledger.address) as page:
            page.route("**/currencies.json", lambda route: route.abort(), times=1)
            page.reload()
            expect(page.get_by_role("alert")).to_contain_text("The worker does not answer")
            page.get_by_role("button", name="Try again").click()
            expect(page.get_by_text("Live", exact=True)).to_be_visible()


@pytest.fixture(scope="module")
def workers(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """Run two workers of an empty ledger; the workers require no token."""
    one = environment(kafka.bootstrap, tmp_path_factory.mktemp("empty"))
    with two_workers(one, tmp_path_factory.mktemp("other")) as both:
        yield both


class TestTwoWorkers:
    @pytest.fixture
    def page(self, browser, workers):
        address = f"http://127.0.0.1:{workers[0].env['LEDGER_WEB_PORT']}"
        with opened(browser, address, token="") as page:
            yield page

    def test_each_page_shows_that_the_ledger_is_empty(self, page):
        expect(page.locator("main")).to_contain_text("Nothing was paid yet.")
        for at, word in {
            "#/orders": "No orders yet.",
            "#/anomalies": "No order has an anomaly.",
            "#/quarantine": "No delivery was rejected.",
            "#/search?q=nobody": "Nothing has this id.",
        }.items():
            go(page, at)
            expect(page.locator("main")).to_contain_text(word)

    def test_a_suspended_worker_is_shown_with_its_partitions(self, page, workers):
        suspended = f"http://127.0.0.1:{workers[1].env['LEDGER_WEB_PORT']}"
        readiness = card(page, "Readiness")
        expect(readiness).to_contain_text("2 workers, every partition is folded", timeout=60_000)
        folds = row(card(page, "Workers"), suspended).get_by_role("cell").nth(1).inner_text()
        workers[1].freeze()
        try:
            expect(row(card(page, "Workers"), suspended)).to_contain_text("does not answer")
            expect(readiness).to_contain_text(f"No ready worker has partition {folds}")
            expect(page.locator("main")).to_contain_text("The workers are computing the totals")
        finally:
            workers[1].go_on()
        expect(readiness).to_contain_text("2 workers, every partition is folded", timeout=60_000)


def _count(page: Page, title: str, name: str) -> int:
    """Return a count that the overview shows, or 0 if the overview does not show it."""
    counts = row(card(page, title), name).get_by_role("cell").all_inner_texts()
    return int(counts[0].replace(",", "")) if counts else 0


def _ago(days: int) -> int:
    return NOW_S - days * 86_400


def _day(ago: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(_ago(ago)))
