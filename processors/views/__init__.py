"""The web views: any worker answers for any order, payment or event.

Input: HTTP requests; this worker's tables, or another worker's answer (``state``); and the log of
record (``deliveries``). Output: JSON documents, and problem documents (RFC 9457). Invariants: if a
bearer token is configured, data is shown only with it; and no table is read before it is recovered.
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
