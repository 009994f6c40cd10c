"""The page of an order shows the order's deliveries, its state at any time, and its proof."""

import json

import msgspec
from playwright.sync_api import expect

from ledger.signature import sign
from ledger.trust import Trust
from ledger.verification.proof import Proof, check
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import SECRET, paid, refunded
from tests.kafka.page.stage import IN_A_BROWSER, LOOK_MS, go, row, wind_on

pytestmark = IN_A_BROWSER


class TestStory:
    def test_the_page_shows_the_totals_and_every_delivery_of_an_order(self, page):
        go(page, "#/orders/ord%2F1")
        main = page.locator("main")
        expect(main.locator(".headline")).to_have_text("Partially refunded 3,500.00\u00a0KZT")
        total = row(page.get_by_role("table", name="Totals by currency"), "KZT")
        expect(total).to_contain_text("5,000.001,500.003,500.00")
        items = main.locator(".timeline > li")
        expect(items).to_have_count(4)
        expect(items.nth(1)).to_contain_text("payment.succeeded5,000.00\u00a0KZT")
        expect(items.nth(2)).to_contain_text("Duplicate")
        expect(items.nth(2)).to_contain_text("counts only once")
        expect(items.nth(3)).to_contain_text("refund.succeeded1,500.00\u00a0KZT")
        expect(main.get_by_text("Signature good")).to_have_count(4)
        expect(main).to_contain_text("4 deliveries, sorted by arrival; 1 not counted")
        arrived = items.nth(0).locator("time").first
        title = arrived.get_attribute("title") or ""
        assert title.endswith(" UTC")
        # The reader's time zone is five hours ahead of UTC.
        assert f"{(int(title[11:13]) + 5) % 24:02}:{title[14:19]}" in arrived.inner_text()
        expect(page.get_by_role("contentinfo")).to_contain_text("your own zone, Asia/Almaty")

    def test_the_page_shows_a_raw_body_exactly_as_it_was_delivered(self, page):
        go(page, "#/orders/ord%2F1")
        item = page.locator(".timeline > li").nth(1)
        item.get_by_text("Raw body").click()
        body = json.dumps(paid("evt_paid", "pay_1", "ord/1", 500_000))
        expect(item.locator("pre")).to_have_text(body)
        expect(item).to_contain_text("plexy-signature")

    def test_a_delivery_that_plexy_did_not_sign_is_marked(self, page, ledger):
        body = json.dumps(paid("evt_forged", "pay_forged", "ord_forged", 1)).encode()
        signature = sign(body, b"whsec_of_somebody_else", 1).encode()
        headers = [("plexy-signature", signature), ("received-at-ms", b"1000")]
        ledger.write(OutRecord(b"evt_forged", body, headers))
        go(page, "#/orders/ord_forged")
        expect(page.locator("main")).to_contain_text("Signature does not match")
        expect(page.get_by_text("Signature good")).to_have_count(0)

    def test_an_anomaly_is_explained_with_the_action_to_take(self, page):
        go(page, "#/orders/ord_less")
        note = page.locator(".warning")
        expect(note).to_contain_text("The refunds of a payment add up to more than was paid.")
        expect(note).to_contain_text("What to do:")
        expect(page.locator(".headline")).to_contain_text(
            "Over-refunded \N{MINUS SIGN}0.01\u00a0KZT"
        )

    def test_a_missing_order_is_reported_and_can_be_requested_again(self, page, ledger):
        go(page, "#/orders/nobody_yet")
        expect(page.get_by_role("heading", name="Not in the ledger")).to_be_visible()
        ledger.fold(paid("evt_now", "pay_now", "nobody_yet", 1))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".headline")).to_contain_text("Paid")

    def test_a_large_order_shows_20_payments_and_its_latest_50_deliveries_until_asked_for_more(
        self, page, ledger
    ):
        ledger.fold(*(paid(f"evt_m{n}", f"pay_m{n:02}", "ord_many", 100) for n in range(60)))
        go(page, "#/orders/ord_many")
        payments, items = page.locator("article.payment"), page.locator(".timeline > li")
        expect(payments).to_have_count(20)
        expect(items).to_have_count(50)
        expect(items.last).to_contain_text("evt_m59")
        page.get_by_role("button", name="Show 40 more payments").click()
        expect(payments).to_have_count(60)
        expect(payments.nth(20).get_by_role("link")).to_be_focused()
        page.get_by_role("button", name="Show 10 earlier deliveries").click()
        expect(items).to_have_count(60)
        expect(items.first.get_by_role("link").first).to_be_focused()


class TestAsOf:
    def test_the_slider_shows_the_order_as_it_was_after_each_delivery(self, page):
        go(page, "#/orders/ord%2F1")
        slider = page.get_by_role("slider", name="As of")
        expect(slider).to_have_value("4")
        slider.focus()
        page.keyboard.press("Home")
        expect(page.locator(".headline")).to_contain_text("Failed")
        expect(page.locator(".as-of output")).to_contain_text("after 1 of 4 deliveries")
        expect(page.get_by_text("Had not arrived").locator("visible=true")).to_have_count(3)
        page.keyboard.press("ArrowRight")
        expect(page.locator(".headline")).to_contain_text("Paid")
        page.get_by_role("button", name="Now").click()
        expect(page.locator(".headline")).to_contain_text("Partially refunded")
        expect(page.get_by_text("Had not arrived").locator("visible=true")).to_have_count(0)

    def test_an_order_with_only_one_time_of_arrival_has_no_slider(self, page):
        go(page, "#/orders/ord_yen")
        expect(page.locator(".headline")).to_contain_text("Paid")
        expect(page.get_by_role("slider")).to_be_hidden()


class TestFollowing:
    def test_a_new_delivery_is_shown_and_open_details_stay_open(self, page, ledger):
        ledger.fold(paid("evt_open", "pay_open", "ord_open", 1000))
        go(page, "#/orders/ord_open")
        items = page.locator(".timeline > li")
        expect(page.locator(".headline")).to_contain_text("Paid")
        page.get_by_text("Raw body").click()
        expect(page.locator("pre")).to_contain_text("evt_open")
        summary = page.locator("summary").first
        summary.focus()
        ledger.fold(refunded("evt_open_r", "re_open", "pay_open", 400))
        wind_on(page, LOOK_MS, lambda: items.count() == 2)
        expect(page.locator(".headline")).to_have_text("Partially refunded 6.00\u00a0KZT")
        expect(page.get_by_role("status").filter(has_text="The order changed")).to_have_count(1)
        ledger.fold(refunded("evt_open_r", "re_open", "pay_open", 400))
        wind_on(page, LOOK_MS, lambda: items.count() == 3)
        expect(items.nth(2)).to_contain_text("Duplicate")
        expect(page.locator("pre")).to_be_visible()
        expect(summary).to_be_focused()

    def test_the_focus_stays_on_its_element_while_the_order_does_not_change(self, page):
        """The page reads the order's deliveries several times during the test."""
        go(page, "#/orders/ord_less")
        expect(page.locator(".headline")).to_be_visible()
        page.get_by_role("link", name="pay_less").first.focus()
        looks: list[str] = []
        page.on("response", lambda answer: looks.append(answer.url))
        wind_on(page, LOOK_MS, lambda: sum(url.endswith("/events") for url in looks) >= 2)
        expect(page.get_by_role("link", name="pay_less").first).to_be_focused()


def test_a_proof_that_the_page_has_saved_is_valid(page, tmp_path):
    go(page, "#/orders/ord%2F1")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download proof").click()
    assert download.value.suggested_filename == "proof-ord_1.json"
    expect(page.get_by_text("plexy-ledger prove proof-ord_1.json")).to_be_visible()
    download.value.save_as(tmp_path / "proof.json")
    proof = msgspec.json.decode((tmp_path / "proof.json").read_bytes(), type=Proof)
    assert check(proof, Trust(secrets=(SECRET.encode(),))).faults == ()
