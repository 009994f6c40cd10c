"""The hooks for mkdocs: they generate pages and tables, and adapt the navigation and links.

Input: the pages in docs/, and the navigation in mkdocs.yml. Output: the same pages with the
generated pages and tables, and a navigation in which each folder is replaced by its pages. A table
takes the place of a line ``<!-- table: name -->``. Generated text is never written to docs/: each
build makes it from scratch, so it can't be out of date.

A test of the ledger's web page makes the pictures of that page. If pictures are missing, a line on
standard error reports that; with ``DOCS_PICTURES=required`` the build fails.

A page of the navigation that does not exist is left out. A page that exists but is not in the
navigation fails the build (``validation`` in mkdocs.yml).
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from cli import metrics_table, settings_table
from website import api
from website.reference import alarms, anomalies, commands, differences, reasons, topics

_ROOT: Final = Path(__file__).resolve().parent.parent
_PAGE: Final = _ROOT / "processors" / "page"
_PICTURES: Final = _ROOT / "build" / "page"
_HOW: Final = "`.venv/bin/python -m pytest tests/kafka/page` makes them, with Debian's chromium"
_IMAGES: Final = "images/page"
_RELATIVE_LINK: Final = re.compile(r"\[([^\]]*)\]\(((?!\w+:)[^)#\s]+)([^)]*)\)")
_TABLE: Final = re.compile(r"^<!-- table: (.+) -->$", re.MULTILINE)
_TABLES: Final = {
    "alarms": alarms,
    "anomalies": anomalies,
    "differences": differences,
    "reasons": reasons,
    "metrics": metrics_table.as_markdown,
    "settings": settings_table.as_markdown,
}
# The files of the repository for which the site has a page under a different name.
_OWN_PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "ingest/openapi.py": "reference/ingress.md",
    "ledger/topics.py": "reference/topics.md",
    "processors/views/openapi.py": "reference/views.md",
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and expand the navigation."""
    for name, content in _generated().items():
        files.append(File.generated(config, name, content=content))
    current, lacking = pictures(_PICTURES, _PAGE)
    if lacking:
        tell(lacking)
    for picture in current:
        name = f"{_IMAGES}/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = list(_entries(config.nav or [], pages))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the tables in, and replace links to targets outside the site with their text."""
    markdown = _TABLE.sub(lambda line: _TABLES[line[1]](), markdown)
    if page.file.src_uri == "page.md":
        images = (file.src_uri for file in files if file.src_uri.startswith(_IMAGES))
        markdown += gallery(sorted(images))
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        text, path, anchor = link.groups()
        target = (folder / path).resolve()
        if target.is_dir() and not (target / "README.md").exists():
            return text
        if target.is_relative_to(config.docs_dir) or not target.exists():
            return link[0]
        own = _OWN_PAGES.get(f"{target.relative_to(_ROOT)}{anchor}")
        here = PurePosixPath(page.file.src_uri).parent
        return f"[{text}]({os.path.relpath(own, here)})" if own else text

    return _RELATIVE_LINK.sub(shown, markdown)


def pictures(folder: Path, page: Path) -> tuple[list[Path], str]:
    """Return the current pictures of the page, and a sentence about the missing ones.

    A picture that is older than a file in the folder ``page`` is out of date.
    """
    found = sorted(folder.glob("*-*-*.png"))
    changed = max(file.stat().st_mtime for file in page.rglob("*") if file.is_file())
    current = [picture for picture in found if picture.stat().st_mtime >= changed]
    if not found:
        return [], f"the site has no pictures of the page, because they have not been made: {_HOW}"
    old = len(found) - len(current)
    return (
        current,
        f"{old} of {len(found)} pictures of the page are out of date and are left out: {_HOW}"
        if old
        else "",
    )


def tell(lacking: str) -> None:
    """Report missing pictures; raise ``PluginError`` to end the build if they are required."""
    if os.environ.get("DOCS_PICTURES") == "required":
        raise PluginError(lacking)
    sys.stderr.write(f"docs: {lacking}\n")


def gallery(shown: list[str]) -> str:
    """Return Markdown that shows pictures named ``…/<page>-<scheme>-<width>.png``."""
    lines = []
    for path in shown:
        name, scheme, width = PurePosixPath(path).stem.split("-")
        lines.append(f"\n\n![{name}, {scheme}, {width} pixels wide]({path})")
    return "".join(lines)


def _generated() -> dict[str, str]:
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return {
        "reference/commands.md": commands(),
        "reference/ingress.md": api.ingress(),
        "reference/views.md": api.views(),
        "reference/topics.md": topics(),
        "changelog.md": changelog.replace("](docs/", "]("),
    }


def _entries(nav: list[Any], pages: list[str]) -> Iterator[Any]:
    """Yield the navigation's entries that have a page, with folders replaced by their pages.

    >>> pages = ["a.md", "b/1.md", "b/README.md"]
    >>> list(_entries([{"A": "a.md"}, {"B": "b/"}, {"C": [{"D": "d.md"}]}], pages))
    [{'A': 'a.md'}, {'B': ['b/README.md', 'b/1.md']}]
    """
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            below = list(_entries(target, pages))
        elif target.endswith("/"):
            below = sorted(
                (page for page in pages if page.startswith(target)),
                key=lambda page: (not page.endswith("README.md"), page),
            )
        else:
            below = target if target in pages else []
        if below:
            yield {title: below}
