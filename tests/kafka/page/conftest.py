"""Starts one ledger, one browser and one window for all tests of the page.

These fixtures have the scope of this package, not of the session. While Playwright runs, its event
loop occupies the thread, so no test of another package could run an event loop.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.page.stage import CHROMIUM, Ledger, Watch, ledger_with_a_story, watched


@pytest.fixture(scope="package")
def ledger(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with ledger_with_a_story(kafka.bootstrap, tmp_path_factory.mktemp("page")) as ledger:
        yield ledger


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "install chromium: apt-get install --no-install-recommends chromium"
    # In a container, Chromium's sandbox does not work, and /dev/shm is small.
    flags = ["--no-sandbox", "--disable-dev-shm-usage"]
    # With this flag, the browser can reach no other machine.
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*flags, offline])
        yield started
        started.close()


@pytest.fixture(scope="package")
def window(browser: Browser, ledger: Ledger) -> Iterator[tuple[Page, Watch]]:
    with watched(browser, ledger.address) as found:
        yield found


@pytest.fixture
def page(window: tuple[Page, Watch], ledger: Ledger) -> Iterator[Page]:
    """Load the overview again, and yield the page."""
    page, watch = window
    page.goto("about:blank")
    page.goto(f"{ledger.address}/ui/")
    yield page
    watch.check()
