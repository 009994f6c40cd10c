"""Provides a ledger with a fixed set of deliveries, and browser windows, to the tests of ``/ui/``.

Deliveries arrive over HTTP, as they do from Plexy. The browser is the Chromium that is installed on
this machine (Debian's package `chromium`).
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from runtime.kafka.batches import OutRecord
from tests.ingest.conftest import PATH, signed
from tests.kafka.answers import NOW_S, SECRET, event, paid, refunded
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    free_port,
    names_of,
    until,
    wait_folded,
    write,
)
from tests.kafka.programs import program, wait_ingress

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_A_BROWSER = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed"
    ),
]

# The token contains letters that are not ASCII. A header must carry the token's UTF-8 bytes.
TOKEN = "жетон of the page"
ATTACK = "<img src=x onerror=document.title='run'>"
# On a page that shows this id unchanged, a person reads "ord_live_x".
TURNED = "ord_\u202eevil\u202c_x"
LONG = "x" * 480
HUGE = 2**53 - 1
# The page of an order requests the order repeatedly, at intervals a little shorter than this time.
LOOK_MS = 2_100
expect.set_options(timeout=15_000)


class Ledger(NamedTuple):
    """A ledger with its ingress and its views."""

    env: dict[str, str]
    worker: WorkerProcess
    ingress: httpx.Client

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.env['LEDGER_WEB_PORT']}"

    def deliver(self, *bodies: dict[str, Any] | bytes, status: int = 200) -> None:
        """Deliver signed bodies to ingress as Plexy does; each answer must have this status."""
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = self.ingress.post(PATH, content=raw, headers=signed(raw, secret=SECRET))
            assert answer.status_code == status, answer.text

    def wait_folded(self) -> None:
        """Wait until all deliveries are folded.

        The wait runs in a second thread, because the test's thread runs the browser's event loop.
        """
        with ThreadPoolExecutor(1) as thread:
            thread.submit(wait_folded, self.env, self.worker).result()

    def write(self, *records: OutRecord) -> None:
        """Write records directly to the log of record, and wait until they are folded."""
        topic = names_of(self.env).webhooks
        with ThreadPoolExecutor(1) as thread:
            thread.submit(write, self.env, topic, records).result()
        self.wait_folded()

    def fold(self, *bodies: dict[str, Any] | bytes) -> None:
        """Deliver bodies, and wait until they are folded."""
        self.deliver(*bodies)
        self.wait_folded()


@contextlib.contextmanager
def ledger_with_a_story(bootstrap: str, folder: Path) -> Iterator[Ledger]:
    """Run a worker and an ingress, and deliver the events that most tests read."""
    env = environment(
        bootstrap,
        folder,
        api_token=TOKEN,
        webhook_secrets=SECRET,
        ingest_port=free_port(),
        minor_units="IQD:3",
    )
    address = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    with WorkerProcess(env) as worker, httpx.Client(base_url=address, trust_env=False) as client:
        # The worker creates the topics.
        worker.wait_ready(90)
        with program("ingest", env) as ingress:
            wait_ingress(ingress)
            ledger = Ledger(env, worker, client)
            _deliver_story(ledger)
            yield ledger
        assert "Traceback" not in worker.log_file.read_text()


def _deliver_story(ledger: Ledger) -> None:
    """Deliver the events that most tests read; a test that needs more events delivers them."""
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
        # ISO 4217 gives the Iraqi dinar three decimals. Browsers show no decimals, because shops
        # use none.
        paid("evt_dinar", "pay_dinar", "ord_dinar", 1_234_567, currency="IQD"),
        paid("evt_yen", "pay_yen", "ord_yen", 1_234, currency="JPY"),
        paid("evt_huge_1", "pay_huge_1", "ord_huge", HUGE, currency="USD"),
        paid("evt_huge_2", "pay_huge_2", "ord_huge", HUGE - 1, currency="USD"),
        refunded("evt_lone", "re_lone", "pay_lone", 700),
        paid("evt_less", "pay_less", "ord_less", 100),
        refunded("evt_more", "re_more", "pay_less", 101),
        event("evt_bad", "payment.succeeded", "pay_bad", -5),
        event("evt_kept", "dispute.opened", "dp_1", 5),
        paid(f"evt_{LONG}", f"pay_{LONG}", f"ord_{LONG}", 12_345),
        refunded("evt_long", f"re_{LONG}", f"pay_{LONG}", 345),
        paid("evt_turned", "pay_turned", TURNED, 777),
        paid("evt_hebrew", "pay_hebrew", "הזמנה/7", 778),
        paid(ATTACK, ATTACK, ATTACK, 5, note=ATTACK),
        {**refunded("evt_attack", ATTACK, ATTACK, 6), "type": "refund.succeeded"},
        event(f"{ATTACK}2", ATTACK, "dp_2", 5),
        event(f"{ATTACK}3", "payment.succeeded", "pay_5", 1, currency=ATTACK),
    )
    ledger.deliver(json.dumps({"id": ATTACK, "type": 7}).encode(), status=400)
    ledger.wait_folded()


class Watch:
    """Checks that the page sends no request to another host, and logs only intended errors."""

    def __init__(self, address: str, intended: str) -> None:
        self._intended = intended
        self._own = address.removeprefix("http://")
        self.hosts: set[str] = set()
        self.errors: list[str] = []

    def look_at(self, page: Page) -> None:
        page.on("request", self._requested)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._logged)

    def _requested(self, request: Request) -> None:
        # The address of a file that the page itself creates for a download has no host.
        if not request.url.startswith("blob:"):
            self.hosts.add(httpx.URL(request.url).netloc.decode())

    def _logged(self, message: Any) -> None:
        # The browser logs each 4xx answer as an error, but the tests cause these answers on
        # purpose.
        intended = "Failed to load resource" in message.text or self._intended in message.text
        if message.type == "error" and not intended:
            self.errors.append(message.text)

    def check(self) -> None:
        """Fail if the page has requested another host or logged an error since the last check."""
        hosts, errors, self.hosts, self.errors = self.hosts, self.errors, set(), []
        assert hosts <= {self._own}, hosts
        assert errors == [], errors


@contextlib.contextmanager
def watched(
    browser: Browser,
    address: str,
    at: str = "",
    *,
    token: str = TOKEN,
    intended: str = "nothing",
    **options: Any,
) -> Iterator[tuple[Page, Watch]]:
    """Open the page with a token, in its own window; ignore errors that contain ``intended``.

    In the window, time passes normally, and ``wind_on`` can advance it further.
    """
    settings = {"locale": "en-GB", "timezone_id": "Asia/Almaty", **options}
    with contextlib.closing(browser.new_context(**settings)) as context:
        if token:
            kept = json.dumps(["plexy-ledger.token", token])
            # The script also runs on the blank page, which has no host and no storage.
            context.add_init_script(f"if (location.host) sessionStorage.setItem(...{kept})")
        context.clock.install()
        page = context.new_page()
        watch = Watch(address, intended)
        watch.look_at(page)
        page.goto(f"{address}/ui/{at}")
        yield page, watch
        watch.check()


@contextlib.contextmanager
def opened(*arguments: Any, **options: Any) -> Iterator[Page]:
    """Open the page as ``watched`` does."""
    with watched(*arguments, **options) as (page, _):
        yield page


def go(page: Page, at: str) -> None:
    """Go to a different address of the page."""
    page.goto(page.url.partition("#")[0] + at)


def search(page: Page, wanted: str) -> None:
    page.get_by_role("searchbox").fill(wanted)
    page.get_by_role("button", name="Search").click()


def card(page: Page, title: str) -> Locator:
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.locator("section.card").filter(has=heading)


def row(table: Locator, name: str) -> Locator:
    """Return the row of a table whose first cell has this text."""
    head = table.page.get_by_role("rowheader", name=name, exact=True)
    return table.get_by_role("row").filter(has=head)


def wind_on(page: Page, ms: int, condition: Callable[[], Any]) -> None:
    """Advance the page's time in steps of ``ms`` milliseconds until a condition holds."""

    def passed() -> Any:
        page.clock.fast_forward(ms)
        return condition()

    until(passed, within_s=30, what="a change of the page")


def ends(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text) + "$")
