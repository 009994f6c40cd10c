"""The web views: any worker answers for any order, payment or event.

The views answer HTTP requests with JSON documents and problem documents (RFC 9457). The data comes
from this worker's tables, from other workers' answers (``state``), and from the log of record
(``deliveries``). Invariants: if a bearer token is configured, data is shown only to requests with
this token. No table is read before it is recovered.
"""

from typing import Final

from processors.topology import LedgerApp
from processors.views import (
    balances,
    events,
    listing,
    metrics,
    openapi,
    orders,
    overview,
    page,
    payments,
    rejections,
    tables,
)
from processors.views.access import middlewares

__all__ = ["add_views", "middlewares"]


_PAGES: Final = (
    metrics,
    listing,
    payments,
    orders,
    events,
    balances,
    rejections,
    overview,
    tables,
    openapi,
    page,
)


def add_views(app: LedgerApp) -> None:
    """Declare the views; ``app``'s web server serves them."""
    for pages in _PAGES:
        pages.add_pages(app)
