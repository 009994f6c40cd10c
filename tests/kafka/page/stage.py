"""Shared by the tests of the page: a ledger with a story in it, and windows of a browser.

Deliveries arrive over HTTP, as Plexy's do. The browser is the system's Chromium (in Debian:
`chromium`).
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_A_BROWSER = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium here"
    ),
]

# The token is not ASCII, and a header must carry its bytes all the same.
TOKEN = "жетон of the page"
ATTACK = "<img src=x onerror=document.title='run'>"
# A reader would see this id as "ord_live_x".
TURNED = "ord_\u202eevil\u202c_x"
LONG = "x" * 480
HUGE = 2**53 - 1
# This is a little longer than the interval at which an order's page looks again.
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
        """Deliver as Plexy does."""
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = self.ingress.post(PATH, content=raw, headers=signed(raw, secret=SECRET))
            assert answer.status_code == status, answer.text

    def wait_folded(self) -> None:
        """Wait in another thread, because this one runs the browser's event loop."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(wait_folded, self.env, self.worker).result()

    def write(self, *records: OutRecord) -> None:
        """Write to the log of record past ingress, and wait until it is folded."""
        topic = names_of(self.env).webhooks
        with ThreadPoolExecutor(1) as thread:
            thread.submit(write, self.env, topic, records).result()
        self.wait_folded()

    def fold(self, *bodies: dict[str, Any] | bytes) -> None:
        """Deliver, and wait until it is folded."""
        self.deliver(*bodies)
        self.wait_folded()


@contextlib.contextmanager
def told(bootstrap: str, folder: Path) -> Iterator[Ledger]:
    """Run a worker and an ingress, and deliver a story in which everything occurs."""
    env = environment(
        bootstrap, folder, api_token=TOKEN, webhook_secrets=SECRET, ingest_port=free_port()
    )
    log_file = Path(env["LEDGER_DATA_DIR"]) / "ingress.log"
    address = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    with WorkerProcess(env) as worker, httpx.Client(base_url=address, trust_env=False) as client:
        # The worker creates the topics.
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
    """Deliver the events that most tests look at; a test delivers its own changes itself."""
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
        # ISO 4217 gives this currency three decimals; shops, and so browsers, use none.
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
    ledger.deliver(json.dumps({"id": 7, "type": ATTACK}).encode(), status=400)
    ledger.wait_folded()


class Watch:
    """Checks that the page asks no other host, has no script error, and runs no text of an id."""

    def __init__(self, address: str, meant: str) -> None:
        self._meant = meant
        self._own = address.removeprefix("http://")
        self.hosts: set[str] = set()
        self.errors: list[str] = []

    def look_at(self, page: Page) -> None:
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)

    def _asked(self, request: Request) -> None:
        # A file that the page itself made, to be saved, comes from no host.
        if not request.url.startswith("blob:"):
            self.hosts.add(httpx.URL(request.url).netloc.decode())

    def _heard(self, message: Any) -> None:
        # The browser also logs answers of 4xx, which are intended.
        meant = "Failed to load resource" in message.text or self._meant in message.text
        if message.type == "error" and not meant:
            self.errors.append(message.text)

    def check(self) -> None:
        """Judge the events since the last check."""
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
    meant: str = "nothing",
    **options: Any,
) -> Iterator[tuple[Page, Watch]]:
    """Open the page in a window of its own with a token; ``meant`` marks intended errors.

    Time passes normally in the window, and ``wind_on`` can advance it.
    """
    settings = {"locale": "en-GB", "timezone_id": "Asia/Almaty", **options}
    with contextlib.closing(browser.new_context(**settings)) as context:
        if token:
            kept = json.dumps(["plexy-ledger.token", token])
            # A blank page has no storage.
            context.add_init_script(f"if (location.host) sessionStorage.setItem(...{kept})")
        context.clock.install()
        page = context.new_page()
        watch = Watch(address, meant)
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
    """Go to another address of the page."""
    page.goto(page.url.partition("#")[0] + at)


def search(page: Page, wanted: str) -> None:
    page.get_by_role("searchbox").fill(wanted)
    page.get_by_role("button", name="Search").click()


def card(page: Page, title: str) -> Locator:
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.locator("section.card").filter(has=heading)


def row(table: Locator, name: str) -> Locator:
    """Return the row of a table with this text in its first cell."""
    head = table.page.get_by_role("rowheader", name=name, exact=True)
    return table.get_by_role("row").filter(has=head)


def wind_on(page: Page, ms: int, condition: Callable[[], Any]) -> None:
    """Advance the page's time by this much, again and again, until a condition holds."""

    def passed() -> Any:
        page.clock.fast_forward(ms)
        return condition()

    until(passed, within_s=30, what="what the page shows in time")


def ends(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text) + "$")
