"""The page, in a real browser, in front of a real worker, ingress and Kafka.

Deliveries come over HTTP, as Plexy's do. The browser is the system's Chromium (Debian: `chromium`).
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from cli.kafka import EmbeddedKafka
from ledger.orders import OrderStatus
from ledger.proof import Proof, check
from ledger.rejections import Reason
from ledger.truth import Trust
from processors.views.listed import ANOMALIES
from tests.ingest.conftest import PATH, signed
from tests.kafka.answers import NOW_S, SECRET, event, paid, refunded
from tests.kafka.harness import WorkerProcess, environment, free_port, until, wait_folded

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium here"
    ),
]

# Not ASCII: a header carries its bytes all the same.
TOKEN = "жетон of the page"
ATTACK = "<img src=x onerror=document.title='run'>"
HUGE = 2**53 - 1
PICTURES = Path("build/page")
expect.set_options(timeout=15_000)


class Ledger(NamedTuple):
    """A ledger with its two doors."""

    env: dict[str, str]
    worker: WorkerProcess
    ingress: httpx.Client

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.env['LEDGER_WEB_PORT']}"

    def deliver(self, *bodies: dict[str, Any] | bytes, status: int = 200) -> None:
        """Deliver as Plexy does."""
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = self.ingress.post(PATH, content=raw, headers=signed(raw, secret=SECRET))
            assert answer.status_code == status, answer.text

    def wait_folded(self) -> None:
        """Wait in a thread: in this one the browser's event loop runs."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(wait_folded, self.env, self.worker).result()


@pytest.fixture(scope="module")
def ledger(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Run a worker and an ingress, and deliver a story that has everything in it."""
    env = environment(
        kafka.bootstrap,
        tmp_path_factory.mktemp("page"),
        api_token=TOKEN,
        webhook_secrets=SECRET,
        ingest_port=free_port(),
    )
    log_file = Path(env["LEDGER_DATA_DIR"]) / "ingress.log"
    address = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    with WorkerProcess(env) as worker, httpx.Client(base_url=address, trust_env=False) as client:
        # The worker makes the topics.
        worker.wait_ready(90)
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "ingest"],
                env=os.environ | env,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: _is_ready(client), within_s=60, what=f"ingress: {log_file}")
            ledger = Ledger(env, worker, client)
            _tell(ledger)
            yield ledger
        finally:
            process.terminate()
            process.wait(20)
        assert "Traceback" not in worker.log_file.read_text()


def _is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def _tell(ledger: Ledger) -> None:
    """Deliver what most tests look at; what one of them changes, it delivers itself."""
    for day in range(20):
        at = NOW_S - day * 86_400
        ledger.deliver(
            paid(f"evt_d{day}", f"pay_d{day}", f"ord_d{day}", 100_000 + day * 7_919, created=at)
        )
        if day % 4 == 1:
            refund = refunded(f"evt_dr{day}", f"re_d{day}", f"pay_d{day}", 30_000 + day)
            ledger.deliver({**refund, "created": at})
    ledger.deliver(
        event("evt_failed", "payment.failed", "pay_1", 500_000, merchantReference="ord/1"),
        paid("evt_paid", "pay_1", "ord/1", 500_000),
        paid("evt_paid", "pay_1", "ord/1", 500_000),
        refunded("evt_refund", "re_1", "pay_1", 150_000),
        # Three decimals by ISO 4217, none by the custom of shops, which browsers follow.
        paid("evt_dinar", "pay_dinar", "ord_dinar", 1_234_567, currency="IQD"),
        paid("evt_yen", "pay_yen", "ord_yen", 1_234, currency="JPY"),
        paid("evt_huge_1", "pay_huge_1", "ord_huge", HUGE, currency="USD"),
        paid("evt_huge_2", "pay_huge_2", "ord_huge", HUGE - 1, currency="USD"),
        refunded("evt_lone", "re_lone", "pay_lone", 700),
        paid("evt_less", "pay_less", "ord_less", 100),
        refunded("evt_more", "re_more", "pay_less", 101),
        event("evt_bad", "payment.succeeded", "pay_bad", -5),
        event("evt_kept", "dispute.opened", "dp_1", 5),
        paid(ATTACK, ATTACK, ATTACK, 5, note=ATTACK),
        {**refunded("evt_attack", ATTACK, ATTACK, 6), "type": "refund.succeeded"},
        event(f"{ATTACK}2", ATTACK, "dp_2", 5),
        event(f"{ATTACK}3", "payment.succeeded", "pay_5", 1, currency=ATTACK),
    )
    ledger.deliver(b'{"id": "' + ATTACK.encode() + b'"', status=400)
    ledger.wait_folded()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "install chromium: apt-get install --no-install-recommends chromium"
    with sync_playwright() as playwright:
        # In a container there is no sandbox to be had, nor much of /dev/shm.
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


class Watch:
    """What a page must never do: ask another host, fail in a script, or run what came in an id."""

    def __init__(self, ledger: Ledger, context: BrowserContext, meant: str) -> None:
        self._meant = meant
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self._own = ledger.address.removeprefix("http://")
        context.route("**/*", self._pass)

    def _pass(self, route: Any, request: Request) -> None:
        host = httpx.URL(request.url).netloc.decode()
        self.hosts.add(host)
        if host == self._own:
            route.continue_()
        else:
            route.abort()

    def look_at(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # What the worker refuses, or has not, is told as well; it is meant.
        meant = "Failed to load resource" in message.text or self._meant in message.text
        if message.type == "error" and not meant:
            self.errors.append(message.text)

    def check(self) -> None:
        assert self.hosts <= {self._own}
        assert self.errors == []


@contextlib.contextmanager
def opened(
    browser: Browser,
    ledger: Ledger,
    address: str = "",
    *,
    token: str = TOKEN,
    meant: str = "nothing",
    **options: Any,
) -> Iterator[Page]:
    """Open the page in a browser of its own, which has a token; ``meant`` marks errors that are."""
    settings = {"locale": "en-GB", "timezone_id": "Asia/Almaty", **options}
    with contextlib.closing(browser.new_context(**settings)) as context:
        watch = Watch(ledger, context, meant)
        if token:
            kept = json.dumps(["plexy-ledger.token", token])
            context.add_init_script(f"localStorage.setItem(...{kept})")
        page = context.new_page()
        watch.look_at(page)
        page.goto(f"{ledger.address}/ui/{address}")
        yield page
        watch.check()


@pytest.fixture
def page(browser: Browser, ledger: Ledger) -> Iterator[Page]:
    with opened(browser, ledger) as found:
        yield found


def go(page: Page, ledger: Ledger, address: str) -> None:
    page.goto(f"{ledger.address}/ui/{address}")


def search(page: Page, wanted: str) -> None:
    page.get_by_role("searchbox").fill(wanted)
    page.get_by_role("button", name="Search").click()


def card(page: Page, title: str) -> Locator:
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.locator("section.card").filter(has=heading)


def row(table: Locator, name: str) -> Locator:
    """Return the row of a table that has this at its head."""
    head = table.page.get_by_role("rowheader", name=name, exact=True)
    return table.get_by_role("row").filter(has=head)


class TestOverview:
    def test_it_shows_what_the_ledger_has_and_follows_it(self, page, ledger):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        outcomes = card(page, "By outcome")
        expect(row(outcomes, "Duplicate")).to_contain_text("1")
        expect(row(card(page, "Rejected"), "amount_negative")).to_contain_text("1")
        expect(row(card(page, "By type"), "dispute.opened")).to_contain_text("1")
        totals = page.get_by_role("table", name="Totals by currency")
        # 2 * (2**53 - 1) - 1 cents: no double holds it.
        expect(row(totals, "USD")).to_contain_text("180,143,985,094,819.81")
        expect(row(totals, "IQD")).to_contain_text("1,234.567")
        expect(row(totals, "JPY")).to_contain_text("1,234")
        expect(card(page, "Readiness")).to_contain_text("Ready")
        expect(card(page, "Workers")).to_contain_text("0, 1, 2, 3")
        lag = card(page, "Not folded yet")
        expect(lag).to_contain_text("Deduplicate0Payments0Orders0")
        before = _number(row(outcomes, "Counts").get_by_role("cell").inner_text())
        ledger.deliver(paid("evt_seen_live", "pay_seen_live", "ord_seen_live", 1, currency="CHF"))
        expect(row(outcomes, "Counts")).to_contain_text(f"{before + 1}")
        expect(row(totals, "CHF")).to_contain_text("0.01")

    def test_the_days_are_a_drawing_and_a_table_with_the_same_numbers(self, page):
        drawing = page.get_by_role("img", name="by day")
        expect(drawing).to_be_visible()
        page.get_by_label("Currency").select_option("KZT")
        expect(drawing.locator("rect.paid")).not_to_have_count(0)
        expect(drawing.locator("rect.refunded")).not_to_have_count(0)
        page.get_by_text("As a table").click()
        days = page.get_by_role("table", name="KZT by day")
        day = time.strftime("%Y-%m-%d", time.gmtime(NOW_S - 5 * 86_400))
        expect(row(days, day)).to_contain_text("1,395.95")
        expect(row(days, day)).to_contain_text("300.05")
        page.get_by_label("Days").select_option("90")
        expect(page.get_by_label("Days")).to_be_focused()

    def test_a_worker_that_stands_still_makes_it_stale_and_it_comes_back(self, page, ledger):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        ledger.worker.freeze()
        try:
            expect(page.get_by_text("Stale since")).to_be_visible()
        finally:
            ledger.worker.go_on()
        expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=30_000)
        ledger.wait_folded()

    def test_orders_with_anomalies_are_counted_and_the_latest_are_linked(self, page):
        anomalies = card(page, "Orders with anomalies")
        expect(row(anomalies, "Refund without a payment")).to_contain_text("1")
        anomalies.get_by_role("link", name="pay_lone").click()
        expect(page).to_have_url(_ends("#/orders/pay_lone"))


class TestSearch:
    def test_one_field_finds_orders_payments_and_events(self, page):
        for wanted, found in {
            "ord/1": "Found: order.",
            "pay_1": "Found: payment.",
            "evt_paid": "Found: event.",
            "pay_lone": "Found: order, payment.",
            ATTACK: "Found: order, payment, event.",
            "nobody": "Nothing has this id.",
            "..": "dots alone",
        }.items():
            search(page, wanted)
            expect(page.locator("main")).to_contain_text(found)

    def test_what_was_found_leads_on(self, page):
        search(page, "evt_paid")
        page.get_by_role("link", name="ord/1").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Order ord/1")
        page.go_back()
        expect(page.locator("main")).to_contain_text("Found: event.")


class TestOrder:
    def test_it_tells_the_whole_story(self, page, ledger):
        go(page, ledger, "#/orders/ord%2F1")
        main = page.locator("main")
        expect(main.locator(".headline")).to_have_text("Partially refunded 3,500.00\u00a0KZT")
        total = row(page.get_by_role("table", name="Totals by currency"), "KZT")
        expect(total).to_contain_text("5,000.001,500.003,500.00")
        items = main.locator(".timeline > li")
        expect(items).to_have_count(4)
        expect(items.nth(2)).to_contain_text("Duplicate")
        expect(items.nth(2)).to_contain_text("dropped, counted once")
        expect(main.get_by_text("Signature good")).to_have_count(4)
        expect(main).to_contain_text("4 deliveries in the order of arrival, 1 of them not counted")
        arrived = items.nth(0).locator("time").first
        title = arrived.get_attribute("title") or ""
        assert title.endswith(" UTC")
        # The reader's zone is five hours ahead of it.
        assert f"{(int(title[11:13]) + 5) % 24:02}:{title[14:19]}" in arrived.inner_text()

    def test_the_raw_body_is_the_one_that_was_delivered(self, page, ledger):
        go(page, ledger, "#/orders/ord%2F1")
        item = page.locator(".timeline > li").nth(1)
        item.get_by_text("Raw body").click()
        body = json.dumps(paid("evt_paid", "pay_1", "ord/1", 500_000))
        expect(item.locator("pre")).to_have_text(body)
        expect(item).to_contain_text("plexy-signature")

    def test_a_refund_that_arrives_is_shown_and_what_was_open_stays_open(self, page, ledger):
        ledger.deliver(paid("evt_open", "pay_open", "ord_open", 1000))
        ledger.wait_folded()
        go(page, ledger, "#/orders/ord_open")
        expect(page.locator(".headline")).to_contain_text("Paid")
        page.get_by_text("Raw body").click()
        expect(page.locator("pre")).to_contain_text("evt_open")
        ledger.deliver(refunded("evt_open_r", "re_open", "pay_open", 400))
        expect(page.locator(".headline")).to_have_text("Partially refunded 6.00\u00a0KZT")
        expect(page.locator(".timeline > li")).to_have_count(2)
        expect(page.locator("pre")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="The order changed")).to_have_count(1)
        ledger.deliver(refunded("evt_open_r", "re_open", "pay_open", 400))
        expect(page.locator(".timeline > li")).to_have_count(3)
        expect(page.locator(".timeline > li").nth(2)).to_contain_text("Duplicate")

    def test_the_slider_shows_what_was_known_when_each_delivery_had_arrived(self, page, ledger):
        go(page, ledger, "#/orders/ord%2F1")
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

    def test_the_proof_is_saved_and_holds(self, page, ledger, tmp_path):
        go(page, ledger, "#/orders/ord%2F1")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download proof").click()
        assert download.value.suggested_filename == "proof.json"
        download.value.save_as(tmp_path / "proof.json")
        proof = msgspec.json.decode((tmp_path / "proof.json").read_bytes(), type=Proof)
        assert check(proof, Trust(secrets=(SECRET.encode(),))).faults == ()

    def test_an_anomaly_is_told_in_words_with_what_to_do(self, page, ledger):
        go(page, ledger, "#/orders/ord_less")
        note = page.locator(".warning")
        expect(note).to_contain_text("The refunds of a payment add up to more than was paid.")
        expect(note).to_contain_text("What to do:")
        expect(page.locator(".headline")).to_contain_text(
            "Over-refunded \N{MINUS SIGN}0.01\u00a0KZT"
        )

    def test_an_order_that_is_not_there_says_so(self, page, ledger):
        go(page, ledger, "#/orders/nobody")
        expect(page.get_by_role("heading", name="Not in the ledger")).to_be_visible()
        ledger.deliver(paid("evt_now", "pay_now", "nobody_yet", 1))
        ledger.wait_folded()
        go(page, ledger, "#/orders/nobody_yet")
        expect(page.locator(".headline")).to_contain_text("Paid")


class TestOtherPages:
    def test_a_payment_s_and_an_event_s_page(self, page, ledger):
        go(page, ledger, "#/payments/pay_1")
        expect(page.locator(".headline")).to_have_text("Succeeded 5,000.00\u00a0KZT")
        expect(row(page.get_by_role("table", name="Refunds"), "re_1")).to_contain_text("1,500.00")
        page.get_by_role("table", name="Events").get_by_role("link", name="evt_paid").click()
        expect(page.locator(".headline")).to_have_text("Counts")
        expect(page.locator(".timeline > li")).to_have_count(2)
        expect(page.get_by_role("link", name="ord/1")).to_be_visible()

    def test_lists_turn_pages_and_filter(self, page, ledger):
        ledger.deliver(*(paid(f"evt_l{n}", f"pay_l{n}", f"ord_l{n}", 1) for n in range(40)))
        ledger.wait_folded()
        go(page, ledger, "#/orders")
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

    def test_refunds_that_still_lack_their_payment_are_listed_with_their_age(self, page, ledger):
        lone = refunded("evt_old", "re_old", "pay_old", 9)
        ledger.deliver({**lone, "created": NOW_S - 3 * 86_400 - 60})
        ledger.wait_folded()
        go(page, ledger, "#/anomalies")
        page.get_by_label("Anomaly").select_option("refund_without_payment")
        expect(page.locator("main")).to_contain_text("Wait for three days")
        item = page.locator("main .list > li").filter(has_text="pay_old")
        expect(item).to_contain_text("missing for 3 days")

    def test_the_quarantine_says_why(self, page, ledger):
        go(page, ledger, "#/quarantine")
        items = page.locator("main .list > li")
        bad = items.filter(has_text="evt_bad")
        expect(bad).to_contain_text("amount_negative")
        expect(bad).to_contain_text("Its amount is below zero.")
        expect(items.filter(has_text="refused by ingress")).to_have_count(1)
        page.get_by_label("Reason").select_option("amount_negative")
        expect(items).to_have_count(1)
        items.get_by_role("link", name="evt_bad").click()
        expect(page.locator(".headline")).to_have_text("Rejected")

    def test_every_name_of_the_ledger_has_words(self, page, ledger):
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


class TestToken:
    def test_it_is_asked_once_and_a_wrong_one_is_asked_again_with_a_word(self, browser, ledger):
        with opened(browser, ledger, "#/orders/ord%2F1", token="") as page:
            dialog = page.get_by_role("dialog", name="The ledger asks for its token")
            expect(dialog).to_be_visible()
            expect(page.get_by_label("Token", exact=True)).to_be_focused()
            expect(dialog.get_by_role("alert")).to_be_hidden()
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            expect(dialog.get_by_role("alert")).to_contain_text("refused this token")
            page.keyboard.type(TOKEN)
            page.keyboard.press("Enter")
            expect(page.locator(".headline")).to_contain_text("Partially refunded")
            expect(dialog).to_be_hidden()
            page.reload()
            expect(page.locator(".headline")).to_contain_text("Partially refunded")
            page.get_by_role("button", name="Forget token").click()
            expect(dialog).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.get_by_role("alert")).to_contain_text("Without the token")

    def test_the_token_goes_to_no_address(self, browser, ledger):
        asked: list[str] = []
        with opened(browser, ledger) as page:
            page.on("request", lambda request: asked.append(request.url))
            search(page, "pay_1")
            expect(page.locator("main")).to_contain_text("Found: payment.")
        assert len(asked) >= 3
        assert not [url for url in asked if "token" in url.lower()]


class TestHostileText:
    def test_what_comes_from_outside_is_shown_and_never_run(self, page, ledger):
        encoded = "%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D'run'%3E"
        for address in (
            f"#/orders/{encoded}",
            f"#/payments/{encoded}",
            f"#/events/{encoded}",
            f"#/search?q={encoded}",
            "#/orders?status=over_refunded",
            "#/anomalies",
            "#/quarantine",
            "#/",
        ):
            go(page, ledger, address)
            expect(page.locator("main")).to_contain_text(ATTACK)
            assert page.locator("main img").count() == 0
            assert page.title() != "run"
        go(page, ledger, f"#/events/{encoded}")
        page.get_by_text("Raw body").click()
        expect(page.locator("pre")).to_contain_text(ATTACK)
        assert page.locator("main img").count() == 0

    def test_the_browser_itself_refuses_markup_and_scripts(self, browser, ledger):
        with opened(browser, ledger, meant="'Trusted") as page:
            refused = page.evaluate(
                """() => {
                    const script = document.createElement("script");
                    const tries = {
                        markup: () => { document.body.innerHTML = "<b>x</b>"; },
                        code: () => { script.text = "document.title = 'run'"; },
                        address: () => { script.src = "data:,document.title='run'"; },
                    };
                    return Object.entries(tries).map(([name, attempt]) => {
                        try { attempt(); return `${name} passed`; } catch { return name; }
                    });
                }"""
            )
            assert refused == ["markup", "code", "address"]

    def test_an_address_that_is_no_page_says_so(self, page, ledger):
        for address in ("#/constructor", "#/orders/a/b", "#/%FF", "#/payments"):
            go(page, ledger, address)
            expect(page.locator("main")).to_contain_text("There is no such page")


class TestEveryReader:
    def test_by_keyboard_alone_from_the_search_to_a_raw_body(self, page):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        _tab_to(page, "wanted")
        page.keyboard.type("ord/1")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("Found: order.")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(".headline")).to_contain_text("Partially refunded")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.tagName") == "SUMMARY":
                break
        page.keyboard.press("Enter")
        expect(page.locator("pre")).to_contain_text("evt_failed")

    def test_the_first_tab_skips_to_the_content(self, page):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        expect(page).to_have_url(_ends("/ui/"))

    def test_the_theme_is_chosen_and_kept(self, page):
        light = _background(page)
        page.get_by_role("button", name="Theme: system").click()
        page.get_by_role("button", name="Theme: light").click()
        page.get_by_role("button", name="Theme: dark").wait_for()
        assert _background(page) != light
        page.reload()
        page.get_by_role("button", name="Theme: dark").wait_for()
        assert _background(page) != light

    @pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
    def test_every_view_is_accessible_fits_and_is_pictured(self, browser, ledger, scheme, width):
        """A page never scrolls sideways; axe finds nothing, the contrast of all text among it."""
        size = {"width": width, "height": 800}
        with opened(
            browser, ledger, color_scheme=scheme, viewport=size, reduced_motion="reduce"
        ) as page:
            for name, (address, shown) in VIEWS.items():
                go(page, ledger, address)
                expect(page.locator("main")).to_contain_text(shown)
                page.wait_for_load_state()
                if name == "overview":
                    expect(page.get_by_role("img", name="by day")).to_be_visible()
                if name == "order":
                    page.get_by_text("Raw body").nth(1).click()
                    expect(page.locator("pre")).to_be_visible()
                inner = page.evaluate("document.documentElement.scrollWidth")
                assert inner <= width, f"{name} is {inner} wide"
                found = Axe().run(page).response["violations"]
                assert [_violation(each) for each in found] == [], name
                PICTURES.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True)


VIEWS = {
    "overview": ("#/", "Live"),
    "search": ("#/search?q=pay_lone", "Found: order, payment."),
    "order": ("#/orders/ord%2F1", "4 deliveries"),
    "anomaly": ("#/orders/ord_less", "What to do"),
    "payment": ("#/payments/pay_1", "re_1"),
    "event": ("#/events/evt_paid", "It was delivered 2 times"),
    "orders": ("#/orders", "ord"),
    "anomalies": ("#/anomalies", "missing for"),
    "quarantine": ("#/quarantine", "amount_negative"),
    "missing": ("#/orders/nobody", "Not in the ledger"),
}


def _violation(found: dict[str, Any]) -> tuple[str, list[str]]:
    return found["id"], [node["html"][:200] + node["failureSummary"] for node in found["nodes"]]


def _tab_to(page: Page, element_id: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element_id:
            return
    raise AssertionError(f"no Tab leads to {element_id}")


def _background(page: Page) -> Any:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def _ends(text: str) -> Any:
    return re.compile(re.escape(text) + "$")


def _number(text: str) -> int:
    return int(text.replace(",", ""))
