"""The filters and the entries of the lists of orders that ``by_anomaly`` and ``by_change`` make."""

from typing import Any, Final, get_args

import msgspec
from msgspec import UNSET

from ledger.anomalies import ANY_ANOMALY
from ledger.orders import OrderDocument, OrderStatus, Totals
from ledger.payment_documents import Anomaly
from processors.views import parameters

STATUSES: Final = get_args(OrderStatus)
ANOMALIES: Final = get_args(Anomaly)
_WAITS: Final = "refund_without_payment"


class ListedOrder(msgspec.Struct):
    """An order in a list; ``changed_at_ms`` is the time at which the ledger last published it.

    ``changed_at_ms`` is ``None`` in a list by anomaly, because the time is not known there.
    ``waiting_since`` is the time, in Unix seconds, of the first refund whose payment has not
    arrived. ``waiting_since`` is ``None`` if there is no such refund, or if the order's document is
    a summary.
    """

    order_id: str
    status: OrderStatus
    version: int
    totals: dict[str, Totals]
    anomalies: tuple[str, ...]
    payments: int
    first_event: int
    last_event: int
    changed_at_ms: int | None
    waiting_since: int | None


class OrderList(msgspec.Struct, omit_defaults=True):
    """A page of orders; ``cursor`` is the next page's cursor, or ``None`` on the last page.

    A page may hold fewer orders than the limit, or none, and still have a next page, because one
    answer searches a limited number of orders. With ``scope=worker``, ``partitions`` are the
    partitions that the worker lists.
    """

    orders: list[ListedOrder]
    cursor: str | None
    partitions: list[int] = []


class Filter(msgspec.Struct, frozen=True):
    """The orders to list."""

    status: str | None
    anomaly: str | None
    since_ms: int


def wanted(request: Any) -> Filter:
    """Return the filter that a request asks for."""
    return Filter(
        parameters.one_of(request, "status", STATUSES),
        parameters.one_of(request, "anomaly", (ANY_ANOMALY, *ANOMALIES)),
        parameters.time_ms(request, "since") or 0,
    )


def listed(document: OrderDocument, changed_at_ms: int | None) -> ListedOrder:
    """Return an order's entry in a list."""
    waiting = [each.created for each in document.payments if _WAITS in each.anomalies]
    summary = document.summary
    return ListedOrder(
        document.order_id,
        document.status,
        document.version,
        document.totals,
        document.anomalies,
        len(document.payments) if summary is UNSET else summary.payments,
        document.first_event,
        document.last_event,
        changed_at_ms,
        min(waiting, default=None) if summary is UNSET else None,
    )
