"""The web views: what became of an order, a payment or an event, from whichever worker is asked.

In: HTTP requests; the tables of this worker, or another worker's answer (``state``); the log of
record (``deliveries``). Out: JSON documents, and problem documents (RFC 9457). Never: data without
the bearer token where one is configured, and never a table's state that is not recovered yet.
"""

from typing import Final

from processors.topology import LedgerApp
from processors.views import (
    balances,
    events,
    health,
    listing,
    metrics,
    openapi,
    order_payments,
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
    health,
    metrics,
    listing,
    order_payments,
    orders,
    payments,
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
