"""Lists the orders that have an anomaly; the order with the latest event comes first.

Each worker lists its own orders, and the worker that answers the request merges these lists.

Input: filters and a cursor. Output: a page of the orders of all workers, and the cursor of the next
page. A cursor is the sort key of a page's last order. So the pages do not shift if orders are added
or removed between two requests. Invariant: a page covers each partition exactly once.
"""

import asyncio
import heapq
from typing import Any, Final

import msgspec
from yarl import URL

from ledger.anomalies import ANY_ANOMALY, key_of, read_key
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import ProblemError
from processors.views.listed import Filter, ListedOrder, OrderList, listed
from processors.views.workers import other_workers, require_whole

# A page takes the keys of orders from the summaries of anomalies, and reads up to this many orders
# from the table ``orders``. It does both in a single step of the event loop, so that no fold can
# change the table in between. The step takes some 30 ms on a busy machine.
_MOST_SEARCHED: Final = 500


async def page_of_all(app: LedgerApp, request: Any, wanted: Filter) -> OrderList:
    """Return a page of all workers' orders."""
    path = f"/orders?scope=worker&{request.rel_url.raw_query_string}"
    mine = page_here(app, request, wanted)
    others = await asyncio.gather(*(_part_of(app, worker, path) for worker in other_workers(app)))
    parts = [mine, *others]
    require_whole((p for part in parts for p in part.partitions), app.settings.partitions)
    return merged(parts, parameters.limit(request))


def page_here(app: LedgerApp, request: Any, wanted: Filter) -> OrderList:
    """Return a page of this worker's orders."""
    limit, end = parameters.limit(request), parameters.cursor(request, bytes)
    partitions, here = app.anomalies.active, app.anomalies.here()
    if here is None:
        detail = "this worker's orders are still being searched for anomalies"
        raise ProblemError(503, "being_summed", detail)
    found: list[ListedOrder] = []
    name = wanted.anomaly or ANY_ANOMALY
    keys = heapq.merge(*(each.latest(name, end) for each in here), reverse=True)
    for searched, key in enumerate(keys):
        created, order_id = read_key(key)
        if created * 1000 < wanted.since_ms:
            break
        if len(found) == limit or searched == _MOST_SEARCHED:
            return OrderList(found, parameters.written_cursor(end), partitions)
        end = key
        document = state.order_document(app, order_id)
        if document is not None and wanted.status in {None, document.status}:
            found.append(listed(document, None))
    return OrderList(found, None, partitions)


def merged(parts: list[OrderList], limit: int) -> OrderList:
    """Merge the workers' lists; the result ends at the last key that all these lists cover."""
    searched = [parameters.read_cursor(part.cursor, bytes) for part in parts if part.cursor]
    end = max(searched, default=b"")
    orders = sorted((o for part in parts for o in part.orders), key=_key, reverse=True)
    orders = [order for order in orders if _key(order) >= end]
    if len(orders) > limit:
        orders = orders[:limit]
        end = _key(orders[-1])
    return OrderList(orders, parameters.written_cursor(end) if end else None)


async def _part_of(app: LedgerApp, worker: URL, path: str) -> OrderList:
    answer = await state.fetch(app, worker, path)
    return msgspec.json.decode(answer or b"", type=OrderList)


def _key(order: ListedOrder) -> bytes:
    return key_of(order.last_event, order.order_id)
