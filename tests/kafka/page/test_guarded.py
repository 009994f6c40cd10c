"""The page shows the ledger's data only with the token, and never executes hostile text."""

from urllib.parse import quote

from playwright.sync_api import Page, expect

from tests.kafka.page.stage import ATTACK, IN_A_BROWSER, TOKEN, TURNED, go, opened, search

pytestmark = IN_A_BROWSER

# The script counts the values that a page keeps in the tab's storage, in the browser's storage and
# in cookies.
KEPT = """() => [
    Object.values(sessionStorage), Object.values(localStorage), document.cookie && [document.cookie]
].map((values) => (values || []).length)"""


class TestToken:
    def test_the_page_asks_for_a_token_until_the_token_is_right_and_does_not_ask_after_a_reload(
        self, browser, ledger
    ):
        with opened(browser, ledger.address, "#/orders/ord%2F1", token="") as page:
            dialog = page.get_by_role("dialog", name="The ledger asks for its token")
            expect(page.get_by_label("Token", exact=True)).to_be_focused()
            expect(dialog.get_by_role("alert")).to_be_hidden()
            _enter(page, "wrong")
            expect(dialog.get_by_role("alert")).to_contain_text("refused this token")
            _enter(page, TOKEN)
            expect(page.locator(".headline")).to_contain_text("Partially refunded")
            expect(dialog).to_be_hidden()
            page.reload()
            expect(page.locator(".headline")).to_contain_text("Partially refunded")

    def test_a_token_is_lost_with_its_tab_unless_the_reader_chooses_to_keep_it(
        self, browser, ledger
    ):
        with opened(browser, ledger.address, "#/orders/ord%2F1", token="") as page:
            _enter(page, TOKEN)
            expect(page.locator(".headline")).to_be_visible()
            assert page.evaluate(KEPT) == [1, 0, 0]
            other = page.context.new_page()
            other.goto(page.url)
            other.get_by_label("Keep it after this tab is closed").check()
            other.get_by_label("Token", exact=True).focus()
            _enter(other, TOKEN)
            expect(other.locator(".headline")).to_be_visible()
            assert other.evaluate(KEPT) == [0, 1, 0]
            third = page.context.new_page()
            third.goto(page.url)
            expect(third.locator(".headline")).to_be_visible()
            # After the click, neither the tab nor the browser keeps the token.
            page.get_by_role("button", name="Forget token").click()
            expect(page.get_by_role("dialog")).to_be_visible()
            assert page.evaluate(KEPT) == [0, 0, 0]

    def test_a_reader_who_gives_no_token_sees_no_data_and_is_asked_again_only_on_request(
        self, browser, ledger
    ):
        for at in ("#/", "#/orders"):
            with opened(browser, ledger.address, at, token="") as page:
                expect(page.get_by_role("dialog")).to_be_visible()
                page.keyboard.press("Escape")
                expect(page.get_by_role("alert")).to_contain_text("Without the token")
                page.get_by_role("button", name="Try again").click()
                _enter(page, TOKEN)
                expect(page.locator("main")).to_contain_text("Over-refunded")

    def test_no_address_contains_the_token(self, page):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        search(page, "pay_1")
        expect(page.locator("main")).to_contain_text("Found: payment.")
        assert len(asked) >= 3
        assert not [url for url in asked if "token" in url.lower() or quote(TOKEN) in url]


class TestHostileText:
    def test_scripts_in_a_delivery_are_shown_as_text_and_never_executed(self, page):
        encoded = quote(ATTACK, safe="")
        for at in (
            f"#/orders/{encoded}",
            f"#/payments/{encoded}",
            f"#/events/{encoded}",
            f"#/search?q={encoded}",
            "#/orders?status=over_refunded",
            "#/anomalies",
            "#/quarantine",
            "#/",
        ):
            go(page, at)
            expect(page.locator("main")).to_contain_text(ATTACK)
            assert page.locator("main img").count() == 0
            assert page.title() != "run"
        go(page, f"#/events/{encoded}")
        page.get_by_text("Raw body").click()
        expect(page.locator("pre")).to_contain_text(ATTACK)
        assert page.locator("main img").count() == 0

    def test_an_id_neither_hides_nor_reverses_the_text_next_to_it(self, page):
        at = f"#/orders/{quote(TURNED)}"
        for shown in (at, f"#/search?q={quote(TURNED)}", "#/orders"):
            go(page, shown)
            expect(page.locator("main")).to_contain_text(r"ord_\u{202e}evil\u{202c}_x")
        link = page.get_by_role("link", name=r"ord_\u{202e}evil")
        assert link.get_attribute("href") == at
        hebrew = page.locator("main .list > li").filter(has_text="הזמנה/7")
        order, badge = hebrew.get_by_role("link").bounding_box(), hebrew.locator(".badge")
        box = badge.bounding_box()
        assert order
        assert box
        assert order["x"] + order["width"] < box["x"]

    def test_the_browser_refuses_to_insert_markup_or_scripts_into_the_page(self, browser, ledger):
        with opened(browser, ledger.address, intended="'Trusted") as page:
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

    def test_an_unknown_address_shows_that_there_is_no_such_page(self, page):
        for at in ("#/constructor", "#/orders/a/b", "#/%FF", "#/payments"):
            go(page, at)
            expect(page.locator("main")).to_contain_text("There is no such page")


def _enter(page: Page, token: str) -> None:
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.type(token)
    page.keyboard.press("Enter")
