"""The page works with the keyboard, in both themes, at every width, and for screen readers."""

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.kafka.page.stage import IN_A_BROWSER, LONG, TURNED, ends, go, opened, watched

pytestmark = IN_A_BROWSER

PICTURES = Path("build/page")
VIEWS = {
    "overview": ("#/", "Live"),
    "search": ("#/search?q=pay_lone", "Found: order, payment."),
    "order": ("#/orders/ord%2F1", "4 deliveries"),
    "anomaly": ("#/orders/ord_less", "What to do"),
    "payment": ("#/payments/pay_1", "re_1"),
    "event": ("#/events/evt_paid", "The event was delivered 2 times"),
    "orders": ("#/orders", "ord"),
    "anomalies": ("#/anomalies", "missing for"),
    "quarantine": ("#/quarantine", "amount_negative"),
    "missing": ("#/orders/nobody", "Not in the ledger"),
}
# These views are extreme: nothing was found, an amount is huge, an id is long, or an id contains a
# character that reverses the direction of the text.
ODD = {
    "nothing": ("#/search?q=nobody", "Nothing has this id."),
    "huge": ("#/orders/ord_huge", "180,143,985,094,819.81"),
    "long": (f"#/orders/ord_{LONG}", "2 deliveries"),
    "turned": (f"#/orders/{quote(TURNED)}", "1 delivery"),
}
# These are the widths of phones (320 and 360), of a window at 200 % zoom (640), of a tablet (768)
# and of a desktop (1280). The pictures of a theme are taken at the last width in the theme's list.
WIDTHS = {"light": (640, 768, 1280), "dark": (320, 360)}
# This script returns the elements that scroll sideways. It examines the page, the page's tables and
# the search field.
TOO_WIDE = """() => {
    const wanted = document.getElementById("wanted");
    // Typed text has as much space as a placeholder, minus the cross that clears a search.
    const word = wanted.cloneNode();
    word.type = "text";
    word.value = word.placeholder;
    wanted.replaceWith(word);
    word.style.fontSize = getComputedStyle(word, "::placeholder").fontSize;
    const looked = [document.documentElement, word, ...document.querySelectorAll(".scroll")];
    const found = looked.filter((each) => each.scrollWidth > each.clientWidth);
    word.replaceWith(wanted);
    return found.map((each) => `${each.localName} ${each.className} ${each.id}`);
}"""
CUT_OFF = """(drawing) => {
    const { left, right } = drawing.getBoundingClientRect();
    const words = [...drawing.querySelectorAll("text")].filter((word) => {
        const place = word.getBoundingClientRect();
        return place.left < left || place.right > right;
    });
    return words.map((word) => word.textContent);
}"""
COLOURS = """(keys) => keys.map((key) => getComputedStyle(key, "::before").backgroundColor)"""
MOVING = """() => [...document.querySelectorAll("*")].filter((each) => {
    const { transitionDuration, animationName } = getComputedStyle(each);
    return transitionDuration !== "0s" || animationName !== "none";
}).length"""


class TestKeyboard:
    def test_a_person_can_get_from_the_search_to_a_raw_body_by_keyboard(self, page):
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

    def test_the_first_press_of_the_tab_key_focuses_a_link_that_skips_to_the_content(self, page):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        expect(page).to_have_url(ends("/ui/"))


def test_a_chosen_theme_is_kept_after_a_reload(browser, ledger):
    with opened(browser, ledger.address) as page:
        light = _background(page)
        page.get_by_role("button", name="Theme: system").click()
        page.get_by_role("button", name="Theme: light").click()
        page.get_by_role("button", name="Theme: dark").wait_for()
        assert _background(page) != light
        page.reload()
        page.get_by_role("button", name="Theme: dark").wait_for()
        assert _background(page) != light


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_every_view_is_accessible_and_fits_every_width_and_a_picture_is_taken(
    browser, ledger, scheme, width
):
    """Nothing scrolls sideways at any width.

    The accessibility checker axe finds no fault; it also checks the contrast of colours. The page
    requests every file from the ledger's own host.
    """
    size = {"width": width, "height": 800}
    look = {"color_scheme": scheme, "viewport": size, "reduced_motion": "reduce"}
    with watched(browser, ledger.address, **look) as (page, watch):
        for name, (at, shown) in (VIEWS | ODD).items():
            go(page, at)
            expect(page.locator("main")).to_contain_text(shown)
            if name == "overview":
                expect(page.get_by_role("img", name="by day")).to_be_visible()
            if name == "order":
                page.get_by_text("Raw body").nth(1).click()
                expect(page.locator("pre")).to_be_visible()
            for other in WIDTHS[scheme]:
                page.set_viewport_size({**size, "width": other})
                assert page.evaluate(TOO_WIDE) == [], f"{name} at {other}"
            assert page.evaluate(MOVING) == 0, name
            if name in VIEWS:
                assert _violations(page) == [], name
                PICTURES.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True)
        assert watch.hosts == {ledger.address.removeprefix("http://")}


def test_a_table_with_stacked_cells_is_still_a_table_for_a_screen_reader(browser, ledger):
    with opened(browser, ledger.address, "#/payments/pay_1") as page:
        cell = page.get_by_role("cell", name="1,500.00")
        expect(cell).to_have_css("display", "table-cell")
        wide = _read_out(page)
        assert wide["cell"] > wide["rowheader"] == wide["table"] == 1
        page.set_viewport_size({"width": 360, "height": 800})
        expect(cell).to_have_css("display", "flex")
        assert _read_out(page) == wide


@pytest.mark.parametrize("width", [360, 1280])
def test_the_chart_cuts_off_no_word_in_a_language_with_long_labels(browser, ledger, width):
    """German has no short form for thousands, so the labels of the axis are long.

    If the browser replaces a page's colours (``forced_colors``), the chart's key must still show
    three colours.
    """
    size = {"width": width, "height": 800}
    look = {"locale": "de-DE", "viewport": size, "forced_colors": "active"}
    with opened(browser, ledger.address, **look) as page:
        drawing = page.get_by_role("img", name="by day")
        page.get_by_label("Currency").select_option("KZT")
        expect(drawing.locator("text", has_text="\N{MINUS SIGN}").first).to_be_visible()
        assert drawing.evaluate(CUT_OFF) == []
        assert len(set(page.locator(".key").evaluate_all(COLOURS))) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_dialog_for_the_token_is_accessible(browser, ledger, scheme):
    size = {"width": 360, "height": 640}
    with opened(browser, ledger.address, token="", color_scheme=scheme, viewport=size) as page:
        page.get_by_label("Token", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
        assert _violations(page) == []
        assert page.evaluate(TOO_WIDE) == []


def _read_out(page: Page) -> Counter[str]:
    """Return the numbers of tables, rows and cells that a screen reader finds."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    parts = ("table", "row", "columnheader", "rowheader", "cell")
    return Counter(node["role"]["value"] for node in nodes if node["role"]["value"] in parts)


def _violations(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"][:200] + node["failureSummary"] for node in each["nodes"]])
        for each in found
    ]


def _tab_to(page: Page, element_id: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element_id:
            return
    raise AssertionError(f"no Tab leads to {element_id}")


def _background(page: Page) -> Any:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
