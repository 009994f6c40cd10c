"""The page for people: ``/ui/``, static files whose scripts request the other views.

The files in ``processors/page/`` and the currencies' decimals are read once at the start. Each file
is served with its type, an entity tag, and strict rules for the browser. No other file is served.
These files hold no data of the ledger, so they are open without the token.
"""

from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec
from aiohttp import web
from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views.answers import ProblemError

OPEN_PAGES: Final = ("/", "/ui", "/ui/{file}")
"""The routes of this module, as the router names them."""

_INDEX: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
_RULES: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # A link to another site must not reveal an order's id.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The browser revalidates each file by its tag, so that all files are of the same version.
    "Cache-Control": "no-cache",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    headers: dict[str, str]


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""
    served = dict(_read(files("processors") / "page"))
    decimals = dict(app.settings.minor_units.digits_of)
    served["currencies.json"] = _file("json", msgspec.json.encode(decimals))

    # The front page is declared before the other pages. If it were declared last, it would clash
    # with Faust's own front page.
    @app.page("/")
    async def get_front(_view: View, _request: Request) -> Any:
        """Redirect to the page."""
        return web.Response(status=302, headers={"Location": "/ui/"})

    @app.page("/ui/{file:.*}")
    async def get_file(_view: View, request: Request, file: str) -> Any:
        """Return one file of the page."""
        found = served.get(file or _INDEX)
        if found is None:
            raise ProblemError(404, "file_not_found", f"the page has no file {file!r:.80}")
        if request.headers.get("If-None-Match") == found.headers["ETag"]:
            return web.Response(status=304, headers=found.headers)
        return web.Response(body=found.body, headers=found.headers)

    @app.page("/ui")
    async def get_ui(_view: View, _request: Request) -> Any:
        """Redirect to the page."""
        return web.Response(status=308, headers={"Location": "/ui/"})


def _read(folder: Traversable, above: str = "") -> Any:
    for each in folder.iterdir():
        name = f"{above}{each.name}"
        if each.is_dir():
            yield from _read(each, f"{name}/")
        else:
            yield name, _file(name.rpartition(".")[2], each.read_bytes())


def _file(kind: str, body: bytes) -> _File:
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    return _File(body, {"Content-Type": _TYPES[kind], "ETag": tag, **_RULES})
