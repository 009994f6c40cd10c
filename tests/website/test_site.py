"""The documentation site, built by `make docs`, is complete, linked and self-contained."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from cli.metrics_table import as_markdown as metrics_table
from cli.settings_table import as_markdown as settings_table
from cli.settings_table import rows
from ingest.openapi import describe as describe_ingress
from ledger.pay import PayAmounts
from ledger.topics import TopicNames, all_topics
from processors.views.openapi import describe as describe_views
from runtime.settings import Secret
from tests.ingest.conftest import settings as ingress_settings
from website.api import _value
from website.hooks import _entries
from website.reference import (
    alarms,
    anomalies,
    commands,
    differences,
    reasons,
    topic_settings,
)

ROOT = Path(__file__).parents[2]
# The reference describes both dialects. The dialect of the Pay API is off by default.
INGRESS = ingress_settings(pay_tokens=(Secret("token_of_16_bytes"),), pay_amounts=PayAmounts.MINOR)
# A browser fetches the URLs in these attributes when it shows a page. It follows an <a> only after
# a click.
FETCHED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
    "embed": "src",
}
# A browser does not fetch the targets of these links in a page's head.
NAMED_ONLY = {"canonical", "next", "prev", "alternate"}


class _Page(HTMLParser):
    """The URLs that a page fetches, its links and anchors, and the cells of its tables."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.paragraphs: list[str] = []
        self.headings: list[str] = []
        self.tables: dict[str, set[str]] = {}
        self._in = ""
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self._in = tag if tag in {"h1", "h2", "h3", "td", "code"} else ""
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "p":
            self.paragraphs.append("")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in FETCHED and values.get("rel", "") not in NAMED_ONLY:
            self.fetched.append(values.get(FETCHED[tag], ""))

    def handle_data(self, data: str) -> None:
        if self._in in {"h1", "h2", "h3"}:
            self.headings.append(data)
        elif self._in and self.headings:
            self.tables.setdefault(self.headings[-1], set()).add(data)
        self._in = ""
        if self.paragraphs:
            self.paragraphs[-1] += data


class _Site:
    """The built site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[str, _Page]:
        files = sorted(self.folder.rglob("*.html"))
        return {str(file.relative_to(self.folder)): _Page(file) for file in files}

    @cached_property
    def searched(self) -> list[dict[str, Any]]:
        script = (self.folder / "search" / "search_index.js").read_text()
        return json.loads(script.partition("=")[2])["docs"]

    def broken(self, page: _Page) -> Iterator[str]:
        """Yield the page's links to pages or anchors that the site does not have."""
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            target = (page.file.parent / path).resolve() if path else page.file
            name = str(target.relative_to(self.folder)) if target != self.folder else "index.html"
            if name not in self.pages:
                if not target.is_file():
                    yield link
            elif parts.fragment and unquote(parts.fragment) not in self.pages[name].anchors:
                yield link


def _build(folder: Path, environment: Mapping[str, str] = os.environ) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> _Site:
    folder = tmp_path_factory.mktemp("site").resolve()
    _build(folder)
    return _Site(folder)


def test_every_page_of_the_documentation_is_in_the_site(site):
    sources = {file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")}
    wanted = {str(path.with_suffix(".html")).replace("README", "index") for path in sources}
    generated = ("commands", "ingress", "topics", "views")
    made = {f"reference/{name}.html" for name in generated}
    assert set(site.pages) == wanted | made | {"changelog.html", "404.html"}


def test_every_page_is_in_the_navigation_of_the_first_page(site):
    first = site.pages["index.html"]
    linked = {str(Path(unquote(urlsplit(link).path))) for link in first.links}
    assert set(site.pages) - {"index.html", "404.html"} <= linked


def test_no_page_fetches_anything_from_another_host(site):
    for name, page in site.pages.items():
        assert len(page.fetched) > 3, name
        outside = [url for url in page.fetched if urlsplit(url).scheme or urlsplit(url).netloc]
        assert outside == [], name


def test_no_style_sheet_fetches_anything_from_another_host(site):
    styles = list(site.folder.rglob("*.css"))
    assert styles
    for style in styles:
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()) == []


def test_every_link_within_the_site_leads_somewhere(site):
    broken = {
        name: found
        for name, page in site.pages.items()
        if name != "404.html" and (found := list(site.broken(page)))
    }
    assert broken == {}


def test_the_search_finds_words_of_written_and_generated_pages(site):
    texts = {entry["location"]: entry["text"] for entry in site.searched}
    assert any("partially_refunded" in text for text in texts.values())
    assert any(location.startswith("settings.html") for location in texts)


def test_every_page_in_any_folder_loads_the_iframe_worker_before_the_search_script(site):
    for name, page in site.pages.items():
        names = [Path(urlsplit(url).path).name.split(".")[0] for url in page.fetched]
        assert names.index("iframe-worker") < names.index("bundle"), name


def test_no_table_or_block_of_code_is_left_as_markdown(site):
    for name, page in site.pages.items():
        left = [text for text in page.paragraphs if re.match(r"\s*(\||```)", text)]
        assert left == [], name


def test_the_site_has_a_light_and_a_dark_scheme(site):
    text = (site.folder / "index.html").read_text()
    assert {"default", "slate"} <= set(re.findall(r'data-md-color-scheme="(\w+)"', text))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_and_a_page_is_no_wider_than_a_phone(site, scheme):
    wrong = {}
    rules = {"runOnly": ["color-contrast", "link-in-text-block"]}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme)
        for name in ("index.html", "tutorial.html", "http.html", "reference/views.html"):
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto((site.folder / name).as_uri())
            found = Axe().run(page, options=rules).response["violations"]
            wrong |= {f"{name} {each['id']}": each["nodes"] for each in found}
            page.set_viewport_size({"width": 360, "height": 800})
            width = page.evaluate("document.documentElement.scrollWidth")
            wrong |= {f"{name} width": width} if width > 360 else {}
        browser.close()
    assert wrong == {}


def test_the_reference_has_every_setting_and_every_topic(site):
    settings = (site.folder / "settings.html").read_text()
    assert [row.variable for row in rows() if f"<code>{row.variable}</code>" not in settings] == []
    topics = (site.folder / "reference" / "topics.html").read_text()
    names = [topic.name for topic in all_topics(TopicNames(), "plexy-ledger")]
    assert [name for name in names if f"<code>{name}</code>" not in topics] == []


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("alarms", alarms),
        ("alarms", anomalies),
        ("rejected", reasons),
        ("operations", differences),
        ("settings", settings_table),
        ("metrics", metrics_table),
        ("reference/topics", topic_settings),
    ],
    ids=["alarms", "anomalies", "reasons", "differences", "settings", "metrics", "topic settings"],
)
def test_a_page_has_the_table_that_the_program_generates(site, page, table):
    shown = {cell for cells in site.pages[f"{page}.html"].tables.values() for cell in cells}
    lines = [line for line in table().splitlines() if line.startswith(("| `", "| [`"))]
    assert lines
    assert [line for line in lines if line.split("`")[1] not in shown] == []


@pytest.mark.parametrize(
    ("name", "document"),
    [("ingress", describe_ingress(INGRESS)), ("views", describe_views())],
)
def test_the_reference_of_a_service_has_every_operation_and_every_parameter_and_every_field(
    site, name, document
):
    page = site.pages[f"reference/{name}.html"]
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    types = document["components"]["schemas"]
    assert [title for title in page.headings if title[0].isupper() and " /" in title] == [
        *operations
    ]
    assert set(types) <= set(page.headings)
    for title, operation in operations.items():
        cells = page.tables[title]
        wanted = {each["name"] for each in operation.get("parameters", ())}
        assert wanted | set(operation["responses"]) <= cells, title
    for title, schema in types.items():
        # An enumeration has values in place of fields.
        assert set(schema.get("properties", ())) <= page.tables.get(title, set()), title


def test_links_to_the_source_of_an_openapi_document_lead_to_its_generated_page(site):
    assert {"reference/ingress.html", "reference/views.html"} <= set(site.pages["http.html"].links)


def test_a_schema_that_the_reference_cannot_describe_fails_the_build():
    with pytest.raises(ValueError, match="no words for the schema"):
        _value({"not": {}})


def test_the_page_of_commands_has_each_command_with_its_options_and_an_example():
    page = commands()
    assert "\n## rejected retry\n" in page
    assert "| `--wait <float range>` |" in page
    assert "\n$ plexy-ledger verify --order ord_1001\n" in page
    assert "\\b" not in page


def test_a_navigation_entry_without_a_page_is_left_out_and_a_folder_is_replaced_by_its_pages():
    pages = ["a.md", "b/1.md", "b/README.md"]
    nav = [{"A": "a.md"}, {"B": "b/"}, {"C": [{"D": "d.md"}]}]
    assert list(_entries(nav, pages)) == [{"A": "a.md"}, {"B": ["b/README.md", "b/1.md"]}]
