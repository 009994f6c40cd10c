"""Lists orders, latest change first, by reading ``ledger.orders`` backwards.

Input: filters and a cursor. Output: a page of the current orders of all workers, and the cursor of
the next page. The topic's records are sorted by the time of the change, so the topic serves as the
index: a list costs only the records that it reads, and the fold maintains no other index.

Invariant: no order is listed in an outdated state, because a document is skipped if it differs from
the order's current document. After a crash, the topic may have two equal copies of the current
document, and this comparison accepts both copies. So that the order is listed only once, a page
first reads the keys of the newer records, which the earlier pages have listed, and skips documents
with these keys. One chunk of newer records is enough, because a crash repeats at most one chunk.
"""

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ledger.orders import OrderDocument
from ledger.records import SignedRecord
from ledger.wire import ORDER_DOCUMENTS, UNDECODABLE
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.listed import Filter, ListedOrder, OrderList, listed
from runtime.kafka.topic_reader import Offsets, in_time

# A page reads one window of records from each partition at a time, and searches a limited number
# of records even if only a few match.
_WINDOW: Final = 200
_MOST_SEARCHED: Final = 5_000
_KEYS_AT_A_TIME: Final = 2_000


@in_time("a page of the orders")
async def page(app: LedgerApp, request: Any, wanted: Filter) -> OrderList:
    """Return a page of orders.

    The cursor of the next page has two numbers for each partition. The first number is the offset
    below which the next page begins. The second number is the number of offsets from this offset
    up to the beginning of the first page.
    """
    limit = parameters.limit(request)
    given = parameters.cursor(request, list[tuple[int, int]], _fits(app.settings.partitions))
    begins = await app.reader.begins(app.names.orders, app.settings.partitions)
    tops = await app.reader.ends(app.names.orders, app.settings.partitions)
    ends = dict(tops)
    if given:
        # The topic may no longer have the cursor's offsets, so these are moved into the topic's
        # range.
        ends = {p: max(begins[p], min(given[p][0], top)) for p, top in tops.items()}
        tops = {p: max(begins[p], min(sum(given[p]), top)) for p, top in tops.items()}
    newer = await _keys_between(app, ends, tops)
    found: list[ListedOrder] = []
    searched = 0
    async for record in _backwards(app, begins, ends):
        if record.timestamp < wanted.since_ms:
            break
        if len(found) == limit or searched == _MOST_SEARCHED:
            position = [(ends[p], tops[p] - ends[p]) for p in sorted(ends)]
            return OrderList(found, parameters.written_cursor(position))
        ends[record.partition] = record.offset
        searched += 1
        key = record.key or b""
        try:
            document = ORDER_DOCUMENTS.decode(record.value) if record.value is not None else None
        except UNDECODABLE:
            # Another program wrote this record, so the order's current document is at a lower
            # offset.
            continue
        if key in newer or document is None:
            newer.add(key)
            continue
        newer.add(key)
        if wanted.status in {None, document.status} and await _is_current(app, document):
            found.append(listed(document, record.timestamp))
    return OrderList(found, None)


def _fits(partitions: int) -> Callable[[list[tuple[int, int]]], bool]:
    return lambda given: len(given) == partitions and min(min(pair) for pair in given) >= 0


async def _keys_between(app: LedgerApp, starts: Offsets, ends: Offsets) -> set[bytes]:
    """Return the keys of the documents in a range; read at most a chunk of each partition.

    After a crash, the outputs of at most one chunk may be written although the chunk's state is not
    written. The restarted worker writes these outputs again, right after the first copies.
    """
    keys: set[bytes] = set()
    for partition, start in starts.items():
        end = min(ends[partition], start + app.settings.chunk_records)
        for at in range(start, end, _KEYS_AT_A_TIME):
            window = {partition: at}, {partition: min(at + _KEYS_AT_A_TIME, end)}
            keys.update(
                record.key or b"" for record in await app.reader.between(app.names.orders, *window)
            )
    return keys


async def _backwards(app: LedgerApp, begins: Offsets, ends: Offsets) -> AsyncIterator[SignedRecord]:
    """Yield the records of all partitions below ``ends``, merged by time, latest record first."""
    unread = dict(ends)
    waiting: dict[int, list[SignedRecord]] = {}
    heap: list[tuple[int, int]] = []

    async def refill(partition: int) -> None:
        while not waiting.get(partition) and unread[partition] > begins[partition]:
            start = max(begins[partition], unread[partition] - _WINDOW)
            window = {partition: start}, {partition: unread[partition]}
            waiting[partition] = await app.reader.between(app.names.orders, *window)
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
    """Return whether a document is the current document of its order."""
    if state.is_here(app, "orders", document.order_id):
        return state.order_document(app, document.order_id) == document
    path = f"/orders/{state.encoded(document.order_id)}"
    answer = await state.ask(app, "orders", document.order_id, path)
    return answer is not None and ORDER_DOCUMENTS.decode(answer) == document
