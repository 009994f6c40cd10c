"""Lists of orders, the latest change first: ``ledger.orders`` read backwards.

In: filters and a cursor. Out: a page of orders as they are now, of all workers, and the next page's
cursor. The topic is the index: it is in the order of change, and its end is what changed last. So a
list costs what it reads, and the fold nothing.

Never: an order as it no longer is. A document that a newer one replaced, on an earlier page or
since, is passed over.
"""

import base64
import heapq
from collections.abc import AsyncIterator
from typing import Any, Final, get_args

import msgspec
from faust.web import Request, View

from ledger.orders import OrderDocument, OrderStatus, Totals, describe
from ledger.payments import Anomaly
from ledger.truth import SignedRecord
from ledger.wire import ORDER_DOCUMENTS
from processors.topic_reader import Offsets
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import json_answer

STATUSES: Final = get_args(OrderStatus)
ANOMALIES: Final = get_args(Anomaly)
ANY: Final = "any"
_WAITS: Final = "refund_without_payment"
# Read from each partition at a time; and looked through for one page, however few match.
_WINDOW: Final = 200
_MOST_SEARCHED: Final = 5_000


class ListedOrder(msgspec.Struct):
    """An order in a list; ``changed_at_ms`` is when the ledger last published it.

    ``waiting_since`` is the time of the first refund whose payment has not come, in Unix seconds.
    """

    order_id: str
    status: OrderStatus
    version: int
    totals: dict[str, Totals]
    anomalies: tuple[str, ...]
    payments: int
    first_event: int
    last_event: int
    changed_at_ms: int
    waiting_since: int | None


class OrderList(msgspec.Struct):
    """A page of orders; ``cursor`` is of the next page, ``None`` at the end of what there is.

    A page may hold fewer than were asked for, or none, and go on: one answer looks through a
    bounded number of documents.
    """

    orders: list[ListedOrder]
    cursor: str | None


class _Filter(msgspec.Struct, frozen=True):
    status: str | None
    anomaly: str | None
    since_ms: int

    def wants(self, document: OrderDocument) -> bool:
        """Return whether a document is to be listed."""
        if self.status is not None and document.status != self.status:
            return False
        if self.anomaly is None:
            return True
        return (
            bool(document.anomalies) if self.anomaly == ANY else self.anomaly in document.anomalies
        )


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page("/orders")
    class OrdersView(View):
        """The orders of all workers, the latest change first."""

        async def get(self, request: Request) -> Any:
            state.require_ready(app)
            wanted = _Filter(
                parameters.one_of(request, "status", STATUSES),
                parameters.one_of(request, "anomaly", (ANY, *ANOMALIES)),
                parameters.time_ms(request, "since") or 0,
            )
            cursor = _cursor(request, app.settings.partitions)
            page = await _page(app, wanted, cursor, parameters.limit(request))
            return json_answer(msgspec.json.encode(page))


async def _page(app: LedgerApp, wanted: _Filter, cursor: Offsets | None, limit: int) -> OrderList:
    topic, partitions = app.names.orders, app.settings.partitions
    ends = dict(await app.reader.ends(topic, partitions))
    if cursor is not None:
        # Beyond the end there is nothing to wait for.
        ends = {partition: min(cursor[partition], end) for partition, end in ends.items()}
    found: list[ListedOrder] = []
    met: set[bytes] = set()
    searched = 0
    async for record in _backwards(app, ends):
        if record.timestamp < wanted.since_ms:
            return OrderList(found, None)
        if len(found) == limit or searched == _MOST_SEARCHED:
            return OrderList(found, _encoded(ends))
        ends[record.partition] = record.offset
        searched += 1
        key = record.key or b""
        if key in met or record.value is None:
            met.add(key)
            continue
        met.add(key)
        document = ORDER_DOCUMENTS.decode(record.value)
        if wanted.wants(document) and await _is_current(app, document):
            found.append(_listed(document, record.timestamp))
    return OrderList(found, None)


async def _backwards(app: LedgerApp, ends: Offsets) -> AsyncIterator[SignedRecord]:
    """Yield the topic's records below ``ends``, the latest first, the partitions merged by time."""
    topic = app.names.orders
    begins = await app.reader.begins(topic, app.settings.partitions)
    unread = dict(ends)
    waiting: dict[int, list[SignedRecord]] = {}
    heap: list[tuple[int, int]] = []

    async def refill(partition: int) -> None:
        while not waiting.get(partition) and unread[partition] > begins[partition]:
            start = max(begins[partition], unread[partition] - _WINDOW)
            window = {partition: start}, {partition: unread[partition]}
            waiting[partition] = await app.reader.between(topic, *window)
            unread[partition] = start
        if waiting.get(partition):
            heapq.heappush(heap, (-waiting[partition][-1].timestamp, partition))

    for partition in ends:
        await refill(partition)
    while heap:
        _, partition = heapq.heappop(heap)
        yield waiting[partition].pop()
        await refill(partition)


async def _is_current(app: LedgerApp, document: OrderDocument) -> bool:
    """Return whether an order is still as a document has it."""
    if state.is_here(app, "orders", document.order_id):
        order = state.order(app, document.order_id)
        return order is not None and describe(order) == document
    path = f"/orders/{state.encoded(document.order_id)}"
    answer = await state.ask(app, "orders", document.order_id, path)
    return answer is not None and ORDER_DOCUMENTS.decode(answer) == document


def _listed(document: OrderDocument, changed_at_ms: int) -> ListedOrder:
    return ListedOrder(
        document.order_id,
        document.status,
        document.version,
        document.totals,
        document.anomalies,
        len(document.payments),
        document.first_event,
        document.last_event,
        changed_at_ms,
        min((each.created for each in document.payments if _WAITS in each.anomalies), default=None),
    )


def _encoded(ends: Offsets) -> str:
    packed = msgspec.msgpack.encode([ends[partition] for partition in sorted(ends)])
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _cursor(request: Any, partitions: int) -> Offsets | None:
    given: str = request.query.get("cursor", "")
    if not given:
        return None
    try:
        packed = base64.urlsafe_b64decode(given[:4096] + "=" * (-len(given) % 4))
        offsets = msgspec.msgpack.decode(packed, type=list[int])
    except (ValueError, msgspec.DecodeError):
        offsets = []
    if len(offsets) != partitions or min(offsets) < 0:
        raise parameters.invalid("cursor", given, "the `cursor` of the page before")
    return dict(enumerate(offsets))
